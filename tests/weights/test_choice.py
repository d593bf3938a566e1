"""Which backends are taken for what is installed and fetched, and what is told about the rest."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from talkgen import DetectPersons, Pipeline, RemoveBackground, Settings
from talkgen import choice as choice_module
from talkgen.choice import choose_backends
from talkgen.errors import MissingDependency, ModelUnavailable
from talkgen.events import Degraded, Error
from talkgen.models import weights
from talkgen.models.catalogue import known_weights
from talkgen.models.face import FaceDetector
from talkgen.models.segmentation import SelfieRemover

PACKAGES = {"ultralytics", "torch", "transformers", "safetensors", "huggingface_hub"}


@pytest.fixture
def machine(monkeypatch, cache):
    """A machine on which nothing is installed or fetched; `install` and `put` change that."""
    installed = set()
    monkeypatch.setattr(choice_module, "find_spec", lambda name: name in installed or None)

    def full(**options):
        return SimpleNamespace(**options)

    monkeypatch.setitem(sys.modules, "talkgen.models.yolo", SimpleNamespace(YoloDetector=full))
    module = SimpleNamespace(BiRefNetRemover=full)
    monkeypatch.setitem(sys.modules, "talkgen.models.birefnet", module)
    return SimpleNamespace(
        install=lambda *names: installed.update(names or PACKAGES),
        put=lambda name: cache(known_weights()[name], b"weights"),
    )


def embedded(choice):
    backends = choice.backends
    return isinstance(backends.detector, FaceDetector), isinstance(backends.remover, SelfieRemover)


def test_without_extras_the_embedded_ones_are_taken_silently(machine):
    choice = choose_backends(Settings())
    assert embedded(choice) == (True, True)
    assert choice.shortfalls == ()


def test_with_weights_the_full_ones_are_taken(machine):
    machine.install()
    machine.put("yolov8n")
    machine.put("birefnet-lite")
    settings = Settings(
        birefnet_variant="lite", device="cuda:1", birefnet_use_fp16=True, birefnet_use_tensorrt=True
    )
    choice = choose_backends(settings)
    assert choice.shortfalls == ()
    assert vars(choice.backends.detector) == {
        "weights": "yolov8n.pt",
        "device": "cuda:1",
        "allow_downloads": False,
    }
    assert vars(choice.backends.remover) == {
        "variant": "lite",
        "weights": None,
        "device": "cuda:1",
        "half": True,
        "tensorrt": True,
        "allow_downloads": False,
    }


def test_a_path_is_enough(machine, tmp_path):
    machine.install()
    for name in ("mine.pt", "model.safetensors"):
        (tmp_path / name).touch()
    settings = Settings(
        yolo_weights=str(tmp_path / "mine.pt"), birefnet_weights=tmp_path / "model.safetensors"
    )
    choice = choose_backends(settings)
    assert choice.shortfalls == ()
    assert choice.backends.detector.weights == str(tmp_path / "mine.pt")
    assert choice.backends.remover.weights == tmp_path / "model.safetensors"


def test_downloads_that_are_allowed_are_left_to_the_models(machine, monkeypatch):
    machine.install()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights, "_fetch", lambda *values: pytest.fail("fetched here"))
    choice = choose_backends(Settings(allow_downloads=True))
    assert choice.shortfalls == ()
    assert choice.backends.detector.allow_downloads
    assert choice.backends.remover.allow_downloads


def test_downloads_that_are_allowed_do_not_help_offline(machine, monkeypatch):
    machine.install()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(choose_backends(Settings(allow_downloads=True)).shortfalls) == 2


def test_installed_without_weights_falls_short(machine):
    machine.install()
    choice = choose_backends(Settings())
    assert embedded(choice) == (True, True)
    yolo, birefnet = choice.shortfalls
    assert yolo.message.startswith("YOLO has no weights: yolov8n is not on this machine;")
    assert yolo.hint == "Fetch them: python -m talkgen fetch yolov8n"
    assert birefnet.hint == "Fetch them: python -m talkgen fetch birefnet-general"
    assert isinstance(yolo.error(), ModelUnavailable)
    assert yolo.error() is not yolo.error()


@pytest.mark.parametrize(
    "asking",
    [
        {"detector": "yolo"},
        {"yolo_weights": "yolov8s.pt"},
        {"remover": "birefnet"},
        {"birefnet_weights": "model.safetensors"},
    ],
)
def test_what_is_asked_for_and_not_installed_falls_short(machine, asking):
    machine.install("torch")
    (shortfall,) = choose_backends(Settings(**asking)).shortfalls
    assert "is not installed" in shortfall.message
    assert 'pip install "talkgen[' in shortfall.hint
    assert isinstance(shortfall.error(), MissingDependency)


def test_a_path_that_is_not_there_is_named(machine):
    machine.install()
    choice = choose_backends(Settings(yolo_weights="absent.pt", remover="embedded"))
    (shortfall,) = choice.shortfalls
    assert "there is no file absent.pt" in shortfall.message
    assert "Check the path" in shortfall.hint


def test_embedded_never_looks(machine, monkeypatch):
    monkeypatch.setattr(choice_module, "find_spec", lambda name: pytest.fail("looked"))
    choice = choose_backends(Settings(detector="embedded", remover="embedded"))
    assert embedded(choice) == (True, True)
    assert choice.shortfalls == ()


async def test_every_run_tells_what_it_falls_short_of(anyio_backend, machine, portrait_path):
    machine.install()
    async with Pipeline([DetectPersons(), RemoveBackground()]) as pipeline:
        for _ in range(2):
            run = pipeline.start(portrait_path)
            events = [event async for event in run]
            assert (await run).success
            yolo, birefnet = [event for event in events if isinstance(event, Degraded)]
            assert "python -m talkgen fetch yolov8n" in yolo.message
            assert "python -m talkgen fetch birefnet-general" in birefnet.message
            assert (yolo.stage, yolo.progress) == ("initialized", 0)
            assert yolo.metadata == {"backend": "detector"}


async def test_strict_refuses_before_any_work(anyio_backend, machine, portrait_path):
    machine.install()
    async with Pipeline([DetectPersons()], strict=True) as pipeline:
        run = pipeline.start(portrait_path)
        events = [event async for event in run]
        with pytest.raises(ModelUnavailable, match="YOLO has no weights") as caught:
            await run
    assert caught.value.hint == "Fetch them: python -m talkgen fetch yolov8n"
    assert isinstance(events[-1], Error)
    assert {event.stage for event in events} == {"initialized", "failed"}


async def test_stages_with_backends_of_their_own_fall_short_of_nothing(
    anyio_backend, machine, portrait_path
):
    machine.install()
    pipeline = Pipeline([DetectPersons(FaceDetector())], strict=True)
    assert (await pipeline.run(portrait_path)).success


def test_choosing_loads_nothing_heavy():
    heavy = ("torch", "ultralytics", "transformers", "cv2")
    code = (
        "import sys; from talkgen.choice import choose_backends; from talkgen import Settings; "
        f"choose_backends(Settings()); print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
