"""The scheduler as a pipeline's runs see it."""

import threading

import anyio
import attrs
import numpy as np
import pytest

from talkgen import LocalScheduler, MemoryStorage, Pipeline
from talkgen.errors import Degraded
from talkgen.testing import FakeDevice, FakeModel, Script

PICTURE = np.full((8, 8, 3), 128, np.uint8)
CUDA_ERROR = RuntimeError("CUDA error: unspecified launch failure")


@attrs.define
class Asking:
    """A stage that runs a model."""

    model: FakeModel
    on_degraded: object = None
    name: str = "asking"
    key: str = "asking"
    weight: float = 1.0
    requires: frozenset = frozenset()
    provides: frozenset = frozenset()
    resets: frozenset = frozenset()

    async def run(self, draft, context):
        await context.scheduler.run(self.model, 1, on_degraded=self.on_degraded)
        await context.scheduler.aclose()  # not a stage's to close: nothing happens
        assert context.scheduler.stats().models
        return draft


async def degraded_events(*errors, strict=False, on_degraded=None, levels=2):
    scheduler = LocalScheduler([FakeDevice("cuda:0", 10)])
    model = FakeModel(levels=levels, at_run=Script(*errors))
    stages = [Asking(model, on_degraded)]
    try:
        async with Pipeline(
            stages, scheduler=scheduler, storage=MemoryStorage(), strict=strict
        ) as pipeline:
            run = pipeline.start(PICTURE)
            await run
            return [event for event in run.history.events if event.event_type == "degraded"]
    finally:
        await scheduler.aclose()


async def test_a_smaller_size_is_an_event_of_the_run_and_eviction_is_none(anyio_backend):
    steps = []
    (event,) = await degraded_events(MemoryError(), MemoryError(), on_degraded=steps.append)
    assert event.metadata == {"action": "level", "level": 1, "device": "cuda:0"}
    assert event.message.startswith("cuda:0 ran out of memory: ")
    assert [step.action for step in steps] == ["evicted", "level"]
    assert await degraded_events(MemoryError()) == []


async def test_a_lost_device_is_an_event_of_the_run(anyio_backend):
    (event,) = await degraded_events(CUDA_ERROR)
    assert event.metadata == {"action": "device", "level": 0, "device": "cpu"}
    assert event.message == "cuda:0 failed: going on on cpu, more slowly."


async def test_strict_refuses_what_is_less_and_not_what_is_slower(anyio_backend):
    with pytest.raises(Degraded, match="smaller size"):
        await degraded_events(MemoryError(), MemoryError(), strict=True)
    assert len(await degraded_events(CUDA_ERROR, strict=True)) == 1


async def test_utilization_in_the_originals_form(anyio_backend):

    gate, entered = threading.Event(), threading.Event()
    yolo = FakeModel("yolov8n@abc", max_instances=2, at_run=lambda *_: (entered.set(), gate.wait()))
    scheduler = LocalScheduler([FakeDevice("cuda:0", 10)])
    pipeline = Pipeline([Asking(yolo)], scheduler=scheduler, storage=MemoryStorage())
    assert pipeline.gpu_utilization() == {
        "yolo_slots_available": 2,
        "birefnet_slots_available": 1,
        "gpu_utilization_percent": 0.0,
    }
    async with pipeline:
        run = pipeline.start(PICTURE)
        await anyio.to_thread.run_sync(entered.wait)
        assert pipeline.gpu_utilization()["yolo_slots_available"] == 1
        assert pipeline.gpu_utilization()["gpu_utilization_percent"] > 0
        gate.set()
        await run
    assert pipeline.gpu_utilization()["yolo_slots_available"] == 2
    await scheduler.aclose()


def test_utilization_of_the_shared_scheduler():
    assert Pipeline([Asking(FakeModel())]).gpu_utilization()["birefnet_slots_available"] == 1
