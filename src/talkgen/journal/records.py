"""The JSON form of a record: what a journal on a disk keeps of it. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from talkgen.draft import TaskState
from talkgen.media import FileRef
from talkgen.protocols import Checkpoint, Operation, TaskRecord, TaskSpec

if TYPE_CHECKING:
    import sqlite3

    from talkgen._types import JSON

__all__ = ["COLUMNS", "decode", "encode"]

COLUMNS = (
    "task_id",
    "state",
    "attempt",
    "created",
    "updated",
    "inputs",
    "stages",
    "summary",
    "checkpoints",
    "operations",
)


FILE_FIELDS = tuple(field.name for field in attrs.fields(FileRef))


def encode(record: TaskRecord) -> dict[str, str | int]:
    """A record by column: text and numbers."""
    return {
        "task_id": record.spec.task_id,
        "state": record.state.value,
        "attempt": record.attempt,
        "created": _written(record.created),
        "updated": _written(record.updated),
        "inputs": _text(dict(record.spec.inputs)),
        "stages": _text(record.spec.stages),
        "summary": _text(record.summary),
        "checkpoints": _text({k: _checkpoint(v) for k, v in record.checkpoints.items()}),
        "operations": _text({k: _operation(v) for k, v in record.operations.items()}),
    }


def decode(row: sqlite3.Row) -> TaskRecord:
    """Read a record back.

    Raises:
        ValueError, LookupError, TypeError: It was not written by `encode`.
    """
    checkpoints, operations = json.loads(row["checkpoints"]), json.loads(row["operations"])
    return TaskRecord(
        spec=TaskSpec(
            task_id=row["task_id"],
            inputs=json.loads(row["inputs"]),
            stages=tuple(json.loads(row["stages"])),
        ),
        state=TaskState(row["state"]),
        attempt=row["attempt"],
        created=datetime.fromisoformat(row["created"]),
        updated=datetime.fromisoformat(row["updated"]),
        summary=json.loads(row["summary"]),
        checkpoints={stage: _read_checkpoint(facts) for stage, facts in checkpoints.items()},
        operations={name: _read_operation(name, facts) for name, facts in operations.items()},
    )


def _text(value: JSON) -> str:
    return json.dumps(value, allow_nan=False)


def _written(moment: datetime) -> str:
    """In UTC and always to the microsecond, so that the order of the texts is that of time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _checkpoint(checkpoint: Checkpoint) -> JSON:
    files = {name: _file(file) for name, file in checkpoint.files.items()}
    return {"fields": dict(checkpoint.fields), "files": files}


def _file(file: FileRef) -> JSON:
    return {name: getattr(file, name) for name in FILE_FIELDS}


def _read_checkpoint(facts: JSON) -> Checkpoint:
    files = {name: FileRef(**file) for name, file in facts["files"].items()}
    return Checkpoint(facts["fields"], files)


def _operation(operation: Operation) -> JSON:
    return {
        "token": operation.token,
        "facts": dict(operation.facts),
        "settled": operation.settled,
        "intended_at": _written(operation.intended_at),
    }


def _read_operation(name: str, facts: JSON) -> Operation:
    moment = datetime.fromisoformat(facts["intended_at"])
    return Operation(name, facts["token"], facts["facts"], facts["settled"], moment)
