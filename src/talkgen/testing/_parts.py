"""The contracts of what a pipeline is made of: stages, models and backends."""

from __future__ import annotations

import pickle
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import attrs

from talkgen import codecs
from talkgen.draft import Draft
from talkgen.media import Image, Speech, Text
from talkgen.pipeline import Pipeline
from talkgen.scheduling import LocalScheduler
from talkgen.stages.generation import GenerateVideo
from talkgen.storage import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from talkgen.media import Video
    from talkgen.protocols import (
        BackgroundRemover,
        Detector,
        LoadedModel,
        Model,
        Stage,
        StageContext,
        VideoGenerator,
    )

__all__ = [
    "check_detector",
    "check_generator",
    "check_model",
    "check_remover",
    "check_stage",
]

FIELDS = tuple(field.name for field in attrs.fields(Draft))
DEVICES = ("cpu", "cuda:0")
SLACK = 1.0  # seconds by which a video may be longer or shorter than what is said


# --- stages ------------------------------------------------------------------------------------


async def check_stage(
    stage: Stage, image: Any, speech: Any = None, *, before: Sequence[Stage] = ()
) -> None:
    """Check a stage against the contract of `talkgen.protocols.Stage`, in a real pipeline.

    It runs twice, the first time under cancellation.

    Args:
        stage: The stage.
        image: A photo that it can work on, or whatever `Image.open` takes.
        speech: A recording or `Text`, where one of the stages wants it.
        before: Stages that make what it requires.

    Raises:
        AssertionError: It does not keep the contract; the message says where.
        TalkgenError: It failed at the photo.
    """
    _check_key(stage)
    watched = _Watched(stage)
    pipeline = Pipeline([*before, watched], storage=MemoryStorage())
    await pipeline.run(image, speech)
    assert not watched.wrapped, f"it turned a cancellation into {watched.wrapped!r}"
    assert watched.given is not None, "it was not run"
    assert isinstance(watched.made, Draft), f"run() gave {watched.made!r}, which is no Draft"
    for field in FIELDS:
        _check_field(stage, field, getattr(watched.given, field), getattr(watched.made, field))


def _check_field(stage: Stage, field: str, before: Any, after: Any) -> None:
    if field in stage.provides:
        assert after is not None, f"it provides {field!r}, and left it empty"
    elif field not in {*stage.resets, "metadata"}:
        assert after is before, f"it changed {field!r}, which `provides` and `resets` do not name"


def _check_key(part: Any) -> None:
    assert isinstance(part.key, str), f"the key is {part.key!r}, which is no text"
    assert part.key, "the key is empty"


class _Watched:
    """A stage, and what it was given and made. Without `optional`: its failure is to be seen."""

    def __init__(self, stage: Stage) -> None:
        self.name, self.key, self.weight = stage.name, stage.key, stage.weight
        self.requires, self.provides, self.resets = stage.requires, stage.provides, stage.resets
        self.stage = stage
        self.given: Draft | None = None
        self.made: Draft | None = None
        self.wrapped: Exception | None = None

    async def run(self, draft: Draft, context: StageContext) -> Draft:
        if (check := getattr(self.stage, "check", None)) is not None:
            check(draft, context)
        await self._cancelled(draft, context)
        self.given = draft
        self.made = await self.stage.run(draft, context)
        return self.made

    async def _cancelled(self, draft: Draft, context: StageContext) -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await self.stage.run(draft, context)
            except Exception as error:  # noqa: BLE001 - a cancellation is none
                self.wrapped = error


# --- models ------------------------------------------------------------------------------------


async def check_model(
    model: Model[Any, Any],
    items: Sequence[Any],
    *,
    device: str = "cpu",
    same: Callable[[Any, Any], bool] = lambda one, other: bool(one == other),
) -> None:
    """Check a model against the contract of `talkgen.protocols.Model`.

    It is loaded once, and run at each of its levels, item by item and in batches.

    Args:
        model: The model.
        items: Two or more that it can work on, with different results.
        device: Where it is loaded.
        same: Whether two results are the same; networks differ in the last bits.

    Raises:
        AssertionError: It does not keep the contract; the message says where.
    """
    _check_key(model)
    _check_description(model)
    await anyio.to_thread.run_sync(_check_results, model, list(items), device, same)


def _check_description(model: Model[Any, Any]) -> None:
    copy = pickle.loads(pickle.dumps(model))  # noqa: S301 - its own
    assert (copy, hash(copy)) == (model, hash(model)), "its pickled copy is another model"
    for name in ("max_instances", "max_batch", "levels"):
        assert getattr(model, name) >= 1, f"{name} is {getattr(model, name)}, which is below 1"
    for device in DEVICES:
        assert model.vram_bytes(device) >= 0, f"it takes less than nothing on {device}"


def _check_results(
    model: Model[Any, Any], items: list[Any], device: str, same: Callable[[Any, Any], bool]
) -> None:
    loaded = model.load(device)
    try:
        for level in range(model.levels):
            _check_level(loaded, items, level, model.max_batch, same)
    finally:
        loaded.close()


def _check_level(
    loaded: LoadedModel[Any, Any],
    items: list[Any],
    level: int,
    most: int,
    same: Callable[[Any, Any], bool],
) -> None:
    alone = [loaded.run([item], level=level) for item in items]
    for results in alone:
        assert len(results) == 1, f"one item gave {len(results)} results at level {level}"
    for start in range(0, len(items), most):
        batch = items[start : start + most]
        results = loaded.run(batch, level=level)
        assert len(results) == len(batch), f"{len(batch)} items gave {len(results)} results"
        for number, result in enumerate(results, start):
            assert same(result, alone[number][0]), f"item {number} has another result in a batch"


# --- backends ----------------------------------------------------------------------------------


async def check_detector(detector: Detector, image: Any) -> None:
    """Check a detector against the contract of `talkgen.protocols.Detector`.

    Args:
        detector: The detector.
        image: A photo with somebody in it, or whatever `Image.open` takes.

    Raises:
        AssertionError: It does not keep the contract; the message says where.
    """
    photo = await anyio.to_thread.run_sync(Image.open, image)
    async with aclosing(LocalScheduler()) as scheduler:
        persons = await detector.detect(photo, scheduler=scheduler, confidence=0.3)
        sure = await detector.detect(photo, scheduler=scheduler, confidence=1.0)
    assert persons, "nobody was found"
    assert all(person.confidence >= 1.0 for person in sure), "somebody is below the confidence"
    ids = [person.id for person in persons]
    assert ids == list(range(1, len(ids) + 1)), f"the persons are numbered {ids}"
    confidences = [person.confidence for person in persons]
    assert confidences == sorted(confidences, reverse=True), "the best is not first"
    for x0, y0, x1, y1 in (person.box for person in persons):
        inside = 0 <= x0 < x1 <= photo.width and 0 <= y0 < y1 <= photo.height
        assert inside, f"the box {x0, y0, x1, y1} is not within the picture"


async def check_remover(remover: BackgroundRemover, image: Any) -> None:
    """Check a remover against the contract of `talkgen.protocols.BackgroundRemover`.

    Args:
        remover: The remover.
        image: A photo with somebody in it, or whatever `Image.open` takes.

    Raises:
        AssertionError: It does not keep the contract; the message says where.
    """
    photo = await anyio.to_thread.run_sync(Image.open, image)
    async with aclosing(LocalScheduler()) as scheduler:
        cut = await remover.remove(photo, scheduler=scheduler)
    assert cut.has_alpha, "the cut-out has no alpha"
    assert (cut.width, cut.height) == (photo.width, photo.height), "the cut-out has another size"
    alpha = cut.pixels[..., 3]
    assert alpha.min() < alpha.max(), "nothing was cut out"


async def check_generator(generator: VideoGenerator, portrait: Any, speech: Any) -> None:
    """Check a generator against the contract of `talkgen.protocols.VideoGenerator`.

    It makes one video, in a real pipeline.

    Args:
        generator: The generator.
        portrait: What is to speak, or whatever `Image.open` takes.
        speech: What is to be said: `Text`, or whatever `Speech.open` takes.

    Raises:
        AssertionError: It does not keep the contract; the message says where.
        TalkgenError: It failed at the portrait or the speech.
    """
    _check_key(generator)
    assert isinstance(generator.accepts_text, bool), "accepts_text is neither True nor False"
    said = speech if isinstance(speech, Text) else await anyio.to_thread.run_sync(_sound, speech)
    pipeline = Pipeline([GenerateVideo(generator)], storage=MemoryStorage())
    video = (await pipeline.run(portrait, said)).video
    await _check_video(video)
    if isinstance(said, Speech):
        off = abs(video.duration - said.duration)
        assert off <= SLACK, f"the video is {off:.1f} s longer or shorter than the recording"


def _sound(source: Any) -> Speech:
    return Speech.open(source)


async def _check_video(video: Video) -> None:
    assert video.file.tier == "videos", f"the video is in {video.file.tier!r}, not in 'videos'"
    frame = await anyio.to_thread.run_sync(codecs.first_frame, await video.aread())
    height, width = frame.shape[:2]
    assert (width, height) == tuple(video.size), f"it is {width}x{height}, not {video.size}"
    assert video.fps > 0, f"it has {video.fps} frames a second"
