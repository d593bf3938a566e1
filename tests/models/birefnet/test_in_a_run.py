"""BiRefNet as a stage's remover, in whole runs on the demo's portrait."""

import json

import numpy as np
import pytest
from safetensors.torch import save_file

from talkgen import (
    DetectPersons,
    GenerateVideo,
    LocalScheduler,
    Pipeline,
    RemoveBackground,
    Settings,
    Speech,
)
from talkgen.errors import Degraded as Refused
from talkgen.events import Complete, Degraded
from talkgen.models.birefnet import BiRefNetRemover, engine
from talkgen.models.face import FaceDetector

from .conftest import OFFICIAL_CONFIG


@pytest.fixture(scope="session")
def certain_folder(lite_weights, tmp_path_factory):
    """Official layout, random weights, but for the last bias: all is the person, nearly."""
    folder = tmp_path_factory.mktemp("certain")
    bias = lite_weights["decoder.conv_out1.0.bias"] + 5
    weights = {**lite_weights, "decoder.conv_out1.0.bias": bias}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(OFFICIAL_CONFIG))
    return folder


@pytest.fixture
def speech() -> Speech:
    t = np.arange(8000, dtype=np.float32) / 16000
    return Speech(0.3 * np.sin(2 * np.pi * 150 * t)[None], 16000)


async def run(remover, portrait_path, speech, **options):
    scheduler = LocalScheduler()
    stages = [DetectPersons(FaceDetector()), RemoveBackground(remover), GenerateVideo()]
    async with Pipeline(stages, scheduler=scheduler, **options) as pipeline:
        task = pipeline.start(portrait_path, speech)
        events = [event async for event in task]
        try:
            return await task, events
        finally:
            await scheduler.aclose()


@pytest.mark.integration
async def test_a_run_passes_through_it(certain_folder, portrait_path, speech):
    remover = BiRefNetRemover("lite", weights=certain_folder, device="cpu", size=64)

    result, events = await run(remover, portrait_path, speech)

    assert isinstance(events[-1], Complete)
    assert not [event for event in events if isinstance(event, Degraded)]
    cut = result.draft.portrait
    assert cut.has_alpha
    assert cut.pixels[..., 3].mean() > 200
    assert result.video.duration > 0.4


@pytest.mark.slow
@pytest.mark.e2e
async def test_the_full_mode_takes_both_models_by_the_settings(
    weights, certain_folder, portrait_path, speech
):
    settings = Settings(
        yolo_weights=str(weights / "yolov8n.pt"),
        birefnet_variant="lite",
        birefnet_weights=certain_folder / "model.safetensors",
        device="cpu",
    )
    scheduler = LocalScheduler()
    async with Pipeline(settings=settings, scheduler=scheduler, strict=True) as pipeline:
        result = await pipeline.run(portrait_path, speech)
    used = {model.key.partition("@")[0] for model in scheduler.stats().models}
    await scheduler.aclose()

    assert {"yolov8n", "birefnet-lite"} <= used
    assert result.draft.portrait.has_alpha
    assert result.metadata["person_detection"]["total_persons"] == 1
    assert result.video.duration > 0.4


@pytest.mark.integration
async def test_broken_on_purpose_the_run_ends_with_the_crop_and_a_video(
    tmp_path, portrait_path, speech
):
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)

    result, events = await run(BiRefNetRemover("lite", weights=tmp_path), portrait_path, speech)

    (degraded,) = [event for event in events if isinstance(event, Degraded)]
    assert "model.safetensors" in str(degraded)
    assert isinstance(events[-1], Complete)
    assert not result.draft.portrait.has_alpha
    assert result.video.duration > 0.4


async def test_a_shortfall_is_told_and_refused_when_strict(
    monkeypatch, certain_folder, portrait_path, speech
):
    monkeypatch.setattr(engine, "available", lambda: False)
    remover = BiRefNetRemover("lite", certain_folder, device="cpu", size=64, tensorrt=True)

    _, events = await run(remover, portrait_path, speech)
    (degraded,) = [event for event in events if isinstance(event, Degraded)]
    assert "torch_tensorrt" in degraded.message

    with pytest.raises(Refused, match="torch_tensorrt"):
        await run(remover, portrait_path, speech, strict=True)
