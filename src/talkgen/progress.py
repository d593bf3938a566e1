"""Who hears what when: the histories of all tasks, and those who read them.

A history is an append-only list and a reader an index into it, so that nobody is slow for anybody
and everybody sees the same.
"""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import anyio
import anyio.lowlevel
import attrs

from talkgen._clock import utc_now
from talkgen._loops import call_soon
from talkgen.events import Heartbeat, Preview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from anyio.lowlevel import EventLoopToken

    from talkgen._types import JSON
    from talkgen.events import Event
    from talkgen.media import Image

__all__ = ["History", "ProgressTracker", "Subscription"]

E = TypeVar("E", bound="Event")

RETENTION = timedelta(minutes=60)
HEARTBEAT = 30.0  # seconds without news


@attrs.define(eq=False)
class History:
    """The events of one attempt of a task, and the way to add to them. Thread-safe."""

    task_id: str
    attempt: int
    clock: Callable[[], datetime] = utc_now
    events: list[Event] = attrs.field(factory=list)
    preview: Preview | None = None
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)
    _waiting: dict[EventLoopToken, anyio.Event] = attrs.field(factory=dict, repr=False)

    @property
    def latest(self) -> Event | None:
        """The last event."""
        return self.events[-1] if self.events else None

    @property
    def ended(self) -> bool:
        """The terminal event is there; no other can follow."""
        return bool(self.events) and self.events[-1].terminal

    def publish(
        self,
        kind: type[E],
        stage: str,
        progress: float,
        message: str,
        metadata: Mapping[str, JSON] | None = None,
        **facts: Any,
    ) -> E | None:
        """Append an event, from any thread, without waiting.

        Args:
            kind: Its class.
            stage: The step of the work.
            progress: Per cent; one lower than the last is raised to it.
            message: For people, one line.
            metadata: Facts, JSON only.
            **facts: What the class has beside the common fields.

        Returns:
            The event, or None when the attempt has already ended: a thread that is still at work
            then has nobody left to tell.
        """
        with self._lock:
            if self.ended:
                return None
            last = self.latest
            event = kind(
                task_id=self.task_id,
                attempt=self.attempt,
                sequence=len(self.events),
                timestamp=self.clock(),
                stage=stage,
                progress=max(int(progress), last.progress if last else 0),
                message=message,
                metadata=metadata or {},
                **facts,
            )
            self.events.append(event)
            waiting = self._take_waiting()
        _wake(waiting)
        return event

    def show(self, image: Image) -> None:
        """Offer a picture to those who listen now, from any thread, without waiting."""
        with self._lock:
            if not self.events or self.ended:
                return
            last = self.events[-1]
            self.preview = Preview(**_common(last, self.clock()), image=image)
            waiting = self._take_waiting()
        _wake(waiting)

    def changed(self, seen: int, preview: Preview | None) -> anyio.Event | None:
        """What to wait on for more than a reader has seen; None when there is more already."""
        with self._lock:
            if len(self.events) > seen or self.preview is not preview:
                return None
            return self._waiting.setdefault(anyio.lowlevel.current_token(), anyio.Event())

    def _take_waiting(self) -> list[tuple[EventLoopToken, anyio.Event]]:
        waiting = list(self._waiting.items())
        self._waiting.clear()
        return waiting


def _wake(waiting: list[tuple[EventLoopToken, anyio.Event]]) -> None:
    for token, event in waiting:
        call_soon(token, event.set)


def _common(event: Event, timestamp: datetime) -> dict[str, Any]:
    """The fields of an ephemeral event: the last one's, at another moment."""
    return {
        "task_id": event.task_id,
        "attempt": event.attempt,
        "sequence": event.sequence,
        "timestamp": timestamp,
        "stage": event.stage,
        "progress": event.progress,
        "message": event.message,
        "metadata": {},
    }


class Subscription:
    """Reads a history from its beginning, or after a cursor, up to its terminal event.

    An iterator without anything to close: leaving it at any moment leaves nothing behind.
    """

    def __init__(self, history: History, *, seen: int = 0, heartbeat: float = HEARTBEAT) -> None:
        """Start reading.

        Args:
            history: What to read.
            seen: How many of its events to leave out.
            heartbeat: Seconds without news before a `Heartbeat`.
        """
        self._history = history
        # A cursor may come from a history that was longer, before its process was killed.
        self._seen = min(seen, len(history.events))
        self._preview = history.preview
        self._heartbeat = heartbeat
        self._ended = history.ended and self._seen == len(history.events)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        changed = self._changed()
        if changed is None:
            await anyio.lowlevel.checkpoint()
        while changed is not None:
            if not await self._set(changed) and (last := self._history.latest) is not None:
                fields = _common(last, self._history.clock())
                return Heartbeat(**{**fields, "message": "keepalive"})
            changed = self._changed()
        event = self._take()
        self._ended = event.terminal
        return event

    def _changed(self) -> anyio.Event | None:
        return self._history.changed(self._seen, self._preview)

    def _take(self) -> Event:
        """What `_changed` has seen."""
        history = self._history
        if self._seen < len(history.events):
            self._seen += 1
            return history.events[self._seen - 1]
        assert history.preview is not None  # noqa: S101 - nothing else changes
        self._preview = history.preview
        return self._preview

    async def _set(self, changed: anyio.Event) -> bool:
        """Wait; False when nothing changed for a heartbeat's time."""
        with anyio.move_on_after(self._heartbeat):
            await changed.wait()
            return True
        return False


class ProgressTracker:
    """The histories of all tasks of this process."""

    def __init__(
        self,
        *,
        retention: timedelta = RETENTION,
        heartbeat: float = HEARTBEAT,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Make a tracker.

        Args:
            retention: How long a history is kept after its end.
            heartbeat: Seconds without news before a reader gets a `Heartbeat`.
            clock: Tells the time, in UTC.
        """
        self._retention = retention
        self._heartbeat = heartbeat
        self._clock = clock
        self._lock = threading.Lock()
        self._histories: dict[str, History] = {}
        # Of tasks that have not begun, kept by those who wait for them: ids may be anybody's guess.
        self._awaited: WeakValueDictionary[str, History] = WeakValueDictionary()
        self._ended: deque[tuple[datetime, History]] = deque()

    def begin(self, task_id: str, attempt: int = 1) -> History:
        """Open the history of an attempt; readers of an earlier one keep theirs."""
        with self._lock:
            self._expire()
            history = self._awaited.pop(task_id, None) or History(task_id, attempt, self._clock)
            history.attempt = attempt
            self._histories[task_id] = history
            return history

    def end(self, history: History) -> None:
        """Keep an ended history for the time of the retention, then drop it."""
        with self._lock:
            self._ended.append((self._clock(), history))
            self._expire()

    def subscribe(self, task_id: str, after: str | None = None) -> Subscription:
        """Iterate over the events of a task's latest attempt; ends after the terminal one.

        A task that has not begun is waited for.

        Args:
            task_id: The task.
            after: The cursor of the last event already seen. One of an earlier attempt starts
                with the first event of the latest.

        Raises:
            ValueError: The cursor is not `attempt-sequence`.
        """
        with self._lock:
            self._expire()
            history = self._histories.get(task_id) or self._awaited.get(task_id)
            if history is None:
                history = self._awaited[task_id] = History(task_id, 0, self._clock)
        return self.read(history, _seen(after, history.attempt) if after is not None else 0)

    def read(self, history: History, seen: int = 0) -> Subscription:
        """Iterate over one attempt's events, without the first `seen`, up to its terminal one."""
        return Subscription(history, seen=seen, heartbeat=self._heartbeat)

    def histories(self) -> tuple[History, ...]:
        """Every history that is kept, the latest attempt of each task, oldest first."""
        with self._lock:
            self._expire()
            return tuple(self._histories.values())

    def latest(self, task_id: str) -> Event | None:
        """The last event of a task, while its history is kept."""
        with self._lock:
            self._expire()
            history = self._histories.get(task_id)
            return history.latest if history else None

    def forget(self, task_id: str) -> None:
        """Drop a history now; those who read it keep it until they leave."""
        with self._lock:
            self._histories.pop(task_id, None)

    def _expire(self) -> None:
        oldest = self._clock() - self._retention
        while self._ended and self._ended[0][0] <= oldest:
            _, history = self._ended.popleft()
            if self._histories.get(history.task_id) is history:
                del self._histories[history.task_id]


def _seen(cursor: str, attempt: int) -> int:
    number, _, sequence = cursor.partition("-")
    if not (number.isdecimal() and sequence.isdecimal()):
        raise ValueError(f"{cursor!r} is not a cursor; an event's is like '1-17'")
    return int(sequence) + 1 if int(number) == attempt else 0


@attrs.frozen
class Span:
    """A stage's share of the progress.

    Attributes:
        start: Per cent when it begins.
        end: Per cent when it has ended.
        announced: The run tells its beginning and end as `{name}_running` and `{name}_complete`;
            otherwise the stage tells its own steps.
    """

    start: float
    end: float
    announced: bool = True

    def at(self, fraction: float) -> float:
        """The per cent at a fraction, 0..1, of the stage."""
        return self.start + (self.end - self.start) * min(max(fraction, 0.0), 1.0)


# The percentages that the wire form promises for the stages everybody has.
WELL_KNOWN = {
    "detection": Span(25, 40),
    "background_removal": Span(50, 60),
    "video_generation": Span(70, 80, announced=False),
}
FIRST, LAST = 20.0, 90.0


def spans(stages: Iterable[tuple[str, float]]) -> list[Span]:
    """Divide the progress among stages.

    The well-known ones, as long as they stand in their usual order, have fixed places; the others
    share the gaps between those by weight.

    Args:
        stages: Name and weight of each, in order.

    Returns:
        A span for each; none begins before the one before it ends.
    """
    divided: list[Span] = []
    others: list[float] = []
    position = FIRST
    for name, weight in stages:
        known = WELL_KNOWN.get(name)
        if known is None or known.start < position:
            others.append(weight)
            continue
        divided += [*_shared(position, known.start, others), known]
        others, position = [], known.end
    return divided + _shared(position, LAST, others)


def _shared(start: float, end: float, weights: list[float]) -> list[Span]:
    total = sum(weights) or 1.0
    edges = [start + (end - start) * part / total for part in accumulate(weights, initial=0.0)]
    return [Span(*edge) for edge in pairwise(edges)]
