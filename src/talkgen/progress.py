"""Who hears what when: the histories of all tasks, and those who read them.

A history is an append-only list and a reader an index into it, so that nobody is slow for anybody
and everybody sees the same.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary, ref

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs

from talkgen._clock import utc_now
from talkgen._loops import call_later, call_soon
from talkgen._waiting import waiter
from talkgen.events import NO_FACTS, Heartbeat, Preview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from anyio.lowlevel import EventLoopToken

    from talkgen._types import JSON
    from talkgen._waiting import Waiter
    from talkgen.events import Event
    from talkgen.media import Image

__all__ = ["History", "ProgressTracker", "Subscription"]

E = TypeVar("E", bound="Event")

RETENTION = timedelta(minutes=60)
HEARTBEAT = 30.0  # seconds without news
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # controls and ends of lines
TURN = 32  # events that a reader takes before it lets others have theirs


@attrs.define(eq=False)
class _Audience:
    """Those of one event loop who wait for more of a history, in the order in which they came."""

    token: EventLoopToken
    waiting: dict[Waiter, None] = attrs.field(factory=dict)
    since: float = 0.0  # when the first of them began to
    ticking: bool = False


@attrs.define(eq=False)
class History:
    """The events of one attempt of a task, and the way to add to them. Thread-safe."""

    task_id: str
    attempt: int
    clock: Callable[[], datetime] = utc_now
    events: list[Event] = attrs.field(factory=list)
    aside: Heartbeat | Preview | None = None  # the newest of what is not kept, until the end
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)
    _encoding: threading.Lock = attrs.field(factory=threading.Lock, repr=False)
    _audiences: dict[EventLoopToken, _Audience] = attrs.field(factory=dict, repr=False)

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
            message: For people; becomes one line, without what would steer a terminal.
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
                message=message if message.isprintable() else UNSEEN.sub(" ", message),
                metadata=metadata or NO_FACTS,
                **facts,
            )
            self.events.append(event)
            waiting = self._all_leave()
            if event.terminal:
                self.aside = None
                self._audiences.clear()  # a kept history keeps no event loop
        _wake(waiting)
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
            waiting = self._all_leave()
        _wake(waiting)

    def encode(self, preview: Preview) -> None:
        """Have a preview's `url` made, in a thread, once for all who listen."""
        with self._encoding:
            _ = preview.url

    def next(self, seen: int, aside: Event | None) -> Event | None:
        """What comes next for a reader, from any thread; None where nothing does yet.

        Args:
            seen: How many events it has seen.
            aside: The last that it has seen of those aside. A newer one comes right behind the
                event whose number it has, or never: it would take the reader back.
        """
        newest = self.aside  # asked first: the terminal event takes it away
        if newest is not None and newest is not aside and newest.sequence == seen - 1:
            return newest
        return self.events[seen] if len(self.events) > seen else None

    def audience(self, token: EventLoopToken) -> _Audience:
        """Those who wait in this event loop."""
        with self._lock:
            return self._audiences.setdefault(token, _Audience(token))

    def join(
        self, audience: _Audience, waiter: Waiter, seen: int, aside: Event | None, heartbeat: float
    ) -> bool:
        """Have somebody woken when something comes next; False when it is there already.

        Args:
            audience: Of the event loop that runs here.
            waiter: Whom to wake.
            seen: See `next`.
            aside: See `next`.
            heartbeat: Seconds without news until those who wait get a `Heartbeat`.
        """
        with self._lock:
            if self.next(seen, aside) is not None:
                return False
            if not audience.waiting:
                audience.since = monotonic()
            audience.waiting[waiter] = None
            silent, audience.ticking = not audience.ticking, True
        if silent:
            self._tick_in(heartbeat, audience, heartbeat)
        return True

    def leave(self, audience: _Audience, waiter: Waiter) -> None:
        """Wake somebody no more."""
        with self._lock:
            audience.waiting.pop(waiter, None)

    def _tick_in(self, seconds: float, audience: _Audience, heartbeat: float) -> None:
        # One clock for all who wait: a deadline each would cost more than the waiting.
        call_later(audience.token, seconds, partial(_tick, ref(self), audience, heartbeat))

    def tick(self, audience: _Audience, heartbeat: float) -> None:
        """Tell those who have waited long; the clock stops when nobody waits."""
        with self._lock:
            if not audience.waiting:
                audience.ticking = False
                return
        left = audience.since + heartbeat - monotonic()
        if left <= 0:
            self.beat()
        self._tick_in(left if left > 0 else heartbeat, audience, heartbeat)

    def _all_leave(self) -> list[tuple[EventLoopToken, dict[Waiter, None]]]:
        """Those who wait, by event loop; nobody does any more."""
        left = [(one.token, one.waiting) for one in self._audiences.values() if one.waiting]
        for audience in self._audiences.values():
            audience.waiting = {}
        return left


def _tick(history: ref[History], audience: _Audience, heartbeat: float) -> None:
    if (kept := history()) is not None:
        kept.tick(audience, heartbeat)


def _wake(waiting: Iterable[tuple[EventLoopToken, Iterable[Waiter]]]) -> None:
    for token, waiters in waiting:
        call_soon(token, partial(_wake_all, waiters))


def _wake_all(waiters: Iterable[Waiter]) -> None:
    for one in waiters:
        one.wake()


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
        "metadata": NO_FACTS,
    }


class Subscription:
    """Reads a history from its beginning, or after a cursor, up to its terminal event.

    An iterator without anything to close: leaving it at any moment leaves nothing behind. One
    task reads it at a time; the next may do so in another event loop.
    """

    def __init__(self, history: History, *, seen: int = 0, heartbeat: float = HEARTBEAT) -> None:
        """Start reading.

        Args:
            history: What to read.
            seen: How many of its events to leave out; more than it has were another history's.
            heartbeat: Seconds without news before a `Heartbeat`.
        """
        self._history = history
        # Whoever has seen more saw another one, before a kill, and has seen nothing of this one.
        self._seen = seen if seen <= len(history.events) else 0
        self._aside: Event | None = history.aside
        self._heartbeat = heartbeat
        self._seat: tuple[_Audience, Waiter] | None = None
        self._ended = history.ended and self._seen == len(history.events)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        if self._next is None:
            await self._wait()
        elif self._seen % TURN == 0:
            await anyio.lowlevel.checkpoint()
        event = self._next
        assert event is not None  # noqa: S101 - what comes next gives way to the newest only
        if isinstance(event, Heartbeat | Preview):
            return await self._taken_aside(event)
        self._seen += 1
        self._ended = event.terminal
        return event

    @property
    def _next(self) -> Event | None:
        return self._history.next(self._seen, self._aside)

    async def _wait(self) -> None:
        history, (audience, own) = self._history, self._seated()
        try:
            while history.join(audience, own, self._seen, self._aside, self._heartbeat):
                await own.until_woken()
        except BaseException:
            history.leave(audience, own)
            raise

    async def _taken_aside(self, event: Heartbeat | Preview) -> Event:
        if isinstance(event, Preview):
            await anyio.to_thread.run_sync(self._history.encode, event)
        self._aside = event
        return event

    def _seated(self) -> tuple[_Audience, Waiter]:
        """Its place among those who wait in the event loop that runs here."""
        token = anyio.lowlevel.current_token()
        if self._seat is None or self._seat[0].token != token:
            self._seat = self._history.audience(token), waiter(token)
        return self._seat


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
        self._ended: OrderedDict[str, datetime] = OrderedDict()  # of these, when; oldest first

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
            self._ended.pop(history.task_id, None)

    def end(self, history: History) -> None:
        """Keep the task's ended history for the time of the retention, then drop it.

        One that nobody can subscribe to any more, or never could, is not kept at all.
        """
        with self._lock:
            if self._histories.get(history.task_id) is history:
                self._ended[history.task_id] = self._clock()
            self._expire()

    def subscribe(self, task_id: str, after: str | None = None) -> Subscription:
        """Iterate over the events of a task's latest attempt; ends after the terminal one.

        A task that has not begun is waited for.

        Args:
            task_id: The task.
            after: The cursor of the last event already seen. One that the latest attempt does
                not have, as those of an earlier attempt, starts with its first event.

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
            self._ended.pop(task_id, None)

    def _expire(self) -> None:
        oldest = self._clock() - self._retention
        while self._ended and next(iter(self._ended.values())) <= oldest:
            task_id, _ = self._ended.popitem(last=False)
            del self._histories[task_id]


def _seen(cursor: str, attempt: int) -> int:
    number, _, sequence = cursor.partition("-")
    if not (number.isdecimal() and sequence.isdecimal()):
        raise ValueError(f"{cursor!r} is not a cursor; an event's is like '1-17'")
    return int(sequence) + 1 if int(number) == attempt else 0
