"""A stand-in that runs 400 times as fast as the service, and runs against it."""

import math
from functools import cache

import attrs
import httpx
import numpy as np
import pytest

from talkgen import GenerateVideo, Image, MemoryStorage, Pipeline, Speech
from talkgen.generators.did import Clock, DIdClient, DIdGenerator
from talkgen.journal import MemoryJournal
from talkgen.testing import FakeDId

SPEED = 400
CLOCK = Clock(SPEED)


@cache
def face():
    """Something of 200 pixels a side; the stand-in sees a face in anything."""
    return Image(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))


@cache
def tone(seconds=1.0):
    """A recording that is not silent."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    return Speech(0.5 * np.sin(2 * math.pi * 220 * time, dtype=np.float32)[None], 16_000)


@pytest.fixture
def service():
    with FakeDId(speed=SPEED) as service:
        yield service


@pytest.fixture
def client_of():
    """Makes clients of a stand-in, closed by their `async with`."""

    def make(service, **options):
        options = {"base_url": service.base_url, "clock": CLOCK, **options}
        return DIdClient(options.pop("api_key", service.api_key), **options)

    return make


def hasty():
    """Gives up on an answer after a quarter of a second."""
    return httpx.AsyncClient(timeout=0.25)


@attrs.define
class Bench:
    """A pipeline of the generator alone, that remembers its tasks."""

    service: FakeDId
    journal: MemoryJournal = attrs.field(factory=MemoryJournal)
    storage: MemoryStorage = attrs.field(factory=MemoryStorage)

    def generator(self, **options):
        options = {
            "base_url": self.service.base_url,
            "clock": CLOCK,
            "check_face": False,
            "timeout": 3000.0,
            **options,
        }
        return DIdGenerator(options.pop("api_key", self.service.api_key), **options)

    def pipeline(self, generator=None, **options):
        return Pipeline(
            [GenerateVideo(generator or self.generator())],
            storage=self.storage,
            journal=self.journal,
            **options,
        )

    def inputs(self):
        return face(), tone()

    async def run(self, generator=None, *, speech=None, task_id="task", **options):
        pipeline = self.pipeline(generator, **options)
        return await pipeline.run(face(), speech or tone(), task_id=task_id)

    async def operations(self, task_id="task"):
        record = await self.journal.get(task_id)
        return list(record.operations.values())


@pytest.fixture
def bench(service):
    return Bench(service)
