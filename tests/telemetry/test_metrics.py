"""Counters, histogram and gauges, as a host collects them."""

import subprocess
import sys
import threading
from contextlib import AsyncExitStack

import anyio
import numpy as np
import pytest

from talkgen import LocalScheduler, LocalStorage, MemoryStorage, Pipeline, observed, telemetry
from talkgen.errors import StageFailed
from talkgen.observed import DeviceGauges, backend_keys
from talkgen.protocols import Backends, DeviceStats, SchedulerStats
from talkgen.testing import FakeModel, Script

from ..scripted import PICTURE, Step, forever, pipeline, raising
from .conftest import until

GAUGES = ("gpu_utilization_percent", "storage_used_bytes", "storage_free_bytes")


async def test_runs_are_counted_by_outcome(anyio_backend, sdk):
    async with pipeline(Step()) as good, pipeline(Step(script=raising(ValueError()))) as bad:
        counts = {facts["outcome"]: value for facts, value in sdk.points("pipeline_runs")}
        assert counts == dict.fromkeys(telemetry.OUTCOMES, 0)  # so that a rate sees the first
        for _ in range(3):
            await good.run(PICTURE)
        with pytest.raises(StageFailed):
            await bad.run(PICTURE)
    counts = {facts["outcome"]: value for facts, value in sdk.points("pipeline_runs")}
    assert counts == {"completed": 3, "failed": 1, "stored": 0, "deferred": 0, "cancelled": 0}
    times = {
        facts["outcome"]: count for facts, count in sdk.points("pipeline_execution_time_seconds")
    }
    assert times == {"completed": 3, "failed": 1}


async def test_active_runs_of_several_pipelines_sum_up(anyio_backend, sdk):
    steps = [Step(script=forever), Step(script=forever)]
    async with pipeline(steps[0]) as first, pipeline(steps[1]) as second:
        runs = [first.start(PICTURE), second.start(PICTURE)]
        for step in steps:
            await step.entered.wait()
        assert sdk.points("active_pipelines_count") == [({}, 2)]
        for run in runs:
            run.cancel()
    assert sdk.points("active_pipelines_count") == [({}, 0)]


async def test_gauges_go_with_their_pipeline(anyio_backend, sdk, tmp_path):
    roots = [tmp_path / "one", tmp_path / "other"]
    async with Pipeline([Step()], storage=LocalStorage(roots[0])) as first:
        async with Pipeline([Step()], storage=LocalStorage(roots[1])):
            await until(lambda: len(sdk.points("storage_free_bytes")) == 2)
            storages = {facts["storage"] for facts, _ in sdk.points("storage_used_bytes")}
            assert storages == {str(root) for root in roots}
        await first.run(PICTURE)
        storages = {facts["storage"] for facts, _ in sdk.points("storage_used_bytes")}
        assert storages == {str(roots[0])}
        assert [facts["device"] for facts, _ in sdk.points("gpu_utilization_percent")]
    for name in GAUGES:
        assert sdk.points(name) == []


async def test_storage_is_counted_when_somebody_looks(anyio_backend, sdk, tmp_path, monkeypatch):
    monkeypatch.setattr(observed, "PAUSE", 0.01)
    monkeypatch.setattr(observed, "GLANCE", 0.01)
    monkeypatch.setattr(observed, "SHARE", 0.0)
    storage = LocalStorage(tmp_path)
    counted = 0

    class Counted:
        async def stats(self):
            nonlocal counted
            counted += 1
            return await storage.stats()

    def used():
        return sum(value for _, value in sdk.points("storage_used_bytes"))

    async with anyio.create_task_group() as tasks:
        with observed.shown(LocalScheduler(["cpu"]), Counted()) as gauges:
            tasks.start_soon(gauges.keep_counting)
            await anyio.sleep(0.1)
            assert counted == 0  # nobody has looked
            await Pipeline([Step()], storage=storage).run(PICTURE)
            total = (await storage.stats()).total_size_mb * 2**20
            await until(lambda: used() == total)
        assert total > 0
        tasks.cancel_scope.cancel()


async def test_what_pipelines_share_is_read_and_counted_once(anyio_backend, sdk, monkeypatch):
    monkeypatch.setattr(observed, "GLANCE", 0.01)
    monkeypatch.setattr(observed, "PAUSE", 60.0)
    scheduler, storage, counts, reads = Devices(device(busy=0.5)), MemoryStorage(), [], []
    monkeypatch.setattr(storage, "stats", Noted(counts, storage.stats))
    monkeypatch.setattr(scheduler, "stats", Noted(reads, scheduler.stats))
    async with AsyncExitStack() as pipelines:
        for _ in range(3):
            opened = Pipeline([Step()], scheduler=scheduler, storage=storage)
            await pipelines.enter_async_context(opened)
        assert sdk.points("gpu_utilization_percent") == [({"device": "cuda:0"}, 50)]
        assert len(reads) == 1
        await until(lambda: sdk.points("storage_used_bytes"))
        await anyio.sleep(0.1)
        assert len(counts) == 1


async def test_a_pipeline_that_closes_while_it_counts_leaves_that_to_the_next(
    anyio_backend, monkeypatch
):
    monkeypatch.setattr(observed, "GLANCE", 0.01)
    monkeypatch.setattr(observed, "PAUSE", 0.0)
    monkeypatch.setattr(observed, "SHARE", 0.0)
    memory, begun, closing = MemoryStorage(), [], anyio.Event()

    class Slow:
        async def stats(self):
            begun.append(None)
            if len(begun) == 1:
                closing.set()
                await anyio.sleep_forever()
            return await memory.stats()

    with observed.shown(Devices(), Slow()) as gauges:
        assert list(gauges.used()) == []
        async with anyio.create_task_group() as closed:
            closed.start_soon(gauges.keep_counting)
            closed.start_soon(gauges.keep_counting)
            await closing.wait()
            await anyio.sleep(0.05)
            assert len(begun) == 1  # by one of them
            closed.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gauges.keep_counting)
            await until(lambda: len(begun) == 2)
            tasks.cancel_scope.cancel()


async def test_a_storage_that_fails_is_counted_again(anyio_backend, sdk, caplog, monkeypatch):
    monkeypatch.setattr(observed, "PAUSE", 0.01)
    monkeypatch.setattr(observed, "GLANCE", 0.01)
    memory, answers = MemoryStorage(), [OSError("the disk is away")]

    class Failing:
        async def stats(self):
            if answers:
                raise answers.pop()
            return await memory.stats()

    async with anyio.create_task_group() as tasks:
        with observed.shown(LocalScheduler(["cpu"]), Failing()) as gauges:
            tasks.start_soon(gauges.keep_counting)
            await until(lambda: sdk.points("storage_used_bytes"))
        tasks.cancel_scope.cancel()
    assert "could not be counted" in caplog.text


class Noted:
    """Calls on, and notes that it was called."""

    def __init__(self, calls, function):
        self.calls, self.function = calls, function

    def __call__(self):
        self.calls.append(None)
        return self.function()


class Devices:
    """A scheduler of which only the statistics count."""

    def __init__(self, *devices):
        self.devices = devices

    def stats(self):
        return SchedulerStats(devices=self.devices, models=())


def device(name="cuda:0", busy=0.0, busy_seconds=None):
    return DeviceStats(name, None, 0, None, busy, busy_seconds=busy_seconds)


def test_utilization_is_that_since_the_last_look(sdk):
    now, scheduler = 100.0, Devices(device(busy=0.5, busy_seconds=50.0))
    gauges = DeviceGauges(scheduler, clock=lambda: now)

    def percent():
        ((facts, value),) = sdk.points("gpu_utilization_percent")
        assert facts == {"device": "cuda:0"}
        return value

    with telemetry.showing(gpu_utilization_percent=gauges.utilization):
        assert percent() == 50  # at first, that of all the time
        now, scheduler.devices = 110.0, (device(busy_seconds=59.0),)
        assert percent() == pytest.approx(90)
        now, scheduler.devices = 110.5, (device(busy_seconds=59.0),)
        assert percent() == pytest.approx(90)  # a second reader sees the same
        now, scheduler.devices = 120.0, (device(busy_seconds=59.0),)
        assert percent() == 0
        scheduler.devices = (device(busy=0.25),)
        assert percent() == 25  # a scheduler that tells only the whole


def test_who_stops_reading_half_way_holds_nobody_up():
    gauges = DeviceGauges(LocalScheduler(["cpu"]))
    readings = gauges.utilization()
    next(readings)
    assert not gauges._lock.locked()


async def test_utilization_of_a_device_at_work(anyio_backend, sdk):
    opened, now = threading.Event(), 0.0
    scheduler = LocalScheduler(["cpu"], clock=lambda: now)
    gauges = DeviceGauges(scheduler, clock=lambda: now)
    model = FakeModel(device="cpu", at_run=Script(opened))
    with telemetry.showing(gpu_utilization_percent=gauges.utilization):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scheduler.run, model, None)
            await until(lambda: any(each.busy for each in scheduler.stats().models))
            assert sdk.points("gpu_utilization_percent") == [({"device": "cpu"}, 0)]
            now = 10.0
            assert sdk.points("gpu_utilization_percent") == [({"device": "cpu"}, 100)]
            opened.set()
    await scheduler.aclose()


def test_the_keys_of_what_is_used():
    class Keyed:
        key = "mine"

    class Nameless:
        pass

    class Damaged:
        @property
        def key(self):
            raise telemetry.TalkgenError("it cannot be read")

    class Detecting:
        detector = None

    class Generating:
        generator = Keyed()

    backends = Backends(detector=Nameless(), remover=Damaged(), generator=Damaged())
    assert backend_keys([Detecting(), Generating(), Step()], backends) == ("Nameless", "mine")
    assert backend_keys([type("Removing", (), {"remover": None})()], backends) == ("Damaged",)


async def test_prometheus_sees_the_promised_names(anyio_backend, sdk, tmp_path):
    async with Pipeline([Step()], storage=LocalStorage(tmp_path)) as opened:
        await opened.run(PICTURE)
        await until(lambda: "storage_free_bytes{" in sdk.exposition())
        shown = sdk.exposition()
    for line in (
        'pipeline_execution_time_seconds_bucket{le="60"',
        "pipeline_runs_total{",
        "gpu_utilization_percent{",
        "storage_used_bytes{",
        "active_pipelines_count{",
    ):
        assert f"\n{line}" in shown


# --- without it --------------------------------------------------------------------------------

RUN = """
import asyncio, sys
import numpy as np
{before}
from talkgen import DetectPersons, MemoryStorage, Pipeline

async def main():
    async with Pipeline([DetectPersons(framing="image")], storage=MemoryStorage()) as pipeline:
        assert (await pipeline.run({portrait!r})).success

asyncio.run(main())
print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
"""
BLOCKED = """
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError("No module named 'opentelemetry'", name="opentelemetry")

sys.meta_path.insert(0, Blocked())
"""


def loaded(before, portrait):
    code = RUN.format(before=before, portrait=str(portrait))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.strip()


def test_nothing_is_imported_where_the_api_is_absent(portrait_path):
    assert loaded(BLOCKED, portrait_path) == "[]"


def test_the_api_alone_is_enough(portrait_path):
    names = loaded("", portrait_path)
    assert "opentelemetry.trace" in names
    assert "opentelemetry.sdk" not in names
    assert "opentelemetry.exporter" not in names


async def test_it_does_nothing_where_the_api_is_absent(anyio_backend, monkeypatch):
    monkeypatch.setattr(telemetry, "_found", lambda: None)
    assert telemetry.here() is None
    assert not telemetry.load()
    result = await pipeline(Step()).run(np.zeros((8, 8, 3), np.uint8))
    assert result.success
