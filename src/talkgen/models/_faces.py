"""Faces as values, and the decisions about them."""

from __future__ import annotations

from math import atan2, hypot, sqrt
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from talkgen.media import Image

__all__ = ["LANDMARKS", "Bounds", "Face", "FaceCrop", "FaceMesh", "prominence", "suppress"]

Bounds: TypeAlias = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""

LANDMARKS = 468
"""Points of a mesh."""

# Of them the eyes' corners, outer and inner, and the ends of the face's outline by the ears.
RIGHT_EYE = [33, 133]
LEFT_EYE = [263, 362]
TEMPLES = [234, 454]


@attrs.frozen(eq=False)
class Face:
    """A face as a detector sees it.

    Attributes:
        box: x0, y0, x1, y1 in pixels, from the brows to the chin; it may reach outside.
        score: 0..1.
        keypoints: `float32`, shape (6, 2): right eye, left eye, tip of the nose, mouth, right
            ear, left ear; x and y in pixels.
    """

    box: Bounds
    score: float
    keypoints: NDArray[np.float32]

    @property
    def roll(self) -> float:
        """The angle of the line from eye to eye in radians; positive where the left is lower."""
        return _angle(*self.keypoints[:2])


@attrs.frozen(eq=False)
class FaceCrop:
    """What the mesh looks at.

    Attributes:
        image: The picture.
        box: x0, y0, x1, y1 of the face in pixels, give or take a fifth.
        roll: The angle of its eyes in radians; positive where the left is lower.
        score: How sure it is that this is a face, 0..1.
    """

    image: Image
    box: Bounds
    roll: float = 0.0
    score: float = 1.0

    @classmethod
    def around(cls, image: Image, landmarks: NDArray[np.float32]) -> FaceCrop:
        """The crop of a face whose landmarks are known: a mesh's, shape (468, 2 or 3)."""
        return cls(image, bounds(landmarks), roll(landmarks))


@attrs.frozen(eq=False)
class FaceMesh:
    """The landmarks of a face, in MediaPipe's canonical numbering.

    Attributes:
        points: `float32`, shape (468, 3): x and y in pixels of the picture, z in the same unit,
            smaller towards the camera and about 0 at the middle of the head.
        presence: How sure the network is that there is a face, 0..1.
        score: How sure the detector was, 0..1.
    """

    points: NDArray[np.float32]
    presence: float
    score: float = 1.0

    @property
    def confidence(self) -> float:
        """The geometric mean of the two networks' answers, 0..1."""
        return sqrt(self.presence * self.score)

    @property
    def box(self) -> Bounds:
        """x0, y0, x1, y1 around the points in pixels."""
        return bounds(self.points)

    @property
    def right_eye(self) -> NDArray[np.float32]:
        """Between the corners of the right eye, (x, y) in pixels."""
        return self._middle(RIGHT_EYE)[:2]

    @property
    def left_eye(self) -> NDArray[np.float32]:
        """Between the corners of the left eye, (x, y) in pixels."""
        return self._middle(LEFT_EYE)[:2]

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the head's width, at the height of the eyes: x and y in pixels.

        Between the eyes if the face looks straight; behind them if it is turned.
        """
        x, _, _ = self._middle(TEMPLES).tolist()
        _, y, _ = self._middle(RIGHT_EYE + LEFT_EYE).tolist()
        return x, y

    @property
    def eye_distance(self) -> float:
        """From eye to eye in the picture, in pixels."""
        return hypot(*(self.left_eye - self.right_eye))

    @property
    def scale(self) -> float:
        """From eye to eye in space, in pixels: the eye distance if the face looked straight."""
        return hypot(*(self._middle(LEFT_EYE) - self._middle(RIGHT_EYE)))

    @property
    def roll(self) -> float:
        """The angle of the line from eye to eye in radians; positive where the left is lower."""
        return roll(self.points)

    def moved(self, x: float, y: float) -> FaceMesh:
        """The mesh in a picture of which this one is a part that begins at (x, y)."""
        shifted = self.points.copy()
        shifted[:, :2] += (x, y)
        return attrs.evolve(self, points=shifted)

    def _middle(self, corners: list[int]) -> NDArray[np.float32]:
        middle: NDArray[np.float32] = self.points[corners].mean(axis=0)
        return middle


def _angle(right: NDArray[np.float32], left: NDArray[np.float32]) -> float:
    return atan2(left[1] - right[1], left[0] - right[0])


def bounds(points: NDArray[np.float32]) -> Bounds:
    """The box around points of shape (n, 2 or more)."""
    (x0, y0), (x1, y1) = points[:, :2].min(axis=0).tolist(), points[:, :2].max(axis=0).tolist()
    return x0, y0, x1, y1


def roll(landmarks: NDArray[np.float32]) -> float:
    """The angle of the eyes of a mesh's points, shape (468, 2 or 3), in radians."""
    return _angle(landmarks[RIGHT_EYE].mean(axis=0), landmarks[LEFT_EYE].mean(axis=0))


# --- decisions ---------------------------------------------------------------------------------


class Located(Protocol):
    """Something with a place in the picture."""

    @property
    def box(self) -> Bounds: ...


L = TypeVar("L", bound=Located)


def suppress(found: Iterable[L], iou: float) -> tuple[L, ...]:
    """Non-maximum suppression: of those that are the same face, the best.

    Args:
        found: Best first.
        iou: As of `same_face`.

    Returns:
        Those kept, in their order.
    """
    kept: list[L] = []
    for one in found:
        if not any(same_face(one.box, other.box, iou) for other in kept):
            kept.append(one)
    return tuple(kept)


def same_face(a: Bounds, b: Bounds, iou: float) -> bool:
    """Whether two boxes are the same face.

    Args:
        a: A face's box.
        b: Another's, or the same's.
        iou: Intersection over union above which they are, 0..1. Below it they are, too, if the
            centre of one is within the other: no face has room for another's centre.
    """
    return overlap(a, b) > iou or _holds_centre(a, b) or _holds_centre(b, a)


def _holds_centre(box: Bounds, other: Bounds) -> bool:
    x, y = (other[0] + other[2]) / 2, (other[1] + other[3]) / 2
    return box[0] < x < box[2] and box[1] < y < box[3]


def overlap(a: Bounds, b: Bounds) -> float:
    """Intersection over union, 0..1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (_area(a) + _area(b) - shared) if shared else 0.0


def _area(box: Bounds) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def prominence(box: Bounds, confidence: float, width: int, height: int) -> float:
    """How likely it is that a picture is about this face.

    The product of confidence, size (the square root of the box's area over the picture's) and
    closeness to the centre (1 there, 0.5 in a corner, linear in the distance between).

    Args:
        box: The face's, in pixels.
        confidence: 0..1.
        width: The picture's, in pixels.
        height: The picture's, in pixels.
    """
    x0, y0, x1, y1 = box
    from_centre = hypot((x0 + x1 - width) / 2, (y0 + y1 - height) / 2)
    closeness = 1 - min(from_centre / hypot(width, height), 0.5)
    return confidence * sqrt(_area(box) / (width * height)) * closeness
