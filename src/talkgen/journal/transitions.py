"""What an attempt may do to a record: pure functions, the same rules for every journal."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, TypeAlias

import attrs

from talkgen.draft import TaskState
from talkgen.errors import TaskConflict
from talkgen.protocols import Checkpoint, Operation, TaskRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from talkgen._types import JSON
    from talkgen.protocols import Settlement, TaskSpec

__all__ = [
    "OWNED",
    "Transition",
    "advanced",
    "begun",
    "finished",
    "intended",
    "new_token",
    "recorded",
    "resumed",
    "settled",
]

Transition: TypeAlias = "Callable[[TaskRecord, datetime], TaskRecord]"

OWNED = frozenset({TaskState.RUNNING, TaskState.PUBLISHING})
LOST = ("collected", "unknown")  # it was here, and is so no more
TOKEN_BYTES = 16  # 128 bits, as a random UUID has


def new_token() -> str:
    """What nobody can guess, for an operation."""
    return secrets.token_hex(TOKEN_BYTES)


def begun(record: TaskRecord | None, spec: TaskSpec, now: datetime) -> TaskRecord:
    """A new attempt at a task; `record` is what is known of it.

    A completed task stays as it is: there is nothing to attempt, and it is owned by nobody.

    Raises:
        TaskConflict: The id belongs to other inputs or stages.
    """
    if record is None:
        return TaskRecord(spec, TaskState.RUNNING, attempt=1, created=now, updated=now)
    if (different := _differences(record.spec, spec)) is not None:
        raise TaskConflict(f"Task {spec.task_id} was begun with other {different}.")
    if record.state is TaskState.COMPLETED:
        return record
    return restarted(record, now) if record.state.final else resumed(record, now)


def resumed(record: TaskRecord, now: datetime) -> TaskRecord:
    """The next attempt at unfinished work: all that is known of it stays.

    A task that was publishing still is: only going on with that can end it.
    """
    state = record.state if record.state is TaskState.PUBLISHING else TaskState.RUNNING
    return attrs.evolve(record, state=state, attempt=record.attempt + 1, updated=now)


def restarted(record: TaskRecord, now: datetime) -> TaskRecord:
    """The next attempt at ended work: it begins anew.

    Only an action of which nobody knows whether it was taken stays, so that it is looked for
    before it is taken again.
    """
    unknown = {
        name: operation
        for name, operation in record.operations.items()
        if operation.settled == "unknown"
    }
    return attrs.evolve(
        record,
        state=TaskState.RUNNING,
        attempt=record.attempt + 1,
        updated=now,
        summary=None,
        checkpoints={},
        operations=unknown,
    )


def intended(
    record: TaskRecord, name: str, facts: dict[str, JSON], token: str, now: datetime
) -> TaskRecord:
    """An outside action is about to be taken; one that was intended before stays as it is."""
    if name in record.operations:
        return record
    return _with_operation(record, Operation(name, token, _plain(facts), None, now), now)


def recorded(record: TaskRecord, name: str, facts: dict[str, JSON], now: datetime) -> TaskRecord:
    """More is known of an action; one that was past finding out is open again.

    Raises:
        LookupError: It was not intended.
    """
    operation = _operation(record, name)
    known = {**operation.facts, **_plain(facts)}
    settled = None if operation.settled == "unknown" else operation.settled
    return _with_operation(record, attrs.evolve(operation, facts=known, settled=settled), now)


def settled(record: TaskRecord, name: str, outcome: Settlement, now: datetime) -> TaskRecord:
    """An action has ended, or what it had brought is lost.

    Raises:
        LookupError: It was not intended.
        ValueError: It is known to have ended otherwise.
    """
    operation = _operation(record, name)
    lost = (operation.settled, outcome) == LOST
    if not lost and operation.settled not in {None, "unknown", outcome}:
        raise ValueError(f"operation {name!r} was {operation.settled}, so it is not {outcome}")
    return _with_operation(record, attrs.evolve(operation, settled=outcome), now)


def advanced(record: TaskRecord, stage: str, checkpoint: Checkpoint, now: datetime) -> TaskRecord:
    """A stage has ended, and its files are staged."""
    kept = attrs.evolve(checkpoint, fields=_plain(dict(checkpoint.fields)))
    checkpoints = {**record.checkpoints, stage: kept}
    return attrs.evolve(record, checkpoints=checkpoints, updated=now)


def finished(record: TaskRecord, state: TaskState, summary: JSON, now: datetime) -> TaskRecord:
    """The attempt has reached another state.

    Raises:
        ValueError: The state is the one in which attempts begin.
    """
    if state is TaskState.RUNNING:
        raise ValueError("an attempt does not finish as running")
    return attrs.evolve(
        record,
        state=state,
        summary=_plain(summary),
        checkpoints=_outliving(record, state),
        updated=now,
    )


def _outliving(record: TaskRecord, state: TaskState) -> dict[str, Checkpoint]:
    """The checkpoints that still mean something: of what is published, the last one does."""
    if state is TaskState.COMPLETED:
        return dict(list(record.checkpoints.items())[-1:])
    return {} if state.final else dict(record.checkpoints)


def _differences(old: TaskSpec, new: TaskSpec) -> str | None:
    names = [field for field in ("inputs", "stages") if getattr(old, field) != getattr(new, field)]
    return " and ".join(names) or None


def _operation(record: TaskRecord, name: str) -> Operation:
    if name not in record.operations:
        raise LookupError(f"operation {name!r} was not intended; call intend() first")
    return record.operations[name]


def _with_operation(record: TaskRecord, operation: Operation, now: datetime) -> TaskRecord:
    operations = {**record.operations, operation.name: operation}
    return attrs.evolve(record, operations=operations, updated=now)


def _plain(value: JSON) -> JSON:
    """A copy as JSON gives it back; what is not JSON is refused before it is kept."""
    return json.loads(json.dumps(value, allow_nan=False))
