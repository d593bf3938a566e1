"""Who hears what when: the histories of all tasks, and those who read them.

A history is an append-only list and a reader an index into it, so that nobody is slow for anybody
and everybody sees the same.
"""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime, timedelta
from functools import partial
from itertools import accumulate, pairwise
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary, ref

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs

from talkgen._clock import utc_now
from talkgen._loops import call_later, call_soon
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
TURN = 32  # events that a reader takes before it lets others have theirs


@attrs.define(eq=False)
class _Wait:
    """Those who wait, in one event loop, for more of a history."""

    token: EventLoopToken
    since: float = attrs.field(factory=monotonic)
    news: anyio.Event = attrs.field(factory=anyio.Event)


@attrs.define(eq=False)
class History:
    """The events of one attempt of a task, and the way to add to them. Thread-safe."""

    task_id: str
    attempt: int
    clock: Callable[[], datetime] = utc_now
    events: list[Event] = attrs.field(factory=list)
    aside: Heartbeat | Preview | None = None  # the newest of what is not kept, until the end
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)
    _waits: dict[EventLoopToken, _Wait] = attrs.field(factory=dict, repr=False)
    _ticking: set[EventLoopToken] = attrs.field(factory=set, repr=False)

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
            if event.terminal:
                self.aside = None
            waits = self._take_waits()
        _wake(waits)
        return event

    def show(self, image: Image) -> None:
        """Offer a picture to those who listen now, from any thread, without waiting."""
        self._tell_aside(Preview, image=image)

    def beat(self) -> None:
        """Tell those who listen now that there is nothing new."""
        self._tell_aside(Heartbeat, message="keepalive")

    def _tell_aside(self, kind: type[Heartbeat | Preview], **facts: Any) -> None:
        with self._lock:
            if self.events and not self.ended:
                self.aside = kind(**{**_common(self.events[-1], self.clock()), **facts})
            waits = self._take_waits()
        _wake(waits)

    def more(self, seen: int, aside: Event | None) -> bool:
        """There is more than a reader has seen: `seen` events, and this one of those aside."""
        return len(self.events) > seen or (self.aside is not None and self.aside is not aside)

    def join(
        self, seen: int, aside: Event | None, token: EventLoopToken, heartbeat: float
    ) -> anyio.Event | None:
        """What to wait on for more than a reader has seen; None when there is more already.

        Args:
            seen: See `more`.
            aside: See `more`.
            token: The event loop's, which is the one that runs here.
            heartbeat: Seconds without news until those who wait get a `Heartbeat`.
        """
        with self._lock:
            if self.more(seen, aside):
                return None
            if (wait := self._waits.get(token)) is None:
                wait = self._waits[token] = _Wait(token)
            silent = token not in self._ticking
            self._ticking.add(token)
        if silent:
            self._tick_in(heartbeat, token, heartbeat)
        return wait.news

    def _tick_in(self, seconds: float, token: EventLoopToken, heartbeat: float) -> None:
        # One clock for all who wait: a deadline each would cost more than the waiting.
        call_later(token, seconds, partial(_tick, ref(self), token, heartbeat))

    def tick(self, token: EventLoopToken, heartbeat: float) -> None:
        """Tell those who have waited long; the clock stops when nobody waits."""
        with self._lock:
            if (wait := self._waits.get(token)) is None:
                self._ticking.discard(token)
                return
        left = wait.since + heartbeat - monotonic()
        if left <= 0:
            self.beat()
        self._tick_in(left if left > 0 else heartbeat, token, heartbeat)

    def _take_waits(self) -> list[_Wait]:
        waits = list(self._waits.values())
        self._waits.clear()
        return waits


def _tick(history: ref[History], token: EventLoopToken, heartbeat: float) -> None:
    if (kept := history()) is not None:
        kept.tick(token, heartbeat)


def _wake(waits: list[_Wait]) -> None:
    for wait in waits:
        call_soon(wait.token, wait.news.set)


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

    An iterator without anything to close: leaving it at any moment leaves nothing behind. One
    task reads it at a time, all of them in the same event loop.
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
        self._aside: Event | None = history.aside
        self._heartbeat = heartbeat
        self._token: EventLoopToken | None = None
        self._ended = history.ended and self._seen == len(history.events)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        if (news := self._news()) is None and self._seen % TURN == 0:
            await anyio.lowlevel.checkpoint()
        while news is not None:
            await news.wait()
            news = self._news()
        history = self._history
        aside = history.aside  # asked first: the terminal event takes it away
        if self._seen == len(history.events):
            return await self._taken_aside(aside)
        event = history.events[self._seen]
        self._seen += 1
        self._ended = event.terminal
        return event

    async def _taken_aside(self, event: Event | None) -> Event:
        assert event is not None  # noqa: S101 - there is nothing else that could be new
        if isinstance(event, Preview):
            await anyio.to_thread.run_sync(getattr, event, "url")
        self._aside = event
        return event

    def _news(self) -> anyio.Event | None:
        """What to wait on for more; None when there is more already."""
        history, seen, aside = self._history, self._seen, self._aside
        if history.more(seen, aside):
            return None
        if self._token is None:
            self._token = anyio.lowlevel.current_token()
        return history.join(seen, aside, self._token, self._heartbeat)


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
        """Open the history of an attempt.

        Where the task has one already, that stays the one to subscribe to until `take_over`: an
        attempt may yet be refused because the task is under way elsewhere.
        """
        with self._lock:
            self._expire()
            history = self._awaited.pop(task_id, None) or History(task_id, attempt, self._clock)
            history.attempt = attempt
            self._histories.setdefault(task_id, history)
            return history

    def take_over(self, history: History) -> None:
        """The attempt is the task's latest; readers of an earlier one keep theirs."""
        with self._lock:
            self._histories[history.task_id] = history

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
