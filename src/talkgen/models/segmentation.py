"""Person and background, by the network in the wheel."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import anyio.to_thread
import attrs

from talkgen.media import Image
from talkgen.models._assets import PEAK_BYTES, SELFIE_SEGMENTATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from talkgen.protocols import GPUScheduler

__all__ = ["SelfieRemover", "SelfieSegmentationModel"]


@attrs.frozen
class SelfieSegmentationModel:
    """How much each pixel belongs to a person: `Model[Image, alpha]`.

    The alpha is `float32` in 0..1, shape (height, width) of the picture, without detail beyond
    256 pixels along each side.
    """

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
        return LoadedSelfieSegmentation()


_SIZE = 256


class LoadedSelfieSegmentation:
    """The segmentation, ready to run."""

    def __init__(self) -> None:
        """Load the network."""
        from talkgen.models._litert import Network

        self._network = Network(SELFIE_SEGMENTATION)

    def run(self, batch: Sequence[Image], *, level: int = 0) -> list[NDArray[np.float32]]:  # noqa: ARG002 - there is one
        """The alpha of each picture."""
        return [self._alpha(image.pixels) for image in batch]

    def close(self) -> None:
        """Free the memory."""
        self._network.close()

    def _alpha(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        import cv2
        import numpy as np

        # The network was trained on pictures of any shape squeezed into its square.
        height, width = pixels.shape[:2]
        small = cv2.resize(pixels[..., :3], (_SIZE, _SIZE), interpolation=cv2.INTER_AREA)
        (mask,) = self._network.run(small.astype(np.float32) / np.float32(255))
        grown = cv2.resize(mask[..., 0], (width, height), interpolation=cv2.INTER_CUBIC)
        return np.clip(grown, 0, 1).astype(np.float32)


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
    import numpy as np

    opacity = image.pixels[..., 3].astype(np.float32) if image.has_alpha else np.float32(255)
    return Image(np.dstack([image.pixels[..., :3], np.rint(alpha * opacity).astype(np.uint8)]))
