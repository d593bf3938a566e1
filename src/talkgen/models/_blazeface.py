"""MediaPipe's BlazeFace detectors.

Input sizes, anchors, ranges and the order of the outputs follow the model cards and the graph
options that MediaPipe publishes with the networks.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import attrs
import numpy as np

from talkgen.models._faces import Face, suppress
from talkgen.models._litert import Network, sigmoid
from talkgen.models._windows import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from talkgen.media import Image
    from talkgen.models._assets import Asset

__all__ = ["FAR", "NEAR", "BlazeFace", "LoadedBlazeFace", "tiles"]


@attrs.frozen
class BlazeFace:
    """A detector's shape.

    Attributes:
        size: Side of its input in pixels.
        layers: For each grid of anchors, its stride in pixels and the anchors on each place.
        tiled: Look at overlapping parts of the picture, too.
    """

    size: int
    layers: tuple[tuple[int, int], ...]
    tiled: bool

    def anchors(self) -> NDArray[np.float32]:
        """Their centres in 0..1 of the input, shape (n, 2), in the order of the outputs."""
        return np.concatenate([_grid(self.size // stride, each) for stride, each in self.layers])


def _grid(places: int, each: int) -> NDArray[np.float32]:
    centres = (np.arange(places, dtype=np.float32) + 0.5) / places
    x, y = np.meshgrid(centres, centres)
    return np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), each, axis=0)


NEAR = BlazeFace(size=128, layers=((8, 2), (16, 6)), tiled=False)
FAR = BlazeFace(size=192, layers=((4, 1),), tiled=True)

# Below this a detector's answers are noise.
_LOWEST_SCORE = 0.1

# The suppression threshold that MediaPipe publishes for both.
_SAME_FACE = 0.3


class LoadedBlazeFace:
    """A face detector, ready to run."""

    def __init__(self, asset: Asset, detector: BlazeFace) -> None:
        """Load the network."""
        self._detector = detector
        self._anchors = detector.anchors()
        self._network = Network(asset)

    def run(self, batch: Sequence[Image], *, level: int = 0) -> list[tuple[Face, ...]]:  # noqa: ARG002 - there is one
        """The faces of each picture, highest score first; scores from 0.1.

        A face is handed out once for every window that shows it: in profile it is seen in many
        places, of which only some lead to a mesh.
        """
        return [self._detect(image) for image in batch]

    def close(self) -> None:
        """Free the memory."""
        self._network.close()

    def _detect(self, image: Image) -> tuple[Face, ...]:
        windows = [Window(image.width / 2, image.height / 2, max(image.width, image.height))]
        if self._detector.tiled:
            windows += tiles(image.width, image.height)
        found = [face for window in windows for face in self._look(image.pixels, window)]
        return tuple(sorted(found, key=lambda face: -face.score))

    def _look(self, pixels: NDArray[np.uint8], window: Window) -> tuple[Face, ...]:
        found = sorted(self._answers(pixels, window), key=lambda face: -face.score)
        return suppress(found, _SAME_FACE)

    def _answers(self, pixels: NDArray[np.uint8], window: Window) -> Iterator[Face]:
        size = self._detector.size
        values, logits = self._network.run(window.sample(pixels, size) * 2 - 1)
        scores = sigmoid(logits[:, 0])
        for i in np.flatnonzero(scores >= _LOWEST_SCORE):
            yield _decoded(values[i] / size, self._anchors[i], float(scores[i]), window)


def _decoded(
    values: NDArray[np.float32], anchor: NDArray[np.float32], score: float, window: Window
) -> Face:
    """A face from one answer: centre, size and keypoints, all but the size from the anchor."""
    centre, half = values[:2] + anchor, values[2:4] / 2
    points = np.vstack([centre - half, centre + half, values[4:].reshape(6, 2) + anchor])
    placed = window.to_picture(points)
    (x0, y0), (x1, y1) = placed[:2].tolist()
    return Face((x0, y0, x1, y1), score, placed[2:])


# A face of 32 pixels, the smallest that is worth animating, is 10 of the network's in a tile.
_TILE = 640
_TILES_ALONG = 6
_TILE_OVERLAP = 0.3


def tiles(width: int, height: int) -> list[Window]:
    """Overlapping squares that cover a picture; none where the picture is not larger than one.

    Args:
        width: The picture's, in pixels.
        height: The picture's, in pixels.
    """
    # In huge pictures they grow, so that their number stays bounded.
    side = max(_TILE, max(width, height) / _TILES_ALONG)
    if max(width, height) <= side:
        return []
    return [Window(x, y, side) for y in _centres(height, side) for x in _centres(width, side)]


def _centres(length: int, side: float) -> list[float]:
    """Centres of the fewest squares that overlap enough, spread evenly from edge to edge."""
    if length <= side:
        return [length / 2]
    steps = ceil((length - side) / (side * (1 - _TILE_OVERLAP)))
    return [side / 2 + (length - side) * i / steps for i in range(steps + 1)]
