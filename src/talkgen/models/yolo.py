"""Persons by YOLO, through Ultralytics: the extra `talkgen[yolo]`.

Ultralytics and its networks are under AGPL-3.0: the documentation says what that asks of you.
"""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import anyio.to_thread
import attrs

from talkgen.errors import ModelUnavailable
from talkgen.models import catalogue
from talkgen.models._precision import Half, check_device, check_half, half_on, precision
from talkgen.models.weights import Weights, digest_of, located, verified
from talkgen.requirements import explained, require

if TYPE_CHECKING:
    from talkgen.draft import Person
    from talkgen.media import Image
    from talkgen.models._yolo import LoadedYolo
    from talkgen.protocols import GPUScheduler

__all__ = ["DetectionInput", "YoloDetector", "YoloModel", "export"]

# How wide the layers are, by the last letter of a name, where YOLOv8n is 1.
_WIDTHS = {"n": 1.0, "s": 2.0, "m": 3.0}

# YOLOv8n's, whose weights are in fp16; weights grow with the square of the width.
_NANO_FILE_BYTES = 6_534_387

# What runs each kind of file, beside Ultralytics.
_RUNTIMES = {".pt": "torch", ".onnx": "onnxruntime", ".engine": "tensorrt"}

_IMGSZ, _STRIDE = 640, 32

# Peaks of YOLOv8n at 640. On CUDA they are the published ones, not measured here.
_FP32_BYTES, _FP16_BYTES, _CPU_BYTES = 2 * 2**30, 2**30, 2**29


@attrs.frozen
class DetectionInput:
    """A picture, and which persons of it count.

    Attributes:
        image: RGB or RGBA; alpha is ignored.
        confidence: The lowest that counts, 0..1.
        iou: Overlap above which two boxes are one person, 0..1.
    """

    image: Image
    confidence: float
    iou: float


@attrs.frozen
class YoloModel:
    """Persons in pictures: `Model[DetectionInput, tuple[Person, ...]]`, best first.

    Attributes:
        weights: A file, or what is pinned.
        sha256: Hexadecimal digest that the file must have; checked before it is unpickled.
        width: Of the network's layers, where YOLOv8n is 1.
        device: Where it may run.
        half: fp16: `auto` on CUDA alone, True on whatever is no CPU.
        imgsz: The longer side of what the network sees, in pixels.
        allow_downloads: Fetch pinned weights that are not on this machine.
    """

    weights: Path | Weights
    sha256: str
    width: float = 1.0
    device: str = "auto"
    half: Half = "auto"
    imgsz: int = _IMGSZ
    allow_downloads: bool = attrs.field(default=False, eq=False)

    max_instances: ClassVar[int] = 2
    max_batch: ClassVar[int] = 8
    levels: ClassVar[int] = 1

    @property
    def key(self) -> str:
        """The file and its content, the size of picture, and the precision."""
        name = self.weights.name if isinstance(self.weights, Weights) else self.weights.stem
        return f"{name}@{self.sha256[:12]}-{self.imgsz}-{precision(self.half)}"

    def vram_bytes(self, device: str) -> int:
        """Peak memory of one instance with a full batch; on GPUs an estimate."""
        gpu = _FP16_BYTES if half_on(self.half, device) else _FP32_BYTES
        base = _CPU_BYTES if device == "cpu" else gpu
        return int(base * self.width * (self.imgsz / _IMGSZ) ** 2)

    def load(self, device: str) -> LoadedYolo:
        """Load the network; what it gives is for one thread at a time.

        Raises:
            talkgen.errors.ModelUnavailable: The file is absent, not the one that was meant,
                damaged, or detects no persons.
            talkgen.errors.MissingDependency: A package is absent.
        """
        with explained():
            from talkgen.models._yolo import LoadedYolo
        half = half_on(self.half, device)
        return LoadedYolo(self.file(), device, imgsz=self.imgsz, half=half)

    def file(self) -> Path:
        """The weights on this machine.

        Raises:
            talkgen.errors.ModelUnavailable: They are absent, or not those that were meant.
        """
        path = self.weights
        if isinstance(path, Weights):
            path = located(path, allow_downloads=self.allow_downloads)
        return verified(path, self.sha256)


def _multiple_of_stride(_instance: object, _attribute: object, value: int) -> None:
    if value < _STRIDE or value % _STRIDE:
        raise ValueError(f"imgsz={value}: must be a multiple of {_STRIDE}, at least one of it")


@attrs.frozen
class YoloDetector:
    """Finds persons by YOLO: a `Detector`.

    The persons are those that `ultralytics.YOLO(weights).predict(image, classes=[0], ...)` finds,
    their boxes rounded to whole pixels.

    Attributes:
        weights: A file: a checkpoint (.pt), or one that `export` made of it (.onnx, .engine). Or
            a name: yolov8n, yolov8s, yolov8m, yolo11n or yolo26n, with or without .pt, whose
            file is then taken from the hub's cache and must have the pinned SHA-256;
            `./yolov8n.pt` is a file. A checkpoint is a pickle, which can run any code: whoever
            gives a path vouches for it.
        device: Where it may run: `auto`, a kind (`cpu`, `cuda`, `mps`), or one (`cuda:1`).
        half: fp16: `auto` on CUDA alone, True on whatever is no CPU, False nowhere.
        imgsz: The longer side of what the network sees, in pixels, a multiple of 32.
        allow_downloads: Fetch named weights that are not on this machine.

    Raises:
        ValueError: An option is none of these.
        talkgen.errors.ModelUnavailable: There is no such file, or no digest to check it by.
        talkgen.errors.MissingDependency: Ultralytics, or what runs such a file, is absent.
    """

    weights: str | Path = "yolov8n.pt"
    device: str = attrs.field(default="auto", validator=check_device)
    half: Half = attrs.field(default="auto", validator=check_half)
    imgsz: int = attrs.field(default=_IMGSZ, validator=_multiple_of_stride)
    allow_downloads: bool = attrs.field(default=False, kw_only=True, eq=False)
    # Resolved once, so that a later change of folder does not change what it means.
    _file: Path | Weights = attrs.field(init=False, repr=False)

    @_file.default
    def _resolved(self) -> Path | Weights:
        return _resolved(self.weights)

    @property
    def key(self) -> str:
        """The weights' content, the size of picture and the precision."""
        return self.model().key

    def model(self) -> YoloModel:
        """What the scheduler runs; reads a file through to know its content.

        Raises:
            talkgen.errors.ModelUnavailable: The file cannot be read.
        """
        file = self._file
        return YoloModel(
            file,
            _digest(file),
            _width(file),
            self.device,
            self.half,
            self.imgsz,
            self.allow_downloads,
        )

    async def detect(
        self,
        image: Image,
        *,
        scheduler: GPUScheduler,
        confidence: float = 0.5,
        iou: float = 0.45,
    ) -> tuple[Person, ...]:
        """Everybody, best first, numbered from 1.

        Those found at a lower confidence, without the ones below a higher, are those found at
        the higher one: suppression goes from the best down.

        Args:
            image: RGB or RGBA; alpha is ignored.
            scheduler: Runs the network.
            confidence: The lowest that counts, 0..1.
            iou: Overlap above which two boxes are one person, 0..1.

        Raises:
            talkgen.errors.ModelUnavailable: The weights are absent, damaged or not those meant.
            talkgen.errors.MissingDependency: A package is absent.
        """
        model = await anyio.to_thread.run_sync(self.model)
        return await scheduler.run(model, DetectionInput(image, confidence, iou))


def export(
    weights: str | Path,
    format: Literal["engine", "onnx"] = "engine",  # noqa: A002 - Ultralytics' word for it
    half: bool = True,
    int8: bool = False,
    *,
    imgsz: int = _IMGSZ,
    data: str | Path | None = None,
) -> Path:
    """Turn a checkpoint into a file for TensorRT or ONNX Runtime. Blocks, for minutes at worst.

    The new file takes batches of up to 8 and any shape of picture, as the checkpoint does. It is
    for `YoloDetector(weights=...)`, and under the licence of the checkpoint.

    Args:
        weights: A checkpoint or a name, as for `YoloDetector`.
        format: `engine` needs a CUDA device and TensorRT, and runs on that kind of device alone;
            `onnx` needs onnx and onnxruntime.
        half: Weights in fp16: half as large, and as fast or faster on GPUs. On a CPU ONNX Runtime
            computes in fp32 from them.
        int8: Smaller still, at a loss: wins over `half`, and needs `data`.
        imgsz: The longer side of the pictures that it is tuned for.
        data: The YAML of a data set in Ultralytics' form, whose pictures calibrate `int8`.

    Returns:
        The file: beside the checkpoint, or in the current folder for a name. One that was
        there before is replaced, when the new one is whole.

    Raises:
        ValueError: The weights are no checkpoint, or `int8` has no `data`.
        talkgen.errors.ModelUnavailable: The weights are absent or damaged, or this machine cannot
            make such a file.
        talkgen.errors.MissingDependency: A package is absent; nothing is installed.
    """
    if int8 and data is None:
        raise ValueError("int8=True needs data=, the YAML of a data set to calibrate with")
    file = _resolved(weights)
    if isinstance(file, Path) and file.suffix != ".pt":
        raise ValueError(f"weights={str(weights)!r}: only a checkpoint (.pt) can be exported")
    target = (file if isinstance(file, Path) else Path(file.filename)).with_suffix(f".{format}")
    precision = 8 if int8 else 16 if half else 32
    source = YoloModel(file, _digest(file)).file()
    with explained():
        from talkgen.models._yolo_export import exported
    return exported(source, target.absolute(), precision=precision, imgsz=imgsz, data=data)


def _resolved(weights: str | Path) -> Path | Weights:
    """What is known by a name, else the file at a path.

    The name comes first: what somebody puts into the current folder must not take its place.
    """
    known = catalogue.yolo(weights) if isinstance(weights, str) else None
    if known is not None:
        require("ultralytics")
        return known
    path = Path(weights).expanduser().absolute()
    if path.is_file() and path.suffix in _RUNTIMES:
        require("ultralytics", _RUNTIMES[path.suffix])
        return path
    if path.suffix in _RUNTIMES:
        raise ModelUnavailable(
            f"There are no weights at {path}.",
            hint=f"Give the path of a file, or one of {_names()}.",
        )
    raise ValueError(
        f"weights={str(weights)!r}: must be a file ending in {', '.join(_RUNTIMES)}, "
        f"or one of {_names()}"
    )


def _names() -> str:
    return ", ".join(name for name in catalogue.known_weights() if catalogue.yolo(name))


def _digest(file: Path | Weights) -> str:
    return file.sha256 if isinstance(file, Weights) else digest_of(file)


def _width(file: Path | Weights) -> float:
    if isinstance(file, Weights):
        return _WIDTHS[file.name[-1]]
    return max(1.0, sqrt(file.stat().st_size / _NANO_FILE_BYTES))
