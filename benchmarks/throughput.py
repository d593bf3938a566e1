"""How long n runs take, beside what they must take, and beside a semaphore for each model.

    python benchmarks/throughput.py

A run is a detection of 0.15 s on one of two slots, a cut-out of 1.2 s on the only one, and a cloud
that takes its time and any number of runs: the times and the slots of the service that talkgen
grew out of. Nothing can be faster than 0.15 + 1.2 n + cloud.

First in virtual time, where only decisions count; then whole pipelines in real time, scaled, beside
that service's own algorithm: a semaphore for each model.
"""

import threading
import time
from collections.abc import Callable, Iterable

import anyio
import anyio.to_thread
import attrs
import numpy as np

from talkgen import Draft, Image, LocalScheduler, MemoryStorage, Pipeline
from talkgen.protocols import StageContext
from talkgen.testing import FakeDevice, FakeModel, Job, Simulation

DETECTION, CUTOUT, CLOUDS = 0.15, 1.2, (2.0, 45.0)
COUNTS = (5, 20, 100)
MOST_TIME, LEAST_BUSY, LEAST_SPEED_UP = 1.03, 0.97, 4.4
GB = 2**30
PICTURE = Image(np.full((8, 8, 3), 128, np.uint8))


def models(scale: float) -> tuple[FakeModel, FakeModel]:
    """The two models."""
    yolo = FakeModel("yolo", max_instances=2, bytes=2 * GB, latency=DETECTION * scale)
    return yolo, FakeModel("birefnet", bytes=6 * GB, latency=CUTOUT * scale)


def devices() -> list[FakeDevice]:
    """A GPU with room for all three instances."""
    return [FakeDevice("cuda:0", 16 * GB), FakeDevice("cpu", slots=2)]


def bound(count: int, cloud: float) -> float:
    """Seconds that nothing can beat."""
    return DETECTION + CUTOUT * count + cloud


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """How much of the time between the first start and the last end is work, 0..1."""
    ordered = sorted(spans)
    whole = max(end for _, end in ordered) - ordered[0][0]
    return sum(end - start for start, end in ordered) / whole


def report(count: int, cloud: float, took: float, busy: float) -> None:
    """Print a line; stop where a promise is broken."""
    least = bound(count, cloud)
    speed_up = count * bound(1, cloud) / took
    print(
        f"  {count:4} runs, cloud {cloud:4.0f} s: {took:8.2f} s, {took / least:6.4f} x the bound, "
        f"bottleneck busy {busy:7.2%}, {speed_up:5.2f} x one after the other"
    )
    assert took <= MOST_TIME * least
    assert busy >= LEAST_BUSY
    assert (count, cloud) != (5, 45.0) or speed_up >= LEAST_SPEED_UP


# --- virtual time ------------------------------------------------------------------------------


def virtual(count: int, cloud: float) -> tuple[float, float]:
    """Makespan, and how busy the bottleneck was."""
    simulation, (yolo, birefnet), ends = Simulation(devices()), models(1.0), []

    def job(number: int) -> Job:
        yield yolo, number
        yield birefnet, number
        yield cloud
        ends.append(simulation.now)

    for number in range(count):
        simulation.start(job(number))
    simulation.run()
    assert len(ends) == count
    spans = [(s.start, s.end) for s in simulation.spans if s.model == birefnet.key]
    return max(ends), covered(spans)


# --- real time ---------------------------------------------------------------------------------


@attrs.define
class Work:
    """A stage that does as it is told."""

    name: str
    do: Callable[[StageContext], object]
    weight: float = 1.0
    requires: frozenset[str] = frozenset()
    provides: frozenset[str] = frozenset()
    resets: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """The name."""
        return self.name

    async def run(self, draft: Draft, context: StageContext) -> Draft:
        """Do it."""
        await self.do(context)
        return draft


class Watch:
    """Remembers when the bottleneck worked."""

    def __init__(self, seconds: float) -> None:
        """Take so long at a time."""
        self.seconds = seconds
        self.spans: list[tuple[float, float]] = []
        self._lock = threading.Lock()

    def __call__(self, *_: object) -> None:
        """Work."""
        begin = time.perf_counter()
        time.sleep(self.seconds)
        with self._lock:
            self.spans.append((begin, time.perf_counter()))


async def run_all(stages: list[Work], count: int, scheduler: LocalScheduler) -> float:
    """Seconds that so many runs take together, in an open pipeline."""
    async with Pipeline(stages, scheduler=scheduler, storage=MemoryStorage()) as pipeline:
        begin = time.perf_counter()
        runs = [pipeline.start(PICTURE) for _ in range(count)]
        for run in runs:
            await run
        return time.perf_counter() - begin


async def scheduled(count: int, cloud: float, scale: float) -> tuple[float, float]:
    """By the scheduler: scaled back to seconds."""
    yolo, birefnet = models(scale)
    watch = Watch(birefnet.latency)
    birefnet = attrs.evolve(birefnet, latency=0.0, at_run=watch)
    scheduler = LocalScheduler([FakeDevice("cuda:0", 16 * GB)])
    await scheduler.run(birefnet, 0)  # warm, as in a service
    await scheduler.run(yolo, 0)
    watch.spans.clear()
    stages = [
        Work("detection", lambda context: context.scheduler.run(yolo, 0)),
        Work("background_removal", lambda context: context.scheduler.run(birefnet, 0)),
        Work("video_generation", lambda _: anyio.sleep(cloud * scale)),
    ]
    took = await run_all(stages, count, scheduler)
    await scheduler.aclose()
    return took / scale, covered(watch.spans)


async def semaphores(count: int, cloud: float, scale: float) -> tuple[float, float]:
    """By a semaphore for each model, as the original did."""
    yolo, birefnet = anyio.Semaphore(2), anyio.Semaphore(1)
    watch = Watch(CUTOUT * scale)

    async def detect(_: StageContext) -> None:
        async with yolo:
            await anyio.to_thread.run_sync(time.sleep, DETECTION * scale)

    async def cut_out(_: StageContext) -> None:
        async with birefnet:
            await anyio.to_thread.run_sync(watch)

    stages = [
        Work("detection", detect),
        Work("background_removal", cut_out),
        Work("video_generation", lambda _: anyio.sleep(cloud * scale)),
    ]
    scheduler = LocalScheduler([])
    took = await run_all(stages, count, scheduler)
    await scheduler.aclose()
    return took / scale, covered(watch.spans)


# Runs, seconds in the cloud, and the scale: seconds enough that what the pipeline itself takes,
# some milliseconds a run, does not count.
REAL = ((5, 2.0, 0.5), (20, 2.0, 0.2), (100, 2.0, 0.1), (5, 45.0, 0.1))


async def real() -> None:
    """Print both tables, in turns."""
    print("real time, scaled by 0.1 to 0.5: the scheduler, then a semaphore for each model")
    for count, cloud, scale in REAL:
        took, busy = await scheduled(count, cloud, scale)
        report(count, cloud, took, busy)
        took, busy = await semaphores(count, cloud, scale)
        print(f"  {'':26} {took:8.2f} s, {took / bound(count, cloud):6.4f} x, busy {busy:7.2%}")


def main() -> None:
    """Measure, and print the tables."""
    print("virtual time")
    for cloud in CLOUDS:
        for count in COUNTS:
            report(count, cloud, *virtual(count, cloud))
    anyio.run(real)


if __name__ == "__main__":
    main()
