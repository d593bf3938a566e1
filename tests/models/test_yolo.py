"""YOLO: the same persons as Ultralytics itself finds, whatever shares their batch."""

import io
import pickle
import shutil
from importlib.util import find_spec
from pathlib import Path

import anyio
import attrs
import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from talkgen import requirements
from talkgen.errors import MissingDependency, ModelUnavailable
from talkgen.media import Image
from talkgen.models import catalogue, yolo
from talkgen.models.weights import Weights, sha256
from talkgen.models.yolo import DetectionInput, YoloDetector

if find_spec("ultralytics") is None:
    pytest.skip("the extra yolo is not installed", allow_module_level=True)
import torch

ASSETS = Path(find_spec("ultralytics").origin).parent / "assets"


@pytest.fixture(scope="module")
def checkpoint(weights) -> Path:
    return weights / "yolov8n.pt"


@pytest.fixture(scope="module")
def loaded(checkpoint):
    network = YoloDetector(checkpoint).model().load("cpu")
    yield network
    network.close()


@pytest.fixture(scope="module")
def predict(checkpoint, loaded):
    """Ultralytics itself, on pixels: boxes (n, 4) and confidences, best first."""
    from ultralytics import YOLO

    network = YOLO(checkpoint)

    def boxes(image: Image, conf: float, iou: float):
        pixels = np.ascontiguousarray(image.pixels[..., 2::-1])
        options = {"classes": [0], "conf": conf, "iou": iou, "device": "cpu", "verbose": False}
        (result,) = network.predict(pixels, **options)
        return result.boxes.xyxy.numpy(), result.boxes.conf.numpy()

    return boxes


def assert_same(persons, expected) -> None:
    """As many, as sure, and where they are: a box may differ by its rounding alone."""
    boxes, scores = expected
    assert [person.confidence for person in persons] == pytest.approx(scores, abs=1e-4)
    for person, box in zip(persons, boxes, strict=True):
        assert person.box == pytest.approx(box, abs=0.5 + 1e-2)
    assert [person.id for person in persons] == list(range(1, len(boxes) + 1))


def overlap(a, b) -> float:
    """Intersection over union of two boxes."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a, b
    across, down = min(ax1, bx1) - max(ax0, bx0), min(ay1, by1) - max(ay0, by0)
    both = max(across, 0) * max(down, 0)
    return both / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - both)


# --- the same as Ultralytics --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "persons"), [("bus.jpg", 3), ("zidane.jpg", 2)])
def test_finds_whom_predict_finds(loaded, predict, name, persons):
    image = Image.open(ASSETS / name)

    (found,) = loaded.run([DetectionInput(image, 0.5, 0.45)])

    boxes, _ = expected = predict(image, 0.5, 0.45)
    assert len(found) == persons
    assert_same(found, expected)
    assert all(overlap(p.box, box) > 0.99 for p, box in zip(found, boxes, strict=True))


def test_a_portrait(loaded, predict, media):
    image = Image.open(media / "astronaut.png")

    (found,) = loaded.run([DetectionInput(image, 0.25, 0.7)])

    boxes, _ = expected = predict(image, 0.25, 0.7)
    assert_same(found, expected)
    assert overlap(found[0].box, boxes[0]) > 0.99


@pytest.mark.parametrize("size", [(200, 1000), (1333, 750), (333, 333), (97, 131), (3000, 40)])
@pytest.mark.parametrize("name", ["bus.jpg", "zidane.jpg"])
def test_any_size_and_shape(loaded, predict, name, size):
    image = Image.open(ASSETS / name).resized(*size)

    (found,) = loaded.run([DetectionInput(image, 0.1, 0.6)])

    assert_same(found, predict(image, 0.1, 0.6))


@pytest.mark.parametrize("imgsz", [320, 960])
def test_another_size_of_the_network(checkpoint, imgsz):
    from ultralytics import YOLO

    image = Image.open(ASSETS / "zidane.jpg")
    network = YoloDetector(checkpoint, imgsz=imgsz).model().load("cpu")

    (found,) = network.run([DetectionInput(image, 0.25, 0.7)])

    pixels = np.ascontiguousarray(image.pixels[..., ::-1])
    (result,) = YOLO(checkpoint).predict(
        pixels, classes=[0], imgsz=imgsz, device="cpu", verbose=False
    )
    assert_same(found, (result.boxes.xyxy.numpy(), result.boxes.conf.numpy()))


def test_a_turned_photo_and_a_transparent_one(loaded, predict):
    upright = Pillow.open(ASSETS / "zidane.jpg")
    exif = Pillow.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    file = io.BytesIO()
    upright.rotate(90, expand=True).save(file, "JPEG", quality=95, exif=exif)
    turned = Image.open(file.getvalue())
    clear = Image(np.dstack([turned.pixels, np.zeros(turned.pixels.shape[:2], np.uint8)]))

    found, through = loaded.run([DetectionInput(image, 0.5, 0.45) for image in (turned, clear)])

    assert (turned.width, turned.height) == upright.size
    assert_same(found, predict(turned, 0.5, 0.45))
    assert [p.box for p in through] == [p.box for p in found]


@pytest.mark.parametrize("confidence", [0.3, 0.86, 0.9])
@pytest.mark.parametrize("iou", [0.2, 0.9])
def test_a_lower_confidence_filtered_is_the_higher_one(loaded, predict, confidence, iou):
    image = Image.open(ASSETS / "bus.jpg")

    (found,) = loaded.run([DetectionInput(image, 0.05, iou)])

    kept = [person for person in found if person.confidence >= confidence]
    assert_same(kept, predict(image, confidence, iou))


def test_nobody(loaded):
    image = Image(np.full((480, 640, 3), 128, np.uint8))
    assert loaded.run([DetectionInput(image, 0.3, 0.45)]) == [()]


# --- batches ------------------------------------------------------------------------------------


def test_a_batch_gives_each_what_it_gets_alone(loaded):
    sizes = [(810, 1080), (640, 480), (1080, 810), (200, 900), (810, 1080), (99, 70), (640, 480)]
    bus, zidane = Image.open(ASSETS / "bus.jpg"), Image.open(ASSETS / "zidane.jpg")
    pictures = [(bus, zidane)[i % 2].resized(*size) for i, size in enumerate(sizes)]
    batch = [DetectionInput(image, 0.2 + 0.05 * i, 0.5) for i, image in enumerate(pictures)]

    together = loaded.run(batch)

    assert len(together) == len(batch)
    for found, look in zip(together, batch, strict=True):
        (alone,) = loaded.run([look])
        assert [p.box for p in found] == [p.box for p in alone]
        assert [p.confidence for p in found] == pytest.approx(
            [p.confidence for p in alone], abs=1e-5
        )
    assert loaded.run([]) == []


def test_pictures_of_one_shape_go_through_together(loaded, monkeypatch):
    network, shapes = loaded._network, []

    class Recorder:
        def __getattr__(self, name):
            return getattr(network, name)

        def __call__(self, planes):
            assert torch.is_inference_mode_enabled()
            shapes.append(tuple(planes.shape))
            return network(planes)

    monkeypatch.setattr(loaded, "_network", Recorder())
    zidane = Image.open(ASSETS / "zidane.jpg")
    pictures = [zidane, zidane.resized(300, 300), zidane.resized(640, 360), zidane]

    loaded.run([DetectionInput(image, 0.5, 0.45) for image in pictures])

    assert shapes == [(3, 3, 384, 640), (1, 3, 640, 640)]


async def test_through_the_scheduler_on_either_loop(anyio_backend, checkpoint, scheduler):
    detector, found = YoloDetector(checkpoint), {}

    async def detect(name):
        image = Image.open(ASSETS / name)
        found[name] = await detector.detect(image, scheduler=scheduler)

    async with anyio.create_task_group() as group:
        group.start_soon(detect, "bus.jpg")
        group.start_soon(detect, "zidane.jpg")

    assert {name: len(persons) for name, persons in found.items()} == {
        "bus.jpg": 3,
        "zidane.jpg": 2,
    }
    (stats,) = scheduler.stats().models
    assert (stats.key, stats.served, stats.loads) == (detector.key, 2, 1)


# --- memory -------------------------------------------------------------------------------------


def test_out_of_memory_is_left_to_the_scheduler(loaded, monkeypatch):
    network = loaded._network

    class Full:
        device, fp16 = network.device, network.fp16

        def __call__(self, planes):
            raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(loaded, "_network", Full())
    with pytest.raises(torch.OutOfMemoryError):
        loaded.run([DetectionInput(Image.open(ASSETS / "zidane.jpg"), 0.5, 0.45)])


def test_out_of_memory_while_loading_too(checkpoint, monkeypatch):
    from talkgen.models import _yolo

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(_yolo, "AutoBackend", full)
    with pytest.raises(torch.OutOfMemoryError):
        YoloDetector(checkpoint).model().load("cpu")


def test_memory_by_precision_size_and_width(checkpoint, monkeypatch):
    model = YoloDetector(checkpoint).model()
    assert model.vram_bytes("cuda:0") == pytest.approx(2**30, rel=0.01)
    assert attrs.evolve(model, half=False).vram_bytes("cuda:0") == pytest.approx(2**31, rel=0.01)
    assert model.vram_bytes("mps") == pytest.approx(2**31, rel=0.01)
    assert attrs.evolve(model, imgsz=320).vram_bytes("cuda") == model.vram_bytes("cuda") // 4
    by_name = [YoloDetector(name).model().vram_bytes("cuda") for name in ("yolov8n", "yolov8s")]
    assert by_name == [2**30, 2**31]


# --- which file ---------------------------------------------------------------------------------


def test_a_known_name_is_pinned():
    for name in ("yolov8n", "yolov8s", "yolov8m", "yolo11n", "yolo26n"):
        with_suffix, without = YoloDetector(f"{name}.pt").model(), YoloDetector(name).model()
        assert with_suffix == without
        assert without.sha256 == catalogue.yolo(name).sha256
        assert len(without.sha256) == 64
        assert without.weights.licence == "AGPL-3.0-only"


def test_a_name_is_no_file_of_the_current_folder(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(checkpoint, "yolov8n.pt")
    assert YoloDetector("yolov8n.pt").model().weights == catalogue.yolo("yolov8n")


@pytest.mark.parametrize("path", ["./yolov8n.pt", Path("yolov8n.pt")])
def test_a_path_stays_the_same_file(checkpoint, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    shutil.copy(checkpoint, "yolov8n.pt")
    here = YoloDetector(path)
    monkeypatch.chdir("/")

    assert here.model().weights == tmp_path / "yolov8n.pt"
    assert here.key == f"yolov8n@{sha256(checkpoint)[:12]}-640-auto"


class Exploit:
    """What runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_named_checkpoint_of_other_content_is_not_unpickled(tmp_path, monkeypatch):
    file, mark = tmp_path / "yolov8n.pt", tmp_path / "executed"
    torch.save(Exploit(mark), file)
    monkeypatch.setattr(yolo, "located", lambda weights, *, allow_downloads: file)

    with pytest.raises(ModelUnavailable, match="SHA-256 differs") as caught:
        YoloDetector("yolov8n").model().load("cpu")

    assert str(file) in str(caught.value)
    assert not mark.exists()


def test_a_named_checkpoint_of_the_pinned_content_is_loaded(checkpoint, monkeypatch):
    pinned = attrs.evolve(catalogue.yolo("yolov8n"), sha256=sha256(checkpoint))
    monkeypatch.setattr(catalogue, "yolo", lambda name: pinned)
    asked = []

    def located(weights: Weights, *, allow_downloads: bool) -> Path:
        asked.append((weights.name, allow_downloads))
        return checkpoint

    monkeypatch.setattr(yolo, "located", located)

    network = YoloDetector("yolov8n.pt", allow_downloads=True).model().load("cpu")

    (found,) = network.run([DetectionInput(Image.open(ASSETS / "zidane.jpg"), 0.5, 0.45)])
    assert len(found) == 2
    assert asked == [("yolov8n", True)]


def test_a_name_that_is_not_on_this_machine(monkeypatch):
    monkeypatch.setattr("talkgen.models.weights._hub.cached", lambda *args: None)
    with pytest.raises(ModelUnavailable) as caught:
        YoloDetector("yolo11n").model().load("cpu")
    assert "python -m talkgen fetch yolo11n" in caught.value.hint


async def test_a_file_that_vanishes(anyio_backend, checkpoint, tmp_path, scheduler):
    file = tmp_path / "mine.pt"
    shutil.copy(checkpoint, file)
    detector = YoloDetector(file)
    file.unlink()
    with pytest.raises(ModelUnavailable, match=r"mine\.pt"):
        await detector.detect(Image.open(ASSETS / "zidane.jpg"), scheduler=scheduler)


def test_a_file_that_changes_is_another_model(checkpoint, tmp_path):
    file = tmp_path / "mine.pt"
    shutil.copyfile(checkpoint, file)
    detector = YoloDetector(file)
    before = detector.model()
    with file.open("ab") as end:
        end.write(b"more")

    assert detector.key != before.key
    with pytest.raises(ModelUnavailable, match=r"mine\.pt.*SHA-256 differs"):
        before.load("cpu")


def test_a_file_that_vanishes_before_it_is_loaded(checkpoint, tmp_path):
    file = tmp_path / "mine.pt"
    shutil.copyfile(checkpoint, file)
    model = YoloDetector(file).model()
    file.unlink()

    with pytest.raises(ModelUnavailable, match=r"mine\.pt cannot be read") as caught:
        model.load("cpu")
    assert "Check the path" in caught.value.hint


@pytest.mark.parametrize("weights", ["missing.pt", "no/such/folder/yolov8n.pt", Path("a.onnx")])
def test_a_file_that_is_absent(weights):
    with pytest.raises(ModelUnavailable, match=str(weights)) as caught:
        YoloDetector(weights)
    assert "yolov8n" in caught.value.hint


@pytest.mark.parametrize("weights", ["yolov9z", "readme.txt", __file__])
def test_what_is_neither_file_nor_name(weights):
    with pytest.raises(ValueError, match="must be a file ending in"):
        YoloDetector(weights)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(ModelUnavailable):
        YoloDetector(tmp_path / "folder.pt")


# --- files that are no good ---------------------------------------------------------------------


def damaged(kind: str, checkpoint: Path) -> bytes:
    file = io.BytesIO()
    match kind:
        case "text":
            return b"these are no weights\n" * 99
        case "empty":
            return b""
        case "truncated":
            return checkpoint.read_bytes()[:1_000_000]
        case "state dict":
            torch.save({"model": {"weight": torch.zeros(3)}}, file)
        case "bare tensor":
            torch.save(torch.zeros(3), file)
        case "unknown package":
            file.write(pickle.dumps(1).replace(b"K\x01", b"cnowhere_to_be_found\nThing\n"))
    return file.getvalue()


@pytest.mark.parametrize(
    "kind", ["text", "empty", "truncated", "state dict", "bare tensor", "unknown package"]
)
@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
def test_a_damaged_file_is_named(checkpoint, tmp_path, kind, suffix):
    file = tmp_path / f"damaged{suffix}"
    file.write_bytes(damaged(kind, checkpoint))
    with pytest.raises(ModelUnavailable) as caught:
        YoloDetector(file).model().load("cpu")
    assert str(file) in str(caught.value)
    assert not isinstance(caught.value, ImportError)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda network: network.names.update({0: "apple"}), "class 0 is 'apple'"),
        (lambda network: setattr(network, "task", "pose"), "task is pose"),
    ],
)
def test_a_network_that_detects_no_persons(checkpoint, tmp_path, change, said):
    content = torch.load(checkpoint, weights_only=False)
    change(content["model"])
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ModelUnavailable, match=said) as caught:
        YoloDetector(tmp_path / "other.pt").model().load("cpu")
    assert str(tmp_path / "other.pt") in str(caught.value)


# --- values -------------------------------------------------------------------------------------


def test_values_are_hashable_and_survive_pickling(checkpoint):
    detector = YoloDetector(checkpoint, "cuda:1", half=True, imgsz=320)
    model = detector.model()
    for value in (detector, model, YoloDetector("yolov8n")):
        assert pickle.loads(pickle.dumps(value)) == value
        assert hash(pickle.loads(pickle.dumps(value))) == hash(value)
    look = DetectionInput(Image(np.zeros((2, 3, 3), np.uint8)), 0.5, 0.45)
    assert hash(look) == hash(DetectionInput(look.image, 0.5, 0.45))
    assert pickle.loads(pickle.dumps(look)).confidence == 0.5
    assert (model.device, model.max_instances, model.max_batch, model.levels) == ("cuda:1", 2, 8, 1)


def test_the_key_tells_content_size_and_precision(checkpoint):
    keys = {
        YoloDetector(checkpoint, half=half, imgsz=imgsz).key
        for half in ("auto", True, False)
        for imgsz in (320, 640)
    }
    assert len(keys) == 6
    assert all(sha256(checkpoint)[:12] in key for key in keys)


@pytest.mark.parametrize(
    "options",
    [
        {"imgsz": 0},
        {"imgsz": 650},
        {"device": "gpu"},
        {"device": "cuda:"},
        {"half": "yes"},
    ],
)
def test_options_that_are_none(options):
    with pytest.raises(ValueError):
        YoloDetector("yolov8n", **options)


@pytest.mark.parametrize(
    ("absent", "weights", "command"),
    [
        ("ultralytics", "yolov8n", 'pip install "talkgen[yolo]"'),
        ("onnxruntime", "x.onnx", 'pip install "talkgen[onnx]"'),
        ("tensorrt", "x.engine", 'pip install "talkgen[tensorrt]"'),
    ],
)
def test_an_absent_package_is_told_at_once(absent, weights, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.onnx").touch()
    (tmp_path / "x.engine").touch()
    monkeypatch.setattr(
        requirements, "find_spec", lambda name: None if name == absent else find_spec(name)
    )
    with pytest.raises(MissingDependency) as caught:
        YoloDetector(weights)
    assert command in caught.value.hint


def test_what_cv2_reads_is_what_pillow_reads(loaded, predict):
    """The files that predict would open itself lead to the same persons."""
    image = Image.open(ASSETS / "bus.jpg")
    read = Image(np.ascontiguousarray(cv2.imread(str(ASSETS / "bus.jpg"))[..., ::-1]))

    (found,) = loaded.run([DetectionInput(image, 0.5, 0.45)])

    boxes, _ = predict(read, 0.5, 0.45)
    assert all(overlap(p.box, box) > 0.99 for p, box in zip(found, boxes, strict=True))
