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

__all__ = ["Box", "Eye", "Face", "Layer", "Mouth", "eye_of", "mouth_of", "sampled", "smoothstep"]

Floats: TypeAlias = "NDArray[np.float32]"

# Contours from the picture's left to its right.
INNER_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
OUTER_UPPER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
OUTER_LOWER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
EYES = (
    ((33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133)),
    ((362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263)),
)
EYE_CORNERS = ((33, 133), (362, 263))
CHIN, NOSE_BASE = 152, 2

# What decides how the mouth moves, in eye distances or parts of the photo's own gap.
FULL_OPENING = 0.23
CORNER_SHARE = 0.3  # of the jaw's way that the corners go along
CLOSE_LOWER, CLOSE_UPPER = 0.66, 0.40  # of the gap; together a little more than all of it
ROUND, SPREAD = 0.26, 0.06
LID_OVERSHOOT = 1.12

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

    def box(self, u: tuple[float, float], v: tuple[float, float]) -> Box:
        """The upright rectangle around a rectangle in (u, v), cut at the picture's edges."""
        corners = np.array([(a, b) for a in u for b in v], np.float32) @ self.axes + self.origin
        size = np.array([self.width, self.height])
        x0, y0 = np.clip(np.floor(corners.min(axis=0)), 0, size - 2)
        x1, y1 = np.clip(np.ceil(corners.max(axis=0)), 2, size)
        return Box(int(x0), int(y0), int(x1), int(y1))

    def grid(self, box: Box) -> tuple[Floats, Floats]:
        """(u, v) of every pixel of a box."""
        y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1].astype(np.float32)
        local = self.local(np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(*x.shape, 2)
        return local[..., 0], local[..., 1]


@attrs.frozen(eq=False)
class Layer:
    """A piece of skin that moves as one.

    Attributes:
        mask: Where it is in the photo, 0..1.
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


def _pixels(face: Face, u: Floats, v: Floats) -> Floats:
    """A field in (u, v) as one in pixels."""
    return np.stack([u, v], axis=-1) @ face.axes


# --- the mouth ---------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Mouth:
    """The mouth, split at the lips.

    Attributes:
        box: The part of the picture that moves with it.
        upper: Above the lips' line.
        lower: Below it.
        teeth: RGB of the box, what is behind the lips.
        inside: How much of it may be seen, 0..1: nowhere but between the corners.
    """

    box: Box
    upper: Layer
    lower: Layer
    teeth: Floats
    inside: Floats


def mouth_of(face: Face, pixels: NDArray[np.uint8]) -> Mouth:
    """Prepare the mouth of a picture, RGB."""
    upper, lower = face.contour(INNER_UPPER), face.contour(INNER_LOWER)
    chin = float(face.local(face.points[[CHIN]])[0, 1])
    nose = float(face.local(face.points[[NOSE_BASE]])[0, 1])
    corner = float(max(-upper[0, 0], upper[-1, 0]))
    box = face.box((-1.0, 1.0), (nose - 0.25, chin + 0.6))
    u, v = face.grid(box)
    shape = _Lips(u, v, upper, lower, corner, chin, nose)
    return Mouth(
        box,
        Layer(shape.upper_mask(), _mouth_fields(face, shape, shape.upper_way())),
        Layer(shape.lower_mask(), _mouth_fields(face, shape, shape.lower_way())),
        shape.teeth(pixels[box.slices].astype(np.float32)),
        shape.inside(),
    )


@attrs.frozen(eq=False)
class _Lips:
    """Fields over the box of the mouth, in eye distances."""

    u: Floats
    v: Floats
    upper: Floats
    lower: Floats
    corner: float
    chin: float
    nose: float

    @cached_property
    def upper_line(self) -> Floats:
        """The upper lip's inner edge above or below each pixel."""
        return np.interp(self.u, self.upper[:, 0], self.upper[:, 1]).astype(np.float32)

    @cached_property
    def lower_line(self) -> Floats:
        """The lower lip's inner edge above or below each pixel."""
        lower = np.interp(self.u, self.lower[:, 0], self.lower[:, 1]).astype(np.float32)
        return np.maximum(lower, self.upper_line)

    @cached_property
    def gap(self) -> Floats:
        """How far the lips are apart in the photo."""
        return self.lower_line - self.upper_line

    @cached_property
    def beyond(self) -> Floats:
        """0 between the corners, 1 outside."""
        return smoothstep(0.86 * self.corner, self.corner, np.abs(self.u))

    @cached_property
    def side(self) -> Floats:
        """How much a point beside the mouth goes along: fades out over the cheek."""
        return 1 - smoothstep(self.corner, self.corner + 0.55, np.abs(self.u))

    def upper_mask(self) -> Floats:
        edge = 0.012
        return 1 - smoothstep(-edge, edge, self.v - self.upper_line)

    def lower_mask(self) -> Floats:
        edge = 0.012
        below = smoothstep(-edge, edge, self.v - self.lower_line)
        return np.maximum(below, self.beyond)

    def inside(self) -> Floats:
        return 1 - smoothstep(0.80 * self.corner, 0.97 * self.corner, np.abs(self.u))

    @cached_property
    def _corners(self) -> Floats:
        """The corners' share of the jaw's way; the same in both layers beside the mouth."""
        along = np.clip(np.abs(self.u) / self.corner, 0, 1) ** 2
        above = np.exp(-((np.minimum(self.v, 0) / 0.22) ** 2))
        return np.asarray(CORNER_SHARE * along * self.side * above, np.float32)

    def upper_way(self) -> tuple[Floats, Floats]:
        """Downwards: by opening, and by closing the photo's own gap."""
        fade = 1 - smoothstep(0.05, 0.95, (self.upper_line - self.v) / max(-self.nose, 0.05))
        return FULL_OPENING * self._corners, CLOSE_UPPER * self.gap * fade

    def lower_way(self) -> tuple[Floats, Floats]:
        depth = np.clip((self.v - self.lower_line) / self.chin, 0, None)
        lip = 1 - (1 - CORNER_SHARE) * np.clip(np.abs(self.u) / self.corner, 0, 1) ** 2
        jaw = 1 - smoothstep(0.25, 0.95, np.abs(self.u))
        blend = smoothstep(0.1, 0.8, depth)
        fade = 1 - smoothstep(self.chin, self.chin + 0.5, self.v)
        below = (lip * self.side * (1 - blend) + jaw * blend) * fade
        inner = smoothstep(-0.02, 0.02, self.v - self.lower_line)
        opening = FULL_OPENING * (below * inner + self._corners * (1 - inner))
        closing = -CLOSE_LOWER * self.gap * (1 - smoothstep(0.05, 0.75, depth))
        return np.asarray(opening, np.float32), np.asarray(closing, np.float32)

    @cached_property
    def squeeze(self) -> Floats:
        """Sideways, towards the middle, for a mouth that is fully rounded."""
        window = np.exp(-((self.u / 0.55) ** 2) - (self.v / 0.35) ** 2)
        return np.asarray(-ROUND * self.u * window, np.float32)

    def teeth(self, pixels: Floats) -> Floats:
        """The photo's own teeth where it shows them, behind them a dark mouth."""
        depth = self.v - self.upper_line
        dark = np.array([70, 22, 24], np.float32) * np.exp(-np.clip(depth, 0, 1) / 0.14)[..., None]
        tongue = np.array([120, 52, 54], np.float32)
        hint = 0.55 * smoothstep(0.10, 0.22, depth)[..., None]
        painted = (dark + 14) * (1 - hint) + tongue * hint
        shown = smoothstep(0.004, 0.02, depth) * smoothstep(0.004, 0.02, self.lower_line - self.v)
        shown = shown * smoothstep(0.05, 0.09, self.gap)
        own = shown[..., None]
        shadow = 0.55 + 0.45 * smoothstep(0.0, 0.06, depth)[..., None]
        return np.asarray((painted * (1 - own) + pixels * own) * shadow, np.float32)


def _mouth_fields(face: Face, shape: _Lips, way: tuple[Floats, Floats]) -> Floats:
    """For opening, width below zero, width above zero, and closing."""
    opening, closing = way
    still = np.zeros_like(opening)
    fields = (
        (still, opening),
        (shape.squeeze, still),
        (shape.squeeze * (-SPREAD / ROUND), still),
        (still, closing),
    )
    return np.stack([_pixels(face, u, v) for u, v in fields]).astype(np.float32)


# --- the eyes ----------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Eye:
    """An eye and the lid above it.

    Attributes:
        box: The part of the picture that the lid moves over.
        lid: The skin above the lashes.
    """

    box: Box
    lid: Layer


def eye_of(face: Face, which: int) -> Eye:
    """Prepare the picture's left (0) or right (1) eye."""
    upper, lower = (face.contour(indices) for indices in EYES[which])
    (left, top), (right, _) = upper.min(axis=0), upper.max(axis=0)
    bottom = float(lower[:, 1].max())
    height = bottom - float(top)
    box = face.box((left - 0.12, right + 0.12), (float(top) - 0.45, bottom + 0.10))
    u, v = face.grid(box)
    upper_line = np.interp(u, upper[:, 0], upper[:, 1]).astype(np.float32)
    lower_line = np.interp(u, lower[:, 0], lower[:, 1]).astype(np.float32)
    # The lash line stays behind: skin from just above it is what covers the eye.
    edge = upper_line - 0.12 * height
    between = smoothstep(0, 0.04, u - left) * smoothstep(0, 0.04, right - u)
    mask = (1 - smoothstep(-0.008, 0.008, v - edge)) * between
    way = LID_OVERSHOOT * np.clip(lower_line - edge, 0, None)
    # Twice the way at least: stretched further, the skin would fold over itself.
    reach = max(0.32, 2.0 * float(way.max()))
    above = 1 - np.clip((edge - v) / reach, 0, 1)
    fields = _pixels(face, np.zeros_like(v), way * above)[None]
    return Eye(box, Layer(np.asarray(mask, np.float32), fields.astype(np.float32)))
