"""The exporter: the same persons from the file that it makes."""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from talkgen.errors import MissingDependency, ModelUnavailable
from talkgen.media import Image
from talkgen.models.yolo import DetectionInput, YoloDetector, export

if find_spec("ultralytics") is None:
    pytest.skip("the extra yolo is not installed", allow_module_level=True)
pytest.importorskip("onnxruntime")
import torch

ASSETS = Path(find_spec("ultralytics").origin).parent / "assets"


@pytest.fixture
def checkpoint(weights, tmp_path) -> Path:
    return shutil.copyfile(weights / "yolov8n.pt", tmp_path / "mine.pt")


def found(weights: Path, *pictures: Image):
    network = YoloDetector(weights, imgsz=320).model().load("cpu")
    return network.run([DetectionInput(image, 0.3, 0.45) for image in pictures])


@pytest.mark.parametrize(
    ("half", "sure", "megabytes"),
    [(True, 0.01, 6.4), pytest.param(False, 1e-4, 12.7, marks=pytest.mark.slow)],
)
def test_onnx_finds_the_same_in_batches_of_any_shape(checkpoint, half, sure, megabytes):
    zidane, bus = Image.open(ASSETS / "zidane.jpg"), Image.open(ASSETS / "bus.jpg")
    pictures = (zidane, bus, zidane, bus.resized(300, 300))

    file = export(checkpoint, "onnx", half=half)

    assert file == checkpoint.with_suffix(".onnx")
    assert file.stat().st_size == pytest.approx(megabytes * 1e6, rel=0.05)
    assert {path.name for path in file.parent.iterdir()} == {"mine.pt", "mine.onnx"}
    for after, before in zip(found(file, *pictures), found(checkpoint, *pictures), strict=True):
        assert [p.confidence for p in after] == pytest.approx(
            [p.confidence for p in before], abs=sure
        )
        for p, q in zip(after, before, strict=True):
            assert p.box == pytest.approx(q.box, abs=1)


@pytest.mark.filterwarnings("ignore")
def test_a_file_of_a_fixed_size_that_ultralytics_made(checkpoint):
    from ultralytics import YOLO

    from talkgen.models import _yolo  # noqa: F401 - imports Ultralytics as talkgen does

    file = YOLO(checkpoint).export(format="onnx", imgsz=[192, 320], simplify=False)
    image = Image.open(ASSETS / "zidane.jpg")

    (persons,) = found(file, image)

    pixels = np.ascontiguousarray(image.pixels[..., ::-1])
    (result,) = YOLO(file, task="detect").predict(
        pixels, classes=[0], conf=0.3, iou=0.45, device="cpu", verbose=False
    )
    boxes, scores = result.boxes.xyxy.numpy(), result.boxes.conf.numpy()
    assert [p.confidence for p in persons] == pytest.approx(scores, abs=1e-4)
    for person, box in zip(persons, boxes, strict=True):
        assert person.box == pytest.approx(box, abs=0.51)
    for again in found(file, image, image, image):
        assert [p.box for p in again] == [p.box for p in persons]


def test_what_is_there_already_stays_until_the_new_file_is_whole(checkpoint, monkeypatch):
    old = checkpoint.with_suffix(".onnx")
    old.write_bytes(b"old")

    def failing(*args, **kwargs):
        raise RuntimeError("half way")

    monkeypatch.setattr("ultralytics.utils.export.engine.torch2onnx", failing)
    with pytest.raises(RuntimeError, match="half way"):
        export(checkpoint, "onnx")

    assert old.read_bytes() == b"old"
    assert {path.name for path in old.parent.iterdir()} == {"mine.pt", "mine.onnx"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can make one")
def test_an_engine_needs_a_gpu(checkpoint):
    with pytest.raises(ModelUnavailable, match="CUDA") as caught:
        export(checkpoint)
    assert "onnx" in caught.value.hint


@pytest.mark.parametrize(
    ("to", "absent"),
    [("onnx", "onnx"), ("onnx", "onnxruntime"), ("engine", "onnx"), ("engine", "tensorrt")],
)
def test_an_absent_package_is_told_and_not_installed(checkpoint, to, absent, monkeypatch):
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(MissingDependency) as caught:
        export(checkpoint, to)
    extra = "tensorrt" if absent == "tensorrt" else "onnx"
    assert f'pip install "talkgen[{extra}]"' in caught.value.hint
    assert [path.name for path in checkpoint.parent.iterdir()] == ["mine.pt"]


def test_int8_needs_pictures_to_calibrate_with(checkpoint):
    with pytest.raises(ValueError, match="data="):
        export(checkpoint, "onnx", int8=True)


@pytest.mark.slow
def test_int8_with_pictures(checkpoint, tmp_path):
    pictures = tmp_path / "set" / "images"
    pictures.mkdir(parents=True)
    for i in range(16):
        name = ("bus.jpg", "zidane.jpg")[i % 2]
        Pillow.open(ASSETS / name).resize((320 + 8 * i, 320)).save(pictures / f"{i}.jpg")
    data = tmp_path / "set" / "data.yaml"
    data.write_text(f"path: {data.parent}\ntrain: images\nval: images\nnames:\n  0: person\n")

    file = export(checkpoint, "onnx", int8=True, data=data)

    assert file.stat().st_size < checkpoint.stat().st_size
    (persons,) = found(file, Image.open(ASSETS / "zidane.jpg"))
    assert len(persons) >= 2


@pytest.mark.parametrize("name", ["made.onnx", "made.engine"])
def test_only_a_checkpoint_can_be_exported(tmp_path, name, monkeypatch):
    (tmp_path / name).touch()
    monkeypatch.setattr("talkgen.requirements.find_spec", lambda name: True)
    with pytest.raises(ValueError, match="only a checkpoint"):
        export(tmp_path / name, "onnx")


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "mine.pt").write_bytes(b"no weights")
    with pytest.raises(ModelUnavailable, match=r"mine\.pt"):
        export(tmp_path / "mine.pt", "onnx")
