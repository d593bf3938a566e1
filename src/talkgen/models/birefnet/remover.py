"""Cutting people out by BiRefNet: the extra `talkgen[birefnet]`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anyio.to_thread
import attrs

from talkgen.errors import ModelUnavailable
from talkgen.media import Image
from talkgen.models._precision import Half, check_device, check_half
from talkgen.models.birefnet import engine
from talkgen.models.birefnet.backbones import Backbone, backbone_of
from talkgen.models.birefnet.model import MattingModel
from talkgen.models.birefnet.variants import VARIANTS
from talkgen.models.weights import Weights, digest_of
from talkgen.requirements import explained, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from talkgen.protocols import GPUScheduler

__all__ = ["BiRefNetRemover"]

_PACKAGES = ("torch", "transformers", "safetensors", "huggingface_hub")

_MULTIPLE = 32


def _variant(_instance: object, _attribute: object, value: Any) -> None:
    if value not in VARIANTS:
        raise ValueError(f"variant={value!r}: must be one of {', '.join(VARIANTS)}")


def _size(_instance: object, _attribute: object, value: int | None) -> None:
    if value is not None and (value < _MULTIPLE or value % _MULTIPLE):
        raise ValueError(f"size={value}: must be a multiple of {_MULTIPLE}, at least one of it")


def _path(value: str | Path | None) -> Path | None:
    """The safetensors file at a path, or in a folder; not looked for yet."""
    if value is None:
        return None
    path = Path(value).expanduser().absolute()
    return path if path.suffix == ".safetensors" else path / "model.safetensors"


@attrs.frozen
class BiRefNetRemover:
    """Cuts out what is in front by BiRefNet: a `BackgroundRemover` whose result is final.

    Transparency that the picture has already is kept: the two are multiplied.

    Attributes:
        variant: The published checkpoint: general, lite (a fifth of the size), portrait,
            matting (finer hair), hr and hr-matting (2048 pixels), dynamic, lite-matting.
        weights: A file of the variant's own kind instead, a .safetensors or the folder of a
            `model.safetensors`. None: the hub's cache, where `python -m talkgen fetch` puts it.
        device: Where it may run: `auto`, a kind (`cpu`, `cuda`, `mps`), or one (`cuda:1`).
        half: fp16: `auto` on CUDA alone, True on whatever is no CPU, False nowhere.
        size: Side of the square that the network sees, in pixels, a multiple of 32; None takes
            the variant's. Where memory is short, 1024 and 512 are tried.
        tensorrt: Compile for the GPU that is there, once, which takes minutes.
        refine: Clear the old background out of the colours at soft edges.
        allow_downloads: Fetch weights that are not on this machine.

    Raises:
        ValueError: An option is none of these.
        talkgen.errors.MissingDependency: A package of the extra is absent.
    """

    refined: ClassVar[bool] = True

    variant: str = attrs.field(default="general", validator=_variant)
    weights: Path | None = attrs.field(default=None, converter=_path)
    device: str = attrs.field(default="auto", validator=check_device)
    half: Half = attrs.field(default="auto", validator=check_half)
    size: int | None = attrs.field(default=None, validator=_size)
    tensorrt: bool = False
    refine: bool = True
    allow_downloads: bool = attrs.field(default=False, kw_only=True, eq=False)

    def __attrs_post_init__(self) -> None:
        require(*_PACKAGES)

    @property
    def key(self) -> str:
        """The weights' content, the size, the precision, and what is done to the colours.

        It is asked for before anything runs: what is wrong with a file is told by `remove`.
        """
        try:
            key = self.model().key
        except ModelUnavailable:
            key = f"birefnet@{self.weights}"
        return f"{key}{'-refined' if self.refine else ''}"

    @property
    def shortfall(self) -> str | None:
        """What is less than asked for on this machine."""
        if self.tensorrt and not engine.available():
            return "torch_tensorrt is not installed: BiRefNet runs uncompiled."
        return None

    def model(self) -> MattingModel:
        """What the scheduler runs; reads a file of one's own through to know its content.

        Raises:
            talkgen.errors.ModelUnavailable: That file cannot be read, or is no BiRefNet.
        """
        variant = VARIANTS[self.variant]
        weights = self.weights or variant.weights
        digest, backbone = _known(weights, variant.backbone)
        return MattingModel(
            weights,
            digest,
            backbone,
            self.size or variant.size,
            self.device,
            self.half,
            self.tensorrt,
            self.allow_downloads,
        )

    async def remove(self, image: Image, *, scheduler: GPUScheduler) -> Image:
        """RGBA of the same size, alpha straight, its colours those of the person alone.

        Raises:
            talkgen.errors.ModelUnavailable: The weights are absent, damaged or no BiRefNet's.
            talkgen.errors.MissingDependency: A package of the extra is absent.
        """
        model = await anyio.to_thread.run_sync(self.model)
        alpha = await scheduler.run(model, image)
        return await anyio.to_thread.run_sync(_cut_out, image, alpha, self.refine)


def _cut_out(image: Image, alpha: NDArray[np.float32], refine: bool) -> Image:
    with explained():
        from talkgen.models.matting import estimate_foreground, with_alpha
    cut = with_alpha(image.pixels, alpha)
    if refine:
        cut[..., :3] = estimate_foreground(image.pixels, alpha)
    return Image(cut)


def _known(weights: Path | Weights, backbone: Backbone) -> tuple[str, Backbone]:
    if isinstance(weights, Weights):
        return weights.sha256, backbone
    digest = digest_of(weights)
    return digest, _backbone_in(weights, digest)


@lru_cache(maxsize=64)
def _backbone_in(path: Path, _digest: str) -> Backbone:
    with explained():
        from talkgen.models.birefnet.files import shapes
    return backbone_of(shapes(path))
