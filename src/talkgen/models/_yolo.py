"""YOLO through Ultralytics: from pictures to persons.

Each picture is letterboxed as `YOLO.predict` does it for that picture alone, and pictures that come
out in one shape go through the network together: what is in a picture does not depend on what else
is in its batch.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torchvision  # noqa: F401 - where it is loaded, Ultralytics suppresses with it, as predict does

from talkgen.draft import Box, Person
from talkgen.errors import ModelUnavailable
from talkgen.models._ultralytics import contained

with contained():
    from ultralytics.data.augment import LetterBox
    from ultralytics.nn.autobackend import AutoBackend
    from ultralytics.nn.tasks import load_checkpoint
    from ultralytics.utils.nms import non_max_suppression
    from ultralytics.utils.ops import scale_boxes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from talkgen.media import Image

__all__ = ["LoadedYolo", "checkpoint"]

# Its number among the classes of COCO.
_PERSON = 0


class Look(Protocol):
    """A picture, and which persons of it count."""

    @property
    def image(self) -> Image: ...
    @property
    def confidence(self) -> float: ...
    @property
    def iou(self) -> float: ...


class LoadedYolo:
    """A detector on a device, for one thread at a time: the scheduler's promise."""

    def __init__(self, path: Path, device: str, *, imgsz: int, half: bool) -> None:
        """Load the network.

        Args:
            path: A checkpoint (.pt), an ONNX file or a TensorRT engine.
            device: `cpu`, `cuda`, `cuda:1`, `mps`.
            imgsz: The longer side of what the network sees, in pixels; a file that was exported
                with a fixed size keeps that.
            half: Compute in fp16; a CPU does not.

        Raises:
            talkgen.errors.ModelUnavailable: The file is damaged, or detects no persons.
            talkgen.errors.MissingDependency: What runs such a file is absent.
        """
        with contained():
            self._network = _loaded(path, torch.device(device), half=half)
        any_shape = self._network.format == "pt" or self._network.dynamic
        self._letterbox = LetterBox(
            (imgsz, imgsz) if any_shape else self._network.imgsz,
            auto=any_shape,
            stride=self._network.stride,
        )

    def run(self, batch: Sequence[Look], *, level: int = 0) -> list[tuple[Person, ...]]:  # noqa: ARG002 - there is one
        """The persons of each picture, best first, numbered from 1."""
        boxed = [self._boxed(look.image) for look in batch]
        found: dict[int, tuple[Person, ...]] = {}
        with torch.inference_mode():
            for group in _of_one_shape(boxed):
                predictions = self._predict([boxed[i] for i in group])
                for i, prediction in zip(group, predictions, strict=True):
                    found[i] = self._persons(prediction, boxed[i], batch[i])
        return [found[i] for i in range(len(batch))]

    def close(self) -> None:
        """Free the memory."""
        device = self._network.device
        del self._network
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def _boxed(self, image: Image) -> NDArray[np.uint8]:
        return np.asarray(self._letterbox(image=image.pixels[..., :3]))

    def _predict(self, pictures: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack(pictures)).to(self._network.device)
        planes = pixels.permute(0, 3, 1, 2).contiguous()
        planes = planes.half() if self._network.fp16 else planes.float()
        answer = self._network(planes.div_(255))
        # Beside the boxes a checkpoint gives the features that they come from.
        boxes: torch.Tensor = answer[0] if isinstance(answer, (list, tuple)) else answer
        return boxes

    def _persons(
        self, prediction: torch.Tensor, boxed: NDArray[np.uint8], look: Look
    ) -> tuple[Person, ...]:
        # One at a time: of a batch, Ultralytics leaves the rest out when its time is up.
        (kept,) = non_max_suppression(
            prediction[None],
            look.confidence,
            look.iou,
            classes=[_PERSON],
            end2end=self._network.end2end,
        )
        height, width = boxed.shape[:2]
        placed = scale_boxes((height, width), kept[:, :4], (look.image.height, look.image.width))
        boxes, scores = placed.tolist(), kept[:, 4].tolist()
        return tuple(
            Person(number, _box(box, look.image), score)
            for number, (box, score) in enumerate(zip(boxes, scores, strict=True), start=1)
        )


def _loaded(path: Path, device: torch.device, *, half: bool) -> Any:
    if path.suffix == ".pt":
        # Once it is read, what fails is the device's doing and not the file's.
        return _backend(checkpoint(path), device, half=half)
    with _blamed_on(path):
        network = _backend(str(path), device, half=half)
        _check(path, network.task, network.names)
    return network


def _backend(network: Any, device: torch.device, *, half: bool) -> Any:
    # A head that needs no suppression is not used: predict does not, either.
    return AutoBackend(network, device=device, fp16=half, verbose=False, end2end=False).eval()


def checkpoint(path: Path) -> Any:
    """The network of a checkpoint, in fp32 on the CPU; within `contained()`.

    Unpickles: only for files that are pinned, or that the caller vouches for.

    Raises:
        talkgen.errors.ModelUnavailable: The file is damaged, or detects no persons.
    """
    load: Any = load_checkpoint  # not typed
    with _blamed_on(path):
        network, _ = load(str(path))
        _check(path, network.task, network.names)
    return network


@contextmanager
def _blamed_on(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes its reader raise into `ModelUnavailable`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, ModelUnavailable):
        raise
    except Exception as error:
        if isinstance(error, ImportError) and path.suffix != ".pt":
            raise  # what runs such files is absent
        raise ModelUnavailable(
            f"The weights {path} cannot be loaded: {error}",
            hint="Give a detection checkpoint of Ultralytics (.pt), or a file exported from one.",
        ) from error


def _check(path: Path, task: str | None, names: dict[int, str]) -> None:
    if task != "detect" or names.get(_PERSON) != "person":
        raise ModelUnavailable(
            f"The weights {path} detect no persons: their task is {task}, "
            f"and class {_PERSON} is {names.get(_PERSON)!r}.",
            hint="Use a detection network whose class 0 is person, as those trained on COCO are.",
        )


def _of_one_shape(pictures: Sequence[NDArray[np.uint8]]) -> Iterator[list[int]]:
    groups = defaultdict(list)
    for i, picture in enumerate(pictures):
        groups[picture.shape].append(i)
    yield from groups.values()


def _box(xyxy: Sequence[float], image: Image) -> Box:
    """In whole pixels, the nearest, and at least one."""
    x0, y0, x1, y1 = map(round, xyxy)
    x0, y0 = min(x0, image.width - 1), min(y0, image.height - 1)
    return Box(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))
