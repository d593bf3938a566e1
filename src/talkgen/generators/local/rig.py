"""What posing a portrait rests on: the face's frame of reference, and fields that move skin.

Shapes live in the face's own frame: the origin between the lips, u along the eyes towards the
picture's right, v down the face, n into it, the distance between the eyes in space as unit. So a
face that is turned aside moves as one that is not, and the picture foreshortens it. Landmark
numbers are those of MediaPipe's 468-point mesh. Pixels are counted as the mesh does: the first
one's middle is at 0.5.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Box", "Face", "Floats", "Grid", "Layer", "places", "sampled", "smoothstep"]

Floats: TypeAlias = "NDArray[np.floating[Any]]"

EYE_CORNERS = ([33, 133], [362, 263])
MOUTH_CORNERS, LIPS = [61, 291], [13, 14]

BENT_REACH = 0.6  # u to which lips and cheeks lie around the teeth
LEAST_SEEN = 0.35  # of the plane's own foreshortening, where a bent face turns out of sight

FIXED_POINT_STEPS = 4  # the fields' slope is at most one half: what is left is a sixteenth


def sampled(picture: NDArray[Any], source: Floats, interpolation: int = cv2.INTER_LINEAR) -> Any:
    """The picture at other places, counted from the first pixel's middle; beyond its edges, them.

    Args:
        picture: Shape (height, width) or (height, width, channels).
        source: x and y of every pixel of the result, shape (h, w, 2).
        interpolation: OpenCV's constant.
    """
    # None for the second map, which the stubs forbid: OpenCV 5 reads an empty array as one.
    return cv2.remap(picture, source, None, interpolation, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def places(height: int, width: int) -> Floats:
    """Each pixel's x and y, as `sampled` counts them."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


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
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """For an array of (height, width, ...)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def within(self, other: Box) -> Box:
        """The same part, counted from the corner of a box around it."""
        return Box(self.x0 - other.x0, self.y0 - other.y0, self.x1 - other.x0, self.y1 - other.y0)


@attrs.frozen(eq=False)
class Face:
    """The face's own frame in a picture: a plane that is turned as the head is, or a bent one.

    The plane goes through the eyes and the corners of the mouth, and is seen from far away. A bent
    face falls back to both sides of the mouth, as lips lie around teeth; before it would fold out
    of sight it goes on straight, so that each pixel has one place on it.

    Attributes:
        points: `float32`, shape (468, 3), pixels; z is smaller towards the camera.
        width: Of the picture.
        height: Of the picture.
        bend: How far it falls back at u = 1, as u squared, 0 or more; 0 is the plane.
    """

    points: Floats
    width: int
    height: int
    bend: float = 0.0

    @cached_property
    def unit(self) -> float:
        """The distance between the eyes, in space, in pixels."""
        return float(np.linalg.norm(self._eyes[1] - self._eyes[0]))

    @cached_property
    def axes(self) -> Floats:
        """Rows u, v and n (into the face), as the picture shows them: pixels for each unit."""
        return np.asarray(self._space[:, :2] * self.unit, np.float32)

    @cached_property
    def origin(self) -> Floats:
        """Between the lips, in pixels."""
        return np.asarray(self.points[LIPS, :2].mean(axis=0), np.float32)

    @property
    def turn(self) -> float:
        """How far the head is turned aside, in degrees; positive to the picture's right."""
        return math.degrees(math.asin(self._space[0, 2]))

    @property
    def whole(self) -> Box:
        """All of the picture."""
        return Box(0, 0, self.width, self.height)

    def bent(self) -> Face:
        """The same, bent so that the corners of the mouth lie on it."""
        u, _, n = self._space @ (self.points[MOUTH_CORNERS] - self.points[LIPS].mean(axis=0)).T
        return attrs.evolve(self, bend=max(0.0, float(n.sum() / (u**2).sum()) * self.unit))

    def local(self, points: Floats) -> Floats:
        """Pixels, shape (..., 2), to (u, v)."""
        away, (across, down, inwards) = points - self.origin, self.axes
        u = self._unbent(_cross(away, down))
        flat = away - u[..., None] * across - self._fall(u)[..., None] * inwards
        return np.asarray(np.stack([u, flat @ down / (down @ down)], axis=-1), np.float32)

    def pixels(self, points: Floats) -> Floats:
        """(u, v), shape (..., 2), to pixels."""
        places = np.concatenate([points, self._fall(points[..., :1])], axis=-1)
        return np.asarray(places @ self.axes + self.origin, np.float32)

    def ways(self, at: Floats, u: Floats, v: Floats, n: Floats | float = 0.0) -> Floats:
        """Movements in eye distances to pixels, shape (..., 2).

        Args:
            at: The u of the places that move.
            u: Along the face.
            v: Down the face.
            n: Into the face.
        """
        slope = 2 * self.bend * np.clip(at, *self._bent_within)
        return np.asarray(np.stack([u, v, n + u * slope], axis=-1) @ self.axes, np.float32)

    def height_of(self, landmark: int) -> float:
        """Its v."""
        return float(self.local(self.points[landmark, :2])[1])

    def contour(self, landmarks: tuple[int, ...]) -> Floats:
        """Landmarks in (u, v), by rising u."""
        local = self.local(self.points[list(landmarks), :2])
        return np.asarray(local[np.argsort(local[:, 0])], np.float32)

    def box(self, u: tuple[float, float], v: tuple[float, float]) -> Box:
        """The upright rectangle around a rectangle in (u, v), cut at the picture's edges."""
        corners = self.pixels(np.array([(a, b) for a in u for b in v], np.float32))
        size = np.array([self.width, self.height])
        x0, y0 = np.clip(np.floor(corners.min(axis=0)), 0, size - 2)
        x1, y1 = np.clip(np.ceil(corners.max(axis=0)), [x0 + 2, y0 + 2], size)
        return Box(int(x0), int(y0), int(x1), int(y1))

    @cached_property
    def _eyes(self) -> Floats:
        """The eyes' centres in space, the picture's left one first."""
        return np.array([self.points[corners].mean(axis=0) for corners in EYE_CORNERS], np.float32)

    @cached_property
    def _space(self) -> Floats:
        """Unit vectors along the eyes, down to the mouth, and into the face, shape (3, 3)."""
        across = (self._eyes[1] - self._eyes[0]) / self.unit
        down = self.points[MOUTH_CORNERS].mean(axis=0) - self._eyes.mean(axis=0)
        down = down - across * (down @ across)
        down = down / np.linalg.norm(down)
        return np.array([across, down, np.cross(across, down)], np.float32)

    @cached_property
    def _bent_within(self) -> tuple[float, float]:
        """The u between which it is bent; straight beyond."""
        low, high = -BENT_REACH, BENT_REACH
        across, down, inwards = self.axes
        seen, turning = _cross(across, down), 2 * self.bend * _cross(inwards, down)
        # Doubles: a face that hardly turns bends over as far away as none, which is no overflow.
        fold = (LEAST_SEEN - 1) * float(seen) / float(turning) if turning else low
        return (max(low, fold), high) if turning >= 0 else (low, min(high, fold))

    def _fall(self, u: Floats) -> Floats:
        """How far the face has fallen back at u."""
        near = np.clip(u, *self._bent_within)
        return np.asarray(self.bend * near * (2 * u - near), np.float32)

    def _unbent(self, seen: Floats) -> Floats:
        """The u that is seen so far across the picture, in pixels times pixels of the v axis.

        The root of a quadratic equation where the face is bent.
        """
        across, down, inwards = self.axes
        a, b = _cross(across, down), self.bend * _cross(inwards, down)
        low, high = self._bent_within
        first, last = ((a + b * end) * end for end in (low, high))
        near = np.clip(seen, first, last)
        inside = 2 * near / (a + np.sqrt(a * a + 4 * b * near))
        before = np.minimum(seen - first, 0) / (a + 2 * b * low)
        return np.asarray(inside + before + np.maximum(seen - last, 0) / (a + 2 * b * high))


def _cross(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[..., 0] * b[1] - a[..., 1] * b[0])


@attrs.frozen(eq=False)
class Grid:
    """Points over a box, one for every few pixels: what is smooth need not be known at each.

    Attributes:
        box: The part of the picture.
        step: Pixels from point to point.
    """

    box: Box
    step: int = 1

    @property
    def pixels(self) -> Floats:
        """The points in pixels of the picture, amid their cells, shape (rows, columns, 2)."""
        height, width = (-(-side // self.step) for side in self.box.shape)
        corner = np.array([self.box.x0, self.box.y0], np.float32)
        return (places(height, width) + np.float32(0.5)) * np.float32(self.step) + corner

    @cached_property
    def here(self) -> Floats:
        """Every pixel of the box, as `sampled` counts them."""
        return places(*self.box.shape)

    def enlarged(self, values: Floats) -> Floats:
        """Values at the points, shape (rows, columns, channels), to one for each pixel."""
        if self.step == 1:
            return values
        rows, columns = values.shape[:2]
        height, width = self.box.shape
        full = cv2.resize(values, (columns * self.step, rows * self.step))
        return np.asarray(full[:height, :width], np.float32)


@attrs.frozen(eq=False)
class Layer:
    """A piece of skin that moves as one.

    Attributes:
        grid: Where the fields are known.
        fields: For each number of the pose, the way in pixels that a point of the photo goes when
            the number is 1, shape (numbers, rows, columns, 2).
    """

    grid: Grid
    fields: Floats

    def source(self, numbers: tuple[float, ...]) -> Floats:
        """Where each pixel of the box comes from, in the box, as `sampled` takes it.

        The fields tell where points go; a few fixed-point steps turn that around.
        """
        way = np.tensordot(np.asarray(numbers, np.float32), self.fields, axes=1)
        here = places(*way.shape[:2])
        back: Floats = way
        for _ in range(FIXED_POINT_STEPS):
            back = sampled(way, here - back / self.grid.step)
        return self.grid.here - self.grid.enlarged(back)
