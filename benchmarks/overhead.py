"""What the scheduler and the pipeline cost where the work itself costs nothing.

    python benchmarks/overhead.py

A call through the scheduler beside a bare `anyio.to_thread.run_sync`, in turns; whole runs a
second, of stages that do nothing, on one core; what OpenTelemetry adds to them, its API alone and
with an SDK; and the memory of runs that wait.
"""

import os
import statistics
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import anyio
import anyio.to_thread
import attrs
import numpy as np
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from talkgen import Draft, Image, LocalScheduler, MemoryStorage, Pipeline, telemetry
from talkgen.protocols import StageContext
from talkgen.testing import FakeModel

CALLS, TURNS = 500, 9
RUNS = 2000
QUEUED = 10_000
PICTURE = Image(np.full((8, 8, 3), 128, np.uint8))


@attrs.define
class Idle:
    """A stage that does nothing."""

    name: str
    weight: float = 1.0
    requires: frozenset[str] = frozenset()
    provides: frozenset[str] = frozenset()
    resets: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """The name."""
        return self.name

    async def run(self, draft: Draft, context: StageContext) -> Draft:  # noqa: ARG002 - nothing
        """Give the draft back."""
        return draft


@attrs.define
class Asking(Idle):
    """A stage that runs a model and nothing else.

    Attributes:
        model: Which.
        expected: How many runs are to come.
        arrived: They are all here.
    """

    model: FakeModel | None = None
    expected: int = 0
    arrived: anyio.Event = attrs.field(factory=anyio.Event)

    async def run(self, draft: Draft, context: StageContext) -> Draft:
        """Wait for its turn."""
        self.expected -= 1
        if not self.expected:
            self.arrived.set()
        await context.scheduler.run(self.model, None)
        return draft


STAGES = (Idle("detection"), Idle("background_removal"), Idle("video_generation"))


async def microseconds(call: Callable[[], Awaitable[object]]) -> float:
    """The median of many calls, one after the other."""
    times = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        await call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


async def calls() -> None:
    """A call through the scheduler beside a bare one."""
    scheduler, model = LocalScheduler(["cpu"]), FakeModel(device="cpu")

    async def bare() -> None:
        await anyio.to_thread.run_sync(lambda: None)

    async def scheduled() -> None:
        await scheduler.run(model, None)

    pairs = [(await microseconds(bare), await microseconds(scheduled)) for _ in range(TURNS)]
    await scheduler.aclose()
    print(f"bare to_thread.run_sync      {statistics.median(a for a, _ in pairs):8.0f} us")
    print(f"through the scheduler        {statistics.median(b for _, b in pairs):8.0f} us")
    print(f"ratio, median of the turns   {statistics.median(b / a for a, b in pairs):8.2f}")


async def throughput() -> None:
    """Runs a second."""
    async with Pipeline(STAGES, storage=MemoryStorage()) as pipeline:
        async with pipeline.map([PICTURE] * 100) as results:  # threads are started, and so on
            assert [r.success async for _, r in results] == [True] * 100
        begin, busy = time.perf_counter(), time.process_time()
        async with pipeline.map([PICTURE] * RUNS) as results:
            succeeded = [result.success async for _, result in results]
        took, busy = time.perf_counter() - begin, time.process_time() - busy
    assert succeeded == [True] * RUNS
    print(f"runs of idle stages          {RUNS / took:8.0f} a second")
    print(f"                             {RUNS / busy:8.0f} a second of this process's own time")


async def tracing() -> None:
    """A run of three stages and a model call without OpenTelemetry, and with it, in turns."""
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    connect = telemetry._connect  # noqa: SLF001 - the process's own could be set only once
    ways = {"none": None, "API": connect(), "SDK": connect(traces, MeterProvider())}
    times: dict[str, list[float]] = {way: [] for way in ways}
    asking = Asking("video_generation", model=FakeModel(device="cpu"))
    scheduler = LocalScheduler(["cpu"])
    for _ in range(TURNS):
        for way, api in ways.items():
            with patch.object(telemetry, "_found", return_value=api):
                stages = (*STAGES[:2], asking)
                async with Pipeline(
                    stages, storage=MemoryStorage(), scheduler=scheduler
                ) as pipeline:
                    times[way].append(await microseconds(partial(pipeline.run, PICTURE)))
    await scheduler.aclose()
    for way, measured in times.items():
        ratio = statistics.median(b / a for a, b in zip(times["none"], measured, strict=True))
        print(f"run, OpenTelemetry: {way:8} {statistics.median(measured):8.0f} us, {ratio:.2f}")


async def memory(*, traced: bool) -> None:
    """What a run that waits takes."""
    opened = threading.Event()
    model = FakeModel(device="cpu", max_batch=64, at_run=lambda *_: opened.wait())
    asking = Asking("asking", model=model, expected=QUEUED)
    async with Pipeline([asking], storage=MemoryStorage()) as pipeline:
        if traced:
            tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0] if traced else resident()
        for _ in range(QUEUED):
            pipeline.start(PICTURE)
        await asking.arrived.wait()
        after = tracemalloc.get_traced_memory()[0] if traced else resident()
        tracemalloc.stop()
        opened.set()
    kind = "allocated" if traced else "resident"
    print(f"queued runs, {kind:15} {(after - before) / QUEUED / 1000:8.1f} kB each")


def resident() -> int:
    """Bytes of this process in memory; 0 where there is no /proc."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def one_core() -> None:
    """Keep to one core, where the system lets us."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main() -> None:
    """Measure, and print the table."""
    anyio.run(calls)
    one_core()
    anyio.run(throughput)
    anyio.run(tracing)
    anyio.run(partial(memory, traced=False))
    anyio.run(partial(memory, traced=True))


if __name__ == "__main__":
    main()
