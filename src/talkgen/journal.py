"""What was done for each task, so that nothing is done twice.

What an attempt may do to a record is decided by pure functions of the record; a journal only
keeps records and says who owns which.
"""

from __future__ import annotations

import json
import secrets
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

import attrs

from talkgen._clock import utc_now
from talkgen._iteration import Fetched
from talkgen.draft import TaskState
from talkgen.errors import TaskBusy, TaskConflict
from talkgen.protocols import Checkpoint, Operation, TaskRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from talkgen._types import JSON
    from talkgen.protocols import Settlement, TaskSpec

__all__ = ["MemoryJournal"]

Transition: TypeAlias = "Callable[[TaskRecord, datetime], TaskRecord]"

OWNED = frozenset({TaskState.RUNNING, TaskState.PUBLISHING})
TOKEN_BYTES = 16  # 128 bits, as a random UUID has


# --- what may happen to a record ---------------------------------------------------------------


def begun(record: TaskRecord | None, spec: TaskSpec, now: datetime) -> TaskRecord:
    """A new attempt at a task; `record` is what is known of it.

    Raises:
        TaskConflict: The id belongs to other inputs or stages.
    """
    if record is None:
        return TaskRecord(spec, TaskState.RUNNING, attempt=1, created=now, updated=now)
    if (different := _differences(record.spec, spec)) is not None:
        raise TaskConflict(f"Task {spec.task_id} was begun with other {different}.")
    return resumed(record, now) if not record.state.final else restarted(record, now)


def resumed(record: TaskRecord, now: datetime) -> TaskRecord:
    """The next attempt at unfinished work: all that is known of it stays.

    A task that was publishing still is: only going on with that can end it.
    """
    state = record.state if record.state is TaskState.PUBLISHING else TaskState.RUNNING
    return attrs.evolve(record, state=state, attempt=record.attempt + 1, updated=now)


def restarted(record: TaskRecord, now: datetime) -> TaskRecord:
    """The next attempt at ended work: it begins anew."""
    return attrs.evolve(
        record,
        state=TaskState.RUNNING,
        attempt=record.attempt + 1,
        updated=now,
        summary=None,
        checkpoints={},
        operations={},
    )


def intended(
    record: TaskRecord, name: str, facts: dict[str, JSON], token: str, now: datetime
) -> TaskRecord:
    """An outside action is about to be taken; one that was intended before stays as it is."""
    if name in record.operations:
        return record
    return _with_operation(record, Operation(name, token, _plain(facts), None, now), now)


def recorded(record: TaskRecord, name: str, facts: dict[str, JSON], now: datetime) -> TaskRecord:
    """More is known of an action.

    Raises:
        LookupError: It was not intended.
    """
    operation = _operation(record, name)
    known = {**operation.facts, **_plain(facts)}
    return _with_operation(record, attrs.evolve(operation, facts=known), now)


def settled(record: TaskRecord, name: str, outcome: Settlement, now: datetime) -> TaskRecord:
    """An action has ended.

    Raises:
        LookupError: It was not intended.
        ValueError: It is known to have ended otherwise.
    """
    operation = _operation(record, name)
    if operation.settled not in {None, "unknown", outcome}:
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
    checkpoints = {} if state.final else record.checkpoints
    return attrs.evolve(
        record, state=state, summary=_plain(summary), checkpoints=checkpoints, updated=now
    )


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


# --- in memory ---------------------------------------------------------------------------------


class MemoryJournal:
    """Keeps records in memory, for as long as this process lives.

    Any number of threads and event loops may share it. The owner of a task is the `TaskJournal`
    that `begin` or `claim` gave; it is dead once nobody refers to it any more.
    """

    def __init__(self, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Make an empty journal.

        Args:
            clock: Gives the time, with its zone.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._records: dict[str, TaskRecord] = {}
        self._owners: WeakValueDictionary[str, _Attempt] = WeakValueDictionary()

    @property
    def durable(self) -> bool:
        """Records go with this process."""
        return False

    async def begin(self, task: TaskSpec) -> _Attempt:
        """Create a task, or take over one that nobody works on; raises the attempt by one.

        Raises:
            TaskBusy: A living owner works on it.
            TaskConflict: The id belongs to other inputs or stages.
        """
        with self._lock:
            found = self._records.get(task.task_id)
            record = begun(found, task, self._clock())
            self._check_free(task.task_id)
            return self._owned(record, found)

    async def claim(self, task_id: str) -> _Attempt | None:
        """Take over a deferred task, or one of a dead owner; None if there is nothing to take."""
        with self._lock:
            found = self._records.get(task_id)
            if found is None or found.state.final or task_id in self._owners:
                return None
            return self._owned(resumed(found, self._clock()), found)

    async def get(self, task_id: str) -> TaskRecord | None:
        """What is known of a task."""
        with self._lock:
            return self._records.get(task_id)

    def tasks(self, *states: TaskState) -> AsyncIterator[TaskRecord]:
        """Tasks in these states, or all, oldest first."""
        return Fetched(partial(self._fetch, frozenset(states or TaskState)))

    async def forget(self, task_id: str) -> None:
        """Drop the record of a task, if there is one.

        Raises:
            TaskBusy: Somebody works on it.
        """
        with self._lock:
            self._check_free(task_id)
            self._records.pop(task_id, None)

    async def _fetch(self, states: frozenset[TaskState]) -> tuple[TaskRecord, ...]:
        with self._lock:
            chosen = (record for record in self._records.values() if record.state in states)
            return tuple(sorted(chosen, key=lambda record: record.created))

    def _check_free(self, task_id: str) -> None:
        if task_id in self._owners:
            raise TaskBusy(f"Somebody works on task {task_id}.", hint="Wait until it has ended.")

    def _owned(self, record: TaskRecord, found: TaskRecord | None) -> _Attempt:
        task_id = record.spec.task_id
        attempt = _Attempt(attrs.evolve(record, state=(found or record).state), self)
        self._records[task_id] = record
        self._owners[task_id] = attempt
        return attempt

    def _change(self, owner: _Attempt, transition: Transition) -> TaskRecord:
        task_id = owner.task.spec.task_id
        with self._lock:
            if self._owners.get(task_id) is not owner:
                raise TaskBusy(
                    f"Attempt {owner.task.attempt} at task {task_id} has ended; "
                    "it may not be written any more."
                )
            record = transition(self._records[task_id], self._clock())
            self._records[task_id] = record
            if record.state not in OWNED:
                del self._owners[task_id]
            return record


class _Attempt:
    """One attempt of a task, and its ownership."""

    def __init__(self, task: TaskRecord, journal: MemoryJournal) -> None:
        self._task = task
        self._journal = journal

    @property
    def task(self) -> TaskRecord:
        """The task as this attempt found it, with this attempt's number."""
        return self._task

    async def get(self, name: str) -> Operation | None:
        """An operation, as far as it is known."""
        record = await self._journal.get(self._task.spec.task_id)
        return record.operations.get(name) if record else None

    async def intend(self, name: str, **facts: JSON) -> Operation:
        """Journal an action before its request; gives back the existing one with its token."""
        token = secrets.token_hex(TOKEN_BYTES)
        record = self._change(lambda old, now: intended(old, name, facts, token, now))
        return record.operations[name]

    async def record(self, name: str, **facts: JSON) -> None:
        """Add facts, such as the remote id, as soon as they are known."""
        self._change(lambda old, now: recorded(old, name, facts, now))

    async def settle(self, name: str, outcome: Settlement) -> None:
        """Tell how an action ended."""
        self._change(lambda old, now: settled(old, name, outcome, now))

    async def stage_done(self, stage: str, checkpoint: Checkpoint) -> None:
        """Tell that a stage has ended, its files being staged."""
        self._change(lambda old, now: advanced(old, stage, checkpoint, now))

    async def finish(self, state: TaskState, summary: JSON) -> None:
        """Set the state; all but `PUBLISHING` end this attempt."""
        self._change(lambda old, now: finished(old, state, summary, now))

    def _change(self, transition: Transition) -> TaskRecord:
        return self._journal._change(self, transition)  # noqa: SLF001 - the two are one
