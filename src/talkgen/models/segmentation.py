"""Person and background, by the network in the wheel."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import anyio.to_thread
import attrs

from talkgen.media import Image
from talkgen.models._assets import PEAK_BYTES, SELFIE_SEGMENTATION

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from talkgen.models._selfie import LoadedSelfieSegmentation
    from talkgen.protocols import GPUScheduler

__all__ = ["SelfieRemover", "SelfieSegmentationModel"]


@attrs.frozen
class SelfieSegmentationModel:
    """How much each pixel belongs to a person: `Model[Image, alpha]`.

    The alpha is `float32` in 0..1, shape (height, width) of the picture, without detail beyond
    256 pixels along each side.
    """

    device: ClassVar[str] = "cpu"
    max_instances: ClassVar[int] = 2
    max_batch: ClassVar[int] = 8
    levels: ClassVar[int] = 1

    @property
    def key(self) -> str:
        """The network's file and its content."""
        return SELFIE_SEGMENTATION.key

    def vram_bytes(self, device: str) -> int:  # noqa: ARG002 - it runs on the CPU, whatever there is
        """Peak memory of one instance."""
        return PEAK_BYTES

    def load(self, device: str) -> LoadedSelfieSegmentation:  # noqa: ARG002 - as above
        """Load the network.

        Raises:
            talkgen.errors.ModelUnavailable: Its file is absent or damaged.
            talkgen.errors.MissingDependency: The runtime cannot be had on this machine.
        """
        from talkgen.models._selfie import LoadedSelfieSegmentation

        return LoadedSelfieSegmentation(SELFIE_SEGMENTATION)


@attrs.frozen
class SelfieRemover:
    """Cuts persons out by the selfie segmentation: the embedded `BackgroundRemover`.

    Transparency that the picture has already is kept: the two are multiplied.
    """

    @property
    def key(self) -> str:
        """The network."""
        return SelfieSegmentationModel().key

    async def remove(self, image: Image, *, scheduler: GPUScheduler) -> Image:
        """RGBA of the same size, alpha straight, as the network gives it.

        Raises:
            talkgen.errors.ModelUnavailable: The network's file is absent or damaged.
        """
        alpha = await scheduler.run(SelfieSegmentationModel(), image)
        return await anyio.to_thread.run_sync(_cut_out, image, alpha)


def _cut_out(image: Image, alpha: NDArray[np.float32]) -> Image:
    from talkgen.models.matting import with_alpha

    return Image(with_alpha(image.pixels, alpha))
