"""A portrait prepared for moving: computed once, used for every frame.

All shapes live in the face's own frame: the origin between the lips, u along the eyes towards the
picture's right, v downwards along the face, the unit the distance between the eyes. Landmark
numbers are those of MediaPipe's 468-point mesh.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Box", "Face", "Layer", "sampled", "smoothstep"]

Floats: TypeAlias = "NDArray[np.float32]"

EYE_CORNERS = ((33, 133), (362, 263))

FIXED_POINT_STEPS = 4  # the fields' slope is at most one half: what is left is a sixteenth


def sampled(picture: NDArray[Any], source: Floats, interpolation: int = cv2.INTER_LINEAR) -> Any:
    """The picture at other places; beyond its edges, the edge."""
    # None for the second map, which the stubs forbid: OpenCV 5 reads an empty array as one.
    return cv2.remap(picture, source, None, interpolation, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def smoothstep(low: float, high: float, x: Floats) -> Floats:
    """0 below `low`, 1 above `high`, smooth in between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


@attrs.frozen
class Box:
    """A part of the picture, whole pixels, inside it."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """For an array of (height, width, ...)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


@attrs.frozen(eq=False)
class Face:
    """The face's own frame in a picture.

    Attributes:
        points: `float32`, shape (468, 2), pixels.
        width: Of the picture.
        height: Of the picture.
    """

    points: Floats
    width: int
    height: int

    @cached_property
    def eyes(self) -> Floats:
        """The two eyes' centres, the picture's left one first, shape (2, 2)."""
        return np.array([self.points[list(c)].mean(axis=0) for c in EYE_CORNERS], np.float32)

    @cached_property
    def unit(self) -> float:
        """The distance between the eyes in pixels."""
        return float(np.hypot(*(self.eyes[1] - self.eyes[0])))

    @cached_property
    def axes(self) -> Floats:
        """Rows u and v, as pixels for each unit."""
        right = self.eyes[1] - self.eyes[0]
        return np.array([right, (-right[1], right[0])], np.float32)

    @cached_property
    def origin(self) -> Floats:
        """Between the lips, in pixels."""
        return np.asarray(self.points[[13, 14]].mean(axis=0), np.float32)

    def local(self, points: Floats) -> Floats:
        """Pixels to (u, v)."""
        return np.asarray((points - self.origin) @ self.axes.T / self.unit**2, np.float32)

    def contour(self, indices: tuple[int, ...]) -> Floats:
        """Landmarks in (u, v), by rising u."""
        local = self.local(self.points[list(indices)])
        return np.asarray(local[np.argsort(local[:, 0])], np.float32)

    def pixels(self, places: Floats) -> Floats:
        """(u, v), shape (..., 2), to pixels."""
        return np.asarray(places @ self.axes + self.origin, np.float32)

    def ways(self, u: Floats, v: Floats) -> Floats:
        """Movements in eye distances, along u and v, to pixels, shape (..., 2)."""
        return np.asarray(np.stack([u, v], axis=-1) @ self.axes, np.float32)

    def box(self, u: tuple[float, float], v: tuple[float, float]) -> Box:
        """The upright rectangle around a rectangle in (u, v), cut at the picture's edges."""
        corners = self.pixels(np.array([(a, b) for a in u for b in v], np.float32))
        size = np.array([self.width, self.height])
        x0, y0 = np.clip(np.floor(corners.min(axis=0)), 0, size - 2)
        x1, y1 = np.clip(np.ceil(corners.max(axis=0)), 2, size)
        return Box(int(x0), int(y0), int(x1), int(y1))

    def grid(self, box: Box) -> tuple[Floats, Floats]:
        """(u, v) of the middle of every pixel of a box."""
        y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1].astype(np.float32) + 0.5
        local = self.local(np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(*x.shape, 2)
        return local[..., 0], local[..., 1]


@attrs.frozen(eq=False)
class Layer:
    """A piece of skin that moves as one.

    Attributes:
        mask: Where it is in the photo, 0..1; more channels may go along with it.
        fields: For each number of the pose, the way in pixels that a point of the photo goes when
            the number is 1, shape (numbers, height, width, 2).
    """

    mask: Floats
    fields: Floats

    def source(self, numbers: tuple[float, ...]) -> Floats:
        """Where each pixel of the box comes from, in pixels of the box, shape (h, w, 2).

        The fields tell where points go; a few fixed-point steps turn that around.
        """
        way = np.tensordot(np.asarray(numbers, np.float32), self.fields, axes=1)
        height, width = way.shape[:2]
        y, x = np.mgrid[:height, :width].astype(np.float32)
        here = np.stack([x, y], axis=-1)
        source = here - way
        for _ in range(FIXED_POINT_STEPS):
            source = here - sampled(way, source)
        return np.asarray(source, np.float32)

    def warped(
        self, part: NDArray[np.uint8], numbers: tuple[float, ...]
    ) -> tuple[Floats, Floats]:
        """The box's pixels and the mask where the pose has them."""
        source = self.source(numbers)
        pixels = sampled(part, source, cv2.INTER_CUBIC)
        return np.asarray(pixels, np.float32), sampled(self.mask, source)
