"""What a stage may touch, real but for the reports, which are kept."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from talkgen.draft import Box, Draft
from talkgen.errors import Degraded
from talkgen.media import Image
from talkgen.models.face import FaceDetector
from talkgen.models.segmentation import SelfieRemover
from talkgen.protocols import Backends, GPUScheduler, StagedFiles
from talkgen.scheduling import LocalScheduler
from talkgen.storage import MemoryStorage


@attrs.define(eq=False)
class Context:
    """A `StageContext` that remembers."""

    scheduler: GPUScheduler
    files: StagedFiles
    backends: Backends
    strict: bool = False
    reports: list[dict[str, Any]] = attrs.field(factory=list)
    shortfalls: list[str] = attrs.field(factory=list)

    def report(self, fraction, message, *, stage=None, **metadata):
        self.reports.append(
            {"fraction": fraction, "message": message, "stage": stage, "metadata": metadata}
        )

    async def remember(self, key, make, codec):
        return await make()

    def degraded(self, message, **metadata):
        if self.strict:
            raise Degraded(message)
        self.shortfalls.append(message)


@pytest.fixture
async def context() -> AsyncIterator[Context]:
    scheduler, storage = LocalScheduler(), MemoryStorage()
    files = await storage.open("task")
    yield Context(scheduler, files, Backends(FaceDetector(), SelfieRemover(), generator=None))
    await files.discard()
    await storage.aclose()
    await scheduler.aclose()


def drafted(image: Image) -> Draft:
    return Draft("task", image, portrait=image, portrait_box=Box(0, 0, image.width, image.height))


@pytest.fixture
def draft(portrait_path: Path) -> Draft:
    """The demo's portrait, 512x512, its eyes at (204, 103) and (247, 104), before any stage."""
    return drafted(Image.open(portrait_path))


@pytest.fixture
def crowd(draft: Draft) -> Draft:
    """Two of them on grey, 1300x700: the larger, on the right, is the more prominent."""
    import numpy as np

    head = draft.image.cropped((100, 0, 400, 300))
    pixels = np.full((700, 1300, 3), 128, np.uint8)
    pixels[40:340, 60:360] = head.pixels
    pixels[60:660, 560:1160] = head.resized(600, 600).pixels
    return drafted(Image(pixels))
