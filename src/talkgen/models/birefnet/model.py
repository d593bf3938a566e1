"""BiRefNet as the scheduler knows it: what it takes, where it may run, and how to load it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs

from talkgen.models._precision import Half, half_on, precision
from talkgen.models.birefnet.backbones import LARGE, LITE, Backbone
from talkgen.models.weights import Weights, located, verified
from talkgen.requirements import explained

if TYPE_CHECKING:
    from pathlib import Path

    from talkgen.models.birefnet.loaded import LoadedMatting

__all__ = ["MattingModel"]

# What a picture may be shrunk to where memory is short, in pixels.
_SMALLER = (1024, 512)

_PARAMETERS = {LARGE: 220_180_000, LITE: 44_310_000}

# Peaks beside the weights for one picture of 1024 x 1024. On GPUs an estimate: published are 8 GB
# in fp32 and 4 GB in fp16 for the large one with its weights, and the lite one needs 0.6 of the
# rest on a CPU. On the CPU measured, rounded up.
_WORKING = {
    ("gpu", "fp32", LARGE): 7_200_000_000,
    ("gpu", "fp16", LARGE): 3_600_000_000,
    ("gpu", "fp32", LITE): 4_300_000_000,
    ("gpu", "fp16", LITE): 2_200_000_000,
    ("cpu", "fp32", LARGE): 1_300_000_000,
    ("cpu", "fp32", LITE): 1_200_000_000,
}


@attrs.frozen
class MattingModel:
    """How much each pixel belongs to what is in front: `Model[Image, alpha]`.

    The alpha is `float32` in 0..1, shape (height, width) of the picture.

    Attributes:
        weights: A safetensors file, or what is pinned.
        sha256: Hexadecimal digest that the file must have.
        backbone: The network's size.
        size: Side of the square that the network sees at level 0, in pixels.
        device: Where it may run.
        half: fp16: `auto` on CUDA alone, True on whatever is no CPU.
        tensorrt: Compile for the GPU that is there.
        allow_downloads: Fetch pinned weights that are not on this machine.
    """

    weights: Path | Weights
    sha256: str
    backbone: Backbone
    size: int = 1024
    device: str = "auto"
    half: Half = "auto"
    tensorrt: bool = False
    allow_downloads: bool = attrs.field(default=False, eq=False)

    max_instances: ClassVar[int] = 1
    max_batch: ClassVar[int] = 1

    @property
    def key(self) -> str:
        """The backbone, the file's content, the size, the precision and what runs it."""
        engine = "-tensorrt" if self.tensorrt else ""
        name = f"birefnet-{self.backbone.name}@{self.sha256[:12]}"
        return f"{name}-{self.size}-{precision(self.half)}{engine}"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The side that the network sees at each level, in pixels."""
        return (self.size, *(side for side in _SMALLER if side < self.size))

    @property
    def levels(self) -> int:
        """How many sizes there are."""
        return len(self.sizes)

    def vram_bytes(self, device: str) -> int:
        """Peak memory of one instance at level 0; on GPUs an estimate."""
        half = self.half_on(device)
        where = "cpu" if device == "cpu" else "gpu"
        weights = _PARAMETERS[self.backbone] * (2 if half else 4)
        working = _WORKING[where, precision(half), self.backbone]
        return weights + int(working * (self.size / 1024) ** 2)

    def half_on(self, device: str) -> bool:
        """Whether it runs in fp16 there.

        Never on a CPU, and there is no bf16 either: with random weights its masks are off by as
        much as 0.14, for a third of the time.
        """
        return half_on(self.half, device)

    def load(self, device: str) -> LoadedMatting:
        """Load the network.

        Raises:
            talkgen.errors.ModelUnavailable: The file is absent, damaged, or no BiRefNet.
            talkgen.errors.MissingDependency: A package of the extra is absent.
        """
        file = self.file()
        with explained():
            from talkgen.models.birefnet.loaded import LoadedMatting
        return LoadedMatting(self, file, device)

    def file(self) -> Path:
        """The weights on this machine.

        Raises:
            talkgen.errors.ModelUnavailable: They are absent, or not those that were meant.
        """
        if isinstance(self.weights, Weights):
            return located(self.weights, allow_downloads=self.allow_downloads)
        return verified(self.weights, self.sha256)
