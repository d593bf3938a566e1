"""How fast events travel: `python benchmarks/events.py`.

From publishing to receiving, for 100 runs with 10 subscribers each at 20 events a second; how many
events are published in a second when nobody listens; and how many one reader receives in a second
beside a bare memory stream in the same run.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING

import anyio

from talkgen.events import Complete, ProgressUpdate
from talkgen.progress import ProgressTracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from talkgen.progress import History

RUNS, SUBSCRIBERS, RATE, SECONDS = 100, 10, 20, 5
ALONE = 100_000
DELIVERED = 50_000
ORIGINAL = 5.0  # seconds: what the service that talkgen reworks promised


def main() -> None:
    """Print the figures beside what they should be."""
    for backend in ("asyncio", "trio"):
        print(backend)
        latencies = anyio.run(crowd, backend=backend)
        _print("publish to receive, median", statistics.median(latencies) * 1e3, "ms", None)
        p99 = statistics.quantiles(latencies, n=100)[-1]
        _print("publish to receive, p99", p99 * 1e3, "ms", "under 1")
        _print("  of the original's 5 s", p99 / ORIGINAL, "", None)
        share = statistics.median(anyio.run(pair, backend=backend) for _ in range(5))
        _print("delivery, of a bare memory stream's", share, "", "0.3 or more")
    _print("published a second, nobody listening", alone(), "", "100,000 or more")


def _print(name: str, value: float, unit: str, wanted: str | None) -> None:
    figure = f"{value:,.0f}" if value > 100 else f"{value:.3g}"
    print(f"  {name:40} {figure:>10} {unit:3}" + (f" (wanted: {wanted})" if wanted else ""))


def alone() -> float:
    """Events a second that one thread publishes when nobody listens."""
    history = ProgressTracker().begin("task")
    began = time.perf_counter()
    for number in range(ALONE):
        history.publish(ProgressUpdate, "running", number // (ALONE // 100), "frame")
    return ALONE / (time.perf_counter() - began)


async def crowd() -> list[float]:
    """Seconds from publishing to receiving, of every event for every subscriber."""
    tracker = ProgressTracker()
    latencies: list[float] = []

    async def listen(task_id: str) -> None:
        latencies.extend(
            [
                time.perf_counter() - event.metadata["sent"]
                async for event in tracker.subscribe(task_id)
                if not event.terminal
            ]
        )

    async with anyio.create_task_group() as tasks:
        for run in range(RUNS):
            for _ in range(SUBSCRIBERS):
                tasks.start_soon(listen, str(run))
            tasks.start_soon(publish, tracker.begin(str(run)), run)
    return latencies


async def publish(history: History, run: int) -> None:
    """Publish at the rate, the runs spread over the period as real ones are."""
    begin = anyio.current_time() + random.Random(run).random() / RATE
    for number in range(RATE * SECONDS):
        await anyio.sleep_until(begin + number / RATE)
        sent = {"sent": time.perf_counter()}
        history.publish(ProgressUpdate, "running", number, "frame", sent)
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
        history.publish(
            Complete, "completed", 100, "Completed", video_url=None, execution_time_ms=0
        )

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
