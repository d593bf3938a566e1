"""The contract checks of stages, models and backends: they pass what is right, and nothing else."""

from typing import ClassVar

import attrs
import numpy as np
import pytest

from talkgen import DetectPersons, Image, RemoveBackground, ReplaceBackground
from talkgen.errors import StageFailed
from talkgen.generators.local import LocalGenerator
from talkgen.models.face import FaceDetector
from talkgen.models.segmentation import SelfieRemover
from talkgen.testing import (
    FakeModel,
    check_detector,
    check_generator,
    check_model,
    check_remover,
    check_stage,
)

PICTURE = np.zeros((8, 8, 3), np.uint8)


async def test_the_librarys_own_parts_pass(anyio_backend, portrait_path, speech_path):
    cut_out = RemoveBackground()
    await check_stage(DetectPersons(), portrait_path)
    await check_stage(cut_out, portrait_path)
    await check_stage(ReplaceBackground("white"), portrait_path, before=[cut_out])
    await check_detector(FaceDetector(), portrait_path)
    await check_remover(SelfieRemover(), portrait_path)
    await check_model(FakeModel("double", max_batch=2, levels=2, function=_double), [1, 2, 3])


def _double(item):
    return item * 2


async def test_the_local_renderer_passes(anyio_backend, portrait_path):
    second = (np.zeros((1, 16000), np.float32), 16000)
    await check_generator(LocalGenerator(size=256), portrait_path, second)


@attrs.frozen
class Stage:
    """Does what it is told."""

    name: ClassVar[str] = "told"
    weight: ClassVar[float] = 1.0
    requires: ClassVar[frozenset[str]] = frozenset({"portrait"})
    resets: ClassVar[frozenset[str]] = frozenset()

    does: object
    provides: frozenset[str] = frozenset()
    key: str = "told"

    async def run(self, draft, context):
        return await self.does(draft, context)


async def _changes_the_portrait(draft, context):
    return attrs.evolve(draft, portrait=Image(PICTURE + 1))


async def _nothing(draft, context):
    return draft


async def _wraps_cancellation(draft, context):
    from anyio import get_cancelled_exc_class, lowlevel

    try:
        await lowlevel.checkpoint()
    except get_cancelled_exc_class() as error:
        raise OSError("cancelled") from error
    return draft


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Stage(_changes_the_portrait), "changed 'portrait'"),
        (Stage(_nothing, provides=frozenset({"video"})), "provides 'video'"),
        (Stage(_nothing, key=""), "the key is empty"),
        (Stage(_wraps_cancellation), "turned a cancellation into OSError"),
    ],
)
async def test_a_stage_that_breaks_its_word_is_told(anyio_backend, stage, words):
    with pytest.raises(AssertionError, match=words):
        await check_stage(stage, PICTURE)


async def test_a_stage_that_fails_says_so_itself(anyio_backend):
    async def fails(draft, context):
        raise OSError("no")

    with pytest.raises(StageFailed, match="no"):
        await check_stage(Stage(fails), PICTURE)


class Reversed:
    """Gives back the results of a batch in the wrong order."""

    def __init__(self, device):
        pass

    def run(self, batch, *, level=0):
        return list(reversed(batch))

    def close(self):
        pass


@attrs.frozen
class Model:
    key: str = "model"
    max_instances: int = 1
    max_batch: int = 2
    levels: int = 1
    loaded: type = Reversed

    def vram_bytes(self, device):
        return 0

    def load(self, device):
        return self.loaded(device)


class Forgetful(Reversed):
    def run(self, batch, *, level=0):
        return []


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Model(), "item 0 has another result in a batch"),
        (Model(loaded=Forgetful), "one item gave 0 results"),
        (Model(levels=0), "levels is 0"),
        (FakeModel("many", max_batch=0), "max_batch is 0"),
    ],
)
async def test_a_model_that_breaks_its_word_is_told(anyio_backend, model, words):
    with pytest.raises(AssertionError, match=words):
        await check_model(model, [1, 2, 3])


class Backend:
    """Gives back whatever it is told, as detector, remover and generator."""

    accepts_text = False
    key = "backend"

    def __init__(self, gives):
        self.gives = gives

    async def detect(self, image, *, scheduler, confidence=0.5, iou=0.45):
        return self.gives

    async def remove(self, image, *, scheduler):
        return self.gives

    async def generate(self, portrait, speech, context):
        return await self.gives(context)


async def test_a_backend_that_breaks_its_word_is_told(anyio_backend):
    with pytest.raises(AssertionError, match="nobody was found"):
        await check_detector(Backend(()), PICTURE)
    with pytest.raises(AssertionError, match="has no alpha"):
        await check_remover(Backend(Image(PICTURE)), PICTURE)
    vague = Backend(None)
    vague.accepts_text = "perhaps"
    with pytest.raises(AssertionError, match="accepts_text"):
        await check_generator(vague, PICTURE, (np.zeros((1, 8000), np.float32), 8000))
