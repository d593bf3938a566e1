"""What clients are told: events, results and records with this application's addresses."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from studio.problems import INTERNAL, is_public
from talkgen import errors, events
from talkgen.draft import TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from talkgen import Result
    from talkgen.events import Event
    from talkgen.protocols import TaskRecord

__all__ = ["accepted", "answer", "flat", "links", "recalled", "wire"]

PREFIX = "/api/pipeline"
OPERATORS = {"error_type", "backend", "restored"}  # what such a step down says may hold anything
NEVER = 2**31 - 1  # a number that no event has: whoever has seen this one has seen the end


def links(task_id: str) -> dict[str, str]:
    """Where everything about a task is."""
    return {
        "status": f"{PREFIX}/status/{task_id}",
        "events": f"{PREFIX}/progress/{task_id}/sse",
        "websocket": f"{PREFIX}/progress/{task_id}",
        "video": f"{PREFIX}/video/{task_id}",
        "poster": f"{PREFIX}/video/{task_id}/poster",
    }


def wire(event: Event) -> dict[str, Any]:
    """The wire form of an event, as clients may see it: nothing about this machine's folders."""
    match event:
        case events.Complete():
            event = attrs.evolve(event, video_url=links(event.task_id)["video"])
        case events.Error() | events.Deferred() if not is_public(event.error_type):
            event = attrs.evolve(event, message=INTERNAL, error=INTERNAL, hint=None)
        case events.Degraded() if event.metadata.keys() & OPERATORS:
            if not is_public(event.metadata.get("error_type", "")):
                event = attrs.evolve(event, message="Something here failed, and was left out.")
    return event.to_dict()


def flat(event: Event) -> dict[str, Any]:
    """The wire form on one level."""
    told = wire(event)
    data = told.pop("data")
    return {**told, **data}


def answer(result: Result) -> dict[str, Any]:
    """A result that may be deferred: then it has no video yet."""
    where = links(result.task_id)
    video_url = where["video"] if result.success else None
    return {**result.to_dict(), "video_url": video_url, "links": where}


def accepted(task_id: str) -> dict[str, Any]:
    """A task that goes on after the answer."""
    return {"task_id": task_id, "status": TaskState.RUNNING, "links": links(task_id)}


def recalled(record: TaskRecord) -> Event:
    """The last word on a task whose events are forgotten: what the journal makes of it."""
    facts: Mapping[str, Any] = record.summary or {}
    why: dict[str, Any] = {name: facts.get(name) for name in ("error", "error_type", "hint")}
    told: Callable[..., Event]
    match record.state:
        case TaskState.COMPLETED:
            took = facts["execution_time_ms"]
            told = partial(events.Complete, video_url=None, execution_time_ms=took)
        case TaskState.FAILED:
            told = partial(events.Error, **why, severity=facts.get("severity", ""))
        case TaskState.EXPIRED:
            why |= {"error": "Its files have expired.", "error_type": errors.FileMissing.__name__}
            told = partial(events.Error, **why, severity=errors.Severity.PERMANENT)
        case TaskState.DEFERRED:
            told = partial(events.Deferred, **why)
        case TaskState.CANCELLED:
            told = events.Cancelled
        case _:
            told = events.StageUpdate
    return told(
        task_id=record.spec.task_id,
        attempt=record.attempt,
        sequence=NEVER,
        timestamp=record.updated,
        stage=record.state.value,
        progress=100 if record.state is TaskState.COMPLETED else 0,
        message=why["error"] or record.state.value.capitalize(),
    )
