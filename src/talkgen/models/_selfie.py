"""MediaPipe's selfie segmentation; size and range follow its model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from talkgen.models._litert import Network
from talkgen.requirements import explained

with explained():
    import cv2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from talkgen.media import Image
    from talkgen.models._assets import Asset

    Pixels: TypeAlias = NDArray[np.uint8]
    Floats: TypeAlias = NDArray[np.float32]

__all__ = ["LoadedSelfieSegmentation"]

# Side of the input in pixels.
_SIZE = 256

# What the picture takes of it: all, or less, with its edges repeated around it. Cut shoulders
# are lost at the border of the one, thin things in the other.
_INNER_SIZES = (256, 204)


class LoadedSelfieSegmentation:
    """The segmentation, ready to run."""

    def __init__(self, asset: Asset) -> None:
        """Load the network."""
        self._network = Network(asset)

    def run(self, batch: Sequence[Image], *, level: int = 0) -> list[Floats]:  # noqa: ARG002 - there is one
        """The alpha of each picture."""
        return [self._alpha(image.pixels) for image in batch]

    def close(self) -> None:
        """Free the memory."""
        self._network.close()

    def _alpha(self, pixels: Pixels) -> Floats:
        """The mean of four looks: at both sizes, as it is and mirrored."""
        rgb = np.ascontiguousarray(pixels[..., :3])
        mean = np.zeros(rgb.shape[:2], np.float32)
        for inner in _INNER_SIZES:
            mean += self._look(rgb, inner)
        mean /= len(_INNER_SIZES)
        return np.clip(mean, 0, 1, out=mean)

    def _look(self, rgb: Pixels, inner: int) -> Floats:
        # The network has learned pictures of any shape squeezed into its square.
        small = cv2.resize(rgb, (inner, inner), interpolation=cv2.INTER_AREA)
        edge = (_SIZE - inner) // 2
        framed = cv2.copyMakeBorder(small, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
        square = np.asarray(framed, np.float32) / np.float32(255)
        mask = (self._mask(square) + self._mask(square[:, ::-1])[:, ::-1]) / 2
        within = mask[edge : _SIZE - edge, edge : _SIZE - edge]
        height, width = rgb.shape[:2]
        return np.asarray(
            cv2.resize(within, (width, height), interpolation=cv2.INTER_CUBIC), np.float32
        )

    def _mask(self, square: Floats) -> Floats:
        mask: Floats = self._network.run(square)[0][..., 0]
        return mask
