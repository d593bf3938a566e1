"""MediaPipe's face mesh; sizes, ranges and the gate follow its model card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from talkgen.models._faces import LANDMARKS, FaceCrop, FaceMesh, bounds
from talkgen.models._litert import Network, sigmoid
from talkgen.models._windows import Window, turned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from talkgen.models._assets import Asset

__all__ = ["LoadedFaceMesh"]

# Side of the input in pixels.
_SIZE = 192

# How much wider than the face its crop is.
_SURROUNDINGS = 1.5

# Below it the points are a guess at something that is no face. The published gate is 0.5; blurred
# crowds pass that now and then, and faces are 0.95 and above, but for profiles.
_LOWEST_PRESENCE = 0.7

# The detector's box is rough, and the mesh follows its crop: each look at where the last one
# saw the face halves the spread of the points. After three it is 0.003 eye distances on a
# frontal face, from boxes off by a tenth.
_LOOKS = 3


class LoadedFaceMesh:
    """The face mesh, ready to run."""

    def __init__(self, asset: Asset) -> None:
        """Load the network."""
        self._network = Network(asset)

    def run(self, batch: Sequence[FaceCrop], *, level: int = 0) -> list[FaceMesh | None]:  # noqa: ARG002 - there is one
        """The landmarks of each face, or None where the network sees none."""
        return [self._mesh(crop) for crop in batch]

    def close(self) -> None:
        """Free the memory."""
        self._network.close()

    def _mesh(self, crop: FaceCrop) -> FaceMesh | None:
        window, presence = _around(crop.box, crop.roll), 1.0
        for _ in range(_LOOKS):
            points, present = self._look(crop.image.pixels, window)
            presence = min(presence, present)
            # Without this a guess may wander until the network believes in it.
            if presence < _LOWEST_PRESENCE:
                return None
            mesh = FaceMesh(points, presence, crop.score)
            window = _around_mesh(mesh)
        return mesh

    def _look(self, pixels: NDArray[np.uint8], window: Window) -> tuple[NDArray[np.float32], float]:
        values, logit = self._network.run(window.sample(pixels, _SIZE))
        relative = values.reshape(LANDMARKS, 3) / _SIZE
        flat, depth = window.to_picture(relative[:, :2]), relative[:, 2:] * np.float32(window.side)
        return np.hstack([flat, depth]), float(sigmoid(logit).item())


def _around(box: tuple[float, float, float, float], roll: float) -> Window:
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0) * _SURROUNDINGS
    return Window((x0 + x1) / 2, (y0 + y1) / 2, side, roll)


def _around_mesh(mesh: FaceMesh) -> Window:
    """The crop around the points as they are with the eyes level."""
    level = _around(bounds(turned(mesh.points[:, :2], -mesh.roll)), mesh.roll)
    ((x, y),) = turned(np.array([[level.x, level.y]]), mesh.roll)
    return Window(float(x), float(y), level.side, mesh.roll)
