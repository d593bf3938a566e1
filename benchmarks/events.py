"""How fast events travel: `python benchmarks/events.py`.

From publishing to receiving, for 100 runs with 10 subscribers each at 20 events a second, beside
bare events and memory streams under the same load, which show what this machine can do, all three
with the garbage collector and without, which shows whose the longest waits are; how many events are
published in a second when nobody listens; and how many one reader receives in a second beside a
bare memory stream in the same run.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio

from talkgen.events import Complete, ProgressUpdate
from talkgen.progress import ProgressTracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.streams.memory import MemoryObjectSendStream

    from talkgen.progress import History

RUNS, SUBSCRIBERS, RATE, SECONDS = 100, 10, 20, 5
ALONE = 100_000
DELIVERED = 50_000
ORIGINAL = 5.0  # seconds: what the service that talkgen reworks promised


def main() -> None:
    """Print the figures beside what they should be."""
    for backend in ("asyncio", "trio"):
        print(backend)
        for kind in (_Ours, _Bare, _Streams):
            _print_latencies(kind, anyio.run(crowd, kind, backend=backend))
            gc.disable()
            _print_latencies(kind, anyio.run(crowd, kind, backend=backend), " without gc")
            gc.enable()
            gc.collect()
        share = statistics.median(anyio.run(pair, backend=backend) for _ in range(5))
        _print("delivery, of a bare memory stream's", share, "", "0.3 or more")
    _print("published a second, nobody listening", alone(), "", "100,000 or more")


def _print_latencies(kind: type[Channel], latencies: list[float], how: str = "") -> None:
    name, ours = kind.__name__[1:].lower() + how, kind is _Ours
    p99 = statistics.quantiles(latencies, n=100)[-1]
    _print(f"publish to receive, {name}, median", statistics.median(latencies) * 1e3, "ms", None)
    _print(f"publish to receive, {name}, p99", p99 * 1e3, "ms", "under 1" if ours else None)
    if ours:
        _print("  of the original's 5 s", p99 / ORIGINAL, "", None)


def _print(name: str, value: float, unit: str, wanted: str | None) -> None:
    figure = f"{value:,.0f}" if value > 100 else f"{value:.3g}"
    print(f"  {name:48} {figure:>10} {unit:3}" + (f" (wanted: {wanted})" if wanted else ""))


def alone() -> float:
    """Events a second that one thread publishes when nobody listens."""
    history = ProgressTracker().begin("task")
    began = time.perf_counter()
    for number in range(ALONE):
        history.publish(ProgressUpdate, "running", number // (ALONE // 100), "frame")
    return ALONE / (time.perf_counter() - began)


class Channel(Protocol):
    """A way from one run to those who listen."""

    def publish(self, number: int) -> None:
        """Send, and note the moment."""

    def end(self) -> None:
        """Let those who listen go."""

    async def listen(self, latencies: list[float]) -> None:
        """Receive to the end; adds how many seconds each took."""


class _Ours:
    """A run's events through its history."""

    def __init__(self) -> None:
        tracker = ProgressTracker()
        self.history, self.read = tracker.begin("task"), partial(tracker.subscribe, "task")
        self.sent: list[float] = []

    def publish(self, number: int) -> None:
        self.sent.append(time.perf_counter())
        self.history.publish(ProgressUpdate, "running", number, "frame")

    def end(self) -> None:
        end(self.history)

    async def listen(self, latencies: list[float]) -> None:
        latencies += [
            time.perf_counter() - self.sent[event.sequence]
            async for event in self.read()
            if not event.terminal
        ]


class _Bare:
    """The least that could do: one `anyio.Event` a publication for all who wait, no more."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        self.news, self.ended = anyio.Event(), False

    def publish(self, _number: int) -> None:
        self.sent.append(time.perf_counter())
        self.news.set()
        self.news = anyio.Event()

    def end(self) -> None:
        self.ended = True
        self.news.set()

    async def listen(self, latencies: list[float]) -> None:
        seen = 0
        while not self.ended:
            await self.news.wait()
            latencies += [time.perf_counter() - sent for sent in self.sent[seen:]]
            seen = len(self.sent)


class _Streams:
    """The usual way: a memory stream for each subscriber."""

    def __init__(self) -> None:
        self.sends: list[MemoryObjectSendStream[float]] = []

    def publish(self, _number: int) -> None:
        for send in self.sends:
            send.send_nowait(time.perf_counter())

    def end(self) -> None:
        for send in self.sends:
            send.close()

    async def listen(self, latencies: list[float]) -> None:
        send, receive = anyio.create_memory_object_stream[float](math.inf)
        self.sends.append(send)
        with receive:
            latencies += [time.perf_counter() - sent async for sent in receive]


async def crowd(kind: type[Channel]) -> list[float]:
    """Seconds from publishing to receiving, of every event for every subscriber."""
    latencies: list[float] = []
    async with anyio.create_task_group() as tasks:
        for run in range(RUNS):
            channel = kind()
            for _ in range(SUBSCRIBERS):
                tasks.start_soon(channel.listen, latencies)
            tasks.start_soon(publish, channel, run)
    return latencies


async def publish(channel: Channel, run: int) -> None:
    """Publish at the rate, the runs spread over the period as real ones are."""
    begin = anyio.current_time() + random.Random(run).random() / RATE
    for number in range(RATE * SECONDS):
        await anyio.sleep_until(begin + number / RATE)
        channel.publish(number)
    channel.end()


def end(history: History) -> None:
    """Publish the terminal event."""
    history.publish(Complete, "completed", 100, "Completed", video_url=None, execution_time_ms=0)


async def pair() -> float:
    """Events a second that one reader receives, beside a bare memory stream."""
    return await rate(events) / await rate(stream)


async def rate(deliver: Callable[[], object]) -> float:
    """Deliveries a second."""
    began = time.perf_counter()
    await deliver()  # type: ignore[misc]
    return DELIVERED / (time.perf_counter() - began)


async def events() -> None:
    """Publish and read, taking turns as a run and its reader do."""
    tracker = ProgressTracker()
    history = tracker.begin("task")

    async def write() -> None:
        for number in range(DELIVERED):
            history.publish(ProgressUpdate, "running", number // (DELIVERED // 100), "frame")
            await anyio.lowlevel.checkpoint()
        end(history)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        async for _ in tracker.subscribe("task"):
            pass


async def stream() -> None:
    """The same through a memory stream, its items made beforehand."""
    send, receive = anyio.create_memory_object_stream[int](math.inf)

    async def write() -> None:
        async with send:
            for number in range(DELIVERED):
                send.send_nowait(number)
                await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks, receive:
        tasks.start_soon(partial(write))
        async for _ in receive:
            pass


if __name__ == "__main__":
    main()
