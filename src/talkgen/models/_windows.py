"""Squares cut out of a picture for a network, and the way back.

Coordinates are continuous: the picture's top left corner is (0, 0), its first pixel's centre is
(0.5, 0.5).
"""

from __future__ import annotations

from math import cos, sin
from typing import TYPE_CHECKING

import attrs
import numpy as np

from talkgen.requirements import explained

with explained():
    import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Window", "turned"]


@attrs.frozen
class Window:
    """A square of a picture; it may be turned, and may reach outside.

    Attributes:
        x: Its centre, in pixels.
        y: Its centre, in pixels.
        side: Pixels.
        angle: Radians; positive turns its top right corner down.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    def to_picture(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Points in 0..1 of the window, shape (n, 2), in pixels of the picture."""
        centre = np.array([self.x, self.y])
        return np.asarray(turned((points - 0.5) * self.side, self.angle) + centre, np.float32)

    def sample(self, pixels: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        """The window's content, black outside of the picture.

        Args:
            pixels: RGB or RGBA, shape (height, width, 3 or 4); alpha is ignored.
            size: Side of the result in pixels.

        Returns:
            RGB in 0..1, shape (size, size, 3).
        """
        part, origin, scale = self._shrunk(pixels, size)
        axes = _axes(self.angle) * self.side / size / scale[:, None]
        centre = (np.array([self.x, self.y]) - origin) / scale
        # OpenCV counts from pixel centres: half a pixel is taken off on both sides.
        shift = centre - axes @ [size / 2 - 0.5, size / 2 - 0.5] - 0.5
        sampled = cv2.warpAffine(
            part,
            np.column_stack([axes, shift]),
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        return np.asarray(sampled, np.float32) / np.float32(255)

    def _shrunk(
        self, pixels: NDArray[np.uint8], size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
        """The window's surroundings, averaged down so that sampling them does not alias.

        Returns:
            Their pixels, where they begin in the picture, and pixels of the picture per pixel.
        """
        height, width = pixels.shape[:2]
        reach = self.side / 2 * (abs(cos(self.angle)) + abs(sin(self.angle))) + 1
        x0, x1 = _bounds(self.x, reach, width)
        y0, y1 = _bounds(self.y, reach, height)
        part = np.ascontiguousarray(pixels[y0:y1, x0:x1, :3])
        factor = self.side / size
        if factor > 1:
            smaller = (max(1, round((x1 - x0) / factor)), max(1, round((y1 - y0) / factor)))
            part = np.asarray(cv2.resize(part, smaller, interpolation=cv2.INTER_AREA), np.uint8)
        scale = np.array([(x1 - x0) / part.shape[1], (y1 - y0) / part.shape[0]])
        return part, np.array([x0, y0], float), np.asarray(scale, float)


def turned(points: NDArray[np.floating], angle: float) -> NDArray[np.float32]:
    """Points of shape (n, 2) about the origin; a positive angle takes the x axis down."""
    return np.asarray(points @ _axes(angle).T, np.float32)


def _axes(angle: float) -> NDArray[np.float64]:
    """Turned axes as columns."""
    c, s = cos(angle), sin(angle)
    return np.array([[c, -s], [s, c]], float)


def _bounds(centre: float, reach: float, length: int) -> tuple[int, int]:
    """Pixels from..to around the centre, at least one and inside 0..length."""
    first = min(max(int(centre - reach), 0), length - 1)
    return first, max(min(int(centre + reach) + 1, length), first + 1)
