"""The mouth: two layers of skin that part at the lips, and what is seen between them.

All shapes live in the face's own frame, see `rig.Face`: u along the eyes, v down the face, the
eye distance as unit. The photo's own smile is closed in every pose, and opened again by the jaw.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import attrs
import cv2
import numpy as np

from talkgen.generators.local.rig import Box, Face, Floats, Grid, Layer, sampled, smoothstep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from talkgen.generators.local.motion import Pose

__all__ = ["Mouth"]

# Landmarks of the inner lips, from the picture's left to its right.
UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
CORNERS = (61, 291)  # of the outer lips
CHIN, NOSE_BASE = 152, 2

# Eye distances, or parts of the photo's own gap.
FULL_OPENING = 0.22
CORNER_SHARE = 0.3  # of the jaw's way that the corners go along
UPPER_RISE = 0.03
CLOSE_UPPER, CLOSE_LOWER = 0.42, 0.68
ROUND, SPREAD, POUT = 0.34, 0.07, 0.2
OPEN_PHOTO = (0.05, 0.09)  # gap of the photo below which there are no teeth to be seen in it
CELLS = 44  # points of the fields for an eye distance
EDGE = 0.014  # softness of the lips' edges
RELAX_NARROW, RELAX_LEVEL = 0.1, 0.07
CREASE = 0.6  # how dark the line between the lips is
INSET = 0.012  # that teeth of the photo would be seen on the lip's edge
REACH, TRUST = 0.08, 0.04  # how far the lips' edges may be from where the mesh has them


@attrs.frozen(eq=False)
class Lips:
    """The lines at which the layers part, as curves over the mouth's width.

    Attributes:
        upper: The upper lip's lower edge: a polynomial's coefficients, v of u.
        lower: The lower lip's upper edge.
        left: The corner at smaller u.
        right: The corner at larger u.
    """

    upper: Floats
    lower: Floats
    left: float
    right: float

    @classmethod
    def of(cls, face: Face, pixels: NDArray[np.uint8]) -> Lips:
        """From the mesh, drawn to where the picture, RGB, has the lips' edges."""
        upper, lower = face.contour(UPPER), face.contour(LOWER)
        (left, _), (right, _) = (upper[[0, -1]] + face.contour(CORNERS)) / 2
        lips = cls(_curve(upper), _curve(lower), float(left), float(right))
        smooth = cv2.GaussianBlur(pixels, (0, 0), face.unit / 90)
        if lips.widest < OPEN_PHOTO[0]:
            dark = 255 - cv2.cvtColor(smooth, cv2.COLOR_RGB2GRAY).astype(np.float32)
            seam = lips._drawn(face, dark, (lips.upper + lips.lower) / 2)
            return attrs.evolve(lips, upper=seam, lower=seam)
        red = cv2.cvtColor(smooth, cv2.COLOR_RGB2LAB)[..., 1].astype(np.float32)
        step = _downwards(face, red)
        return attrs.evolve(
            lips,
            upper=lips._drawn(face, -step, lips.upper),
            lower=lips._drawn(face, step, lips.lower),
        )

    @property
    def widest(self) -> float:
        """The gap in the middle."""
        return float(self.gap(np.array([(self.left + self.right) / 2], np.float32))[0])

    def gap(self, u: Floats) -> Floats:
        """How far the photo's lips are apart; nothing beyond the corners."""
        inside = np.sqrt(np.clip(1 - self.across(u) ** 2, 0, 1))
        return np.asarray(
            np.clip(self._at(self.lower, u) - self._at(self.upper, u), 0, None)
            * np.minimum(inside * 3, 1),
            np.float32,
        )

    def upper_line(self, u: Floats) -> Floats:
        """The upper lip's edge; beyond the corners it goes on level."""
        middle = (self._at(self.upper, u) + self._at(self.lower, u)) / 2
        return np.asarray(middle - self.gap(u) / 2, np.float32)

    def lower_line(self, u: Floats) -> Floats:
        """The lower lip's edge; beyond the corners the same as the upper's."""
        return self.upper_line(u) + self.gap(u)

    def across(self, u: Floats) -> Floats:
        """-1 at the left corner, 1 at the right one, 0 in the middle."""
        return np.asarray((2 * u - self.left - self.right) / (self.right - self.left), np.float32)

    def _drawn(self, face: Face, evidence: Floats, curve: Floats) -> Floats:
        """A curve drawn to where there is the most evidence, a picture, close to it."""
        u = np.linspace(self.left, self.right, 41, dtype=np.float32)[4:-4]
        offsets = np.linspace(-REACH, REACH, 33, dtype=np.float32)[:, None]
        v = self._at(curve, u) + offsets
        places = face.pixels(np.stack([np.broadcast_to(u, v.shape), v], axis=-1))
        found = sampled(evidence, places - 0.5)
        likely = (found - found.mean()) / (found.std() + 1e-3) - (offsets / TRUST) ** 2 / 2
        weights = np.exp(3 * likely)
        drawn = np.stack([u, (weights * v).sum(axis=0) / weights.sum(axis=0)], axis=1)
        ends = np.array([self.left, self.right], np.float32)
        corners = np.stack([ends, self._at(curve, ends)], axis=1)
        return _curve(np.concatenate([corners[:1], drawn, corners[1:]]).astype(np.float32))

    def _at(self, curve: Floats, u: Floats) -> Floats:
        return np.asarray(np.polyval(curve, np.clip(u, self.left, self.right)), np.float32)


def _downwards(face: Face, picture: Floats) -> Floats:
    """How much brighter a picture gets down the face."""
    x, y = face.axes[1] / face.unit
    return np.asarray(
        x * cv2.Sobel(picture, cv2.CV_32F, 1, 0) + y * cv2.Sobel(picture, cv2.CV_32F, 0, 1),
        np.float32,
    )


def _curve(points: Floats) -> Floats:
    """A quartic through points (u, v): smooth also where a turned face folds its contour."""
    weights = np.ones(len(points))
    weights[[0, -1]] = 3
    return np.asarray(np.polyfit(points[:, 0], points[:, 1], 4, w=weights), np.float32)


@attrs.frozen(eq=False)
class Mouth:
    """A mouth that can be drawn open.

    Attributes:
        box: The part of the picture that moves with it.
        skin: RGB of the box, without the dark corners of a smile.
        over: Which pixels of the box are above the lips.
        upper: How the skin above the lips moves.
        lower: How the skin below them moves.
        upper_masks: Over the box: the upper layer, the light below it, and how dark the line is
            where it touches the lower.
        lower_masks: Over the box: the lower layer, and the floor of the mouth.
        lips: The part of the box in which both layers, or what is behind them, are seen.
        behind: RGB of that part, what is behind the lips.
        tongue: RGB.
    """

    box: Box
    skin: NDArray[np.uint8]
    over: NDArray[np.bool_]
    upper: Layer
    lower: Layer
    upper_masks: Floats
    lower_masks: Floats
    lips: Box
    behind: Floats
    tongue: Floats

    @classmethod
    def of(cls, face: Face, pixels: NDArray[np.uint8]) -> Mouth:
        """Prepare the mouth of a picture, RGB."""
        lips = Lips.of(face, pixels)
        chin, nose = face.height_of(CHIN), face.height_of(NOSE_BASE)
        box = face.box((-1.05, 1.05), (nose - 0.25, chin + 0.55))
        coarse = Grid(box, max(1, round(face.unit / CELLS)))
        form, fields = (_Shape.of(face, lips, grid) for grid in (Grid(box), coarse))
        part = np.ascontiguousarray(pixels[box.slices])
        light = form.light(part)
        parting = form.parting(face).within(box)
        return cls(
            box=box,
            skin=form.healed(part),
            over=form.above > 0,
            upper=Layer(coarse, fields.upper_fields(face)),
            lower=Layer(coarse, fields.lower_fields(face)),
            upper_masks=form.upper_masks(),
            lower_masks=form.lower_masks(),
            lips=parting,
            behind=form.behind(part.astype(np.float32), light)[parting.slices],
            tongue=np.array([128, 56, 56], np.float32) * light,
        )

    def draw(self, skin: NDArray[np.uint8], pose: Pose) -> None:
        """Put the mouth in a pose into a picture."""
        numbers = (pose.opening, max(-pose.width, 0.0), max(pose.width, 0.0), 1.0)
        upper, lower = self.upper.source(numbers), self.lower.source(numbers)
        source = np.where(self.over[..., None], upper, lower)
        part = sampled(self.skin, source, cv2.INTER_CUBIC)
        at = self.lips.slices
        part[at] = np.clip(self._parted(upper[at], lower[at]) + 0.5, 0, 255)
        skin[self.box.slices] = part

    def _parted(self, upper: Floats, lower: Floats) -> Floats:
        """Both layers and what is between them."""
        above, light, crease = _channels(sampled(self.upper_masks, upper))
        below, floor = _channels(sampled(self.lower_masks, lower))
        # Where the layers overlap they share; where they leave a gap the inside is seen. Beside
        # the mouth they add up to one, so that nothing dark leaks past the corners.
        covered = above + below
        skin = sampled(self.skin, upper, cv2.INTER_CUBIC) * above
        skin += sampled(self.skin, lower, cv2.INTER_CUBIC) * below
        skin *= (1 - crease * np.minimum(above, below)) / np.maximum(covered, 1)
        inside = (self.behind + (self.tongue - self.behind) * floor) * light
        return np.asarray(skin + inside * (1 - np.minimum(covered, 1)), np.float32)


def _channels(masks: Floats) -> list[Floats]:
    return [masks[..., i : i + 1] for i in range(masks.shape[-1])]


@attrs.frozen(eq=False)
class _Shape:
    """Masks and fields over the mouth, at the points of a grid."""

    lips: Lips
    u: Floats
    v: Floats
    chin: float
    nose: float

    @classmethod
    def of(cls, face: Face, lips: Lips, grid: Grid) -> _Shape:
        local = face.local(grid.pixels)
        return cls(
            lips, local[..., 0], local[..., 1], face.height_of(CHIN), face.height_of(NOSE_BASE)
        )

    # --- lines ---------------------------------------------------------------------------------

    @cached_property
    def above(self) -> Floats:
        """How far a point is above the upper lip's edge."""
        return self.lips.upper_line(self.u) - self.inset - self.v

    @cached_property
    def below(self) -> Floats:
        """How far a point is below the lower lip's edge."""
        return self.v - self.lips.lower_line(self.u) - self.inset

    @cached_property
    def gap(self) -> Floats:
        """How far the lips of the photo are apart, with what is cut off them."""
        return self.lips.gap(self.u) + 2 * self.inset

    @cached_property
    def inset(self) -> Floats:
        """What is cut off the lips, where teeth shine on them."""
        return np.asarray(INSET * smoothstep(*OPEN_PHOTO, self.lips.gap(self.u)), np.float32)

    @cached_property
    def smile(self) -> float:
        """Whether the photo shows teeth, 0..1."""
        return float(smoothstep(*OPEN_PHOTO, np.asarray(self.lips.widest, np.float32)))

    @cached_property
    def along(self) -> Floats:
        """0 in the middle of the mouth, 1 at its corners and beyond."""
        return np.minimum(np.abs(self.lips.across(self.u)), 1)

    @cached_property
    def side(self) -> Floats:
        """1 between the corners, fading over the cheeks."""
        half = (self.lips.right - self.lips.left) / 2
        return 1 - smoothstep(1, 1 + 0.5 / half, np.abs(self.lips.across(self.u)))

    def parting(self, face: Face) -> Box:
        """The part of the picture where the lips ever part."""
        upper, lower = self.lips.upper_line(self.u), self.lips.lower_line(self.u)
        down = float(lower.max()) + FULL_OPENING + 0.05
        return face.box(
            (self.lips.left - 0.08, self.lips.right + 0.08), (float(upper.min()) - 0.1, down)
        )

    # --- masks ---------------------------------------------------------------------------------

    def upper_masks(self) -> Floats:
        """The upper layer, the light below it, and how dark it is where it touches the lower.

        Lips that touch in the photo have their own dark line.
        """
        shadow = 0.5 + 0.5 * smoothstep(0.0, 0.07, -self.above)
        crease = CREASE * self.smile * (1 - self.along**4)
        return np.stack([smoothstep(-EDGE, EDGE, self.above), shadow, crease], axis=-1)

    def lower_masks(self) -> Floats:
        """The lower layer, and the tongue above it."""
        floor = 0.75 * smoothstep(-0.13, -0.02, self.below) * (1 - self.along**4)
        return np.stack([smoothstep(-EDGE, EDGE, self.below), floor], axis=-1).astype(np.float32)

    # --- fields --------------------------------------------------------------------------------

    def upper_fields(self, face: Face) -> Floats:
        """Ways of the upper layer: opening, round, spread, closing."""
        fade = 1 - smoothstep(0.1, 0.95, self.above / max(-self.nose, 0.05))
        corners = CORNER_SHARE * self.along**2 * self.side
        rise = UPPER_RISE * (1 - self.along**2)
        opening = (FULL_OPENING * corners - rise) * fade
        return self._fields(face, opening, -self.above, CLOSE_UPPER * self.gap * fade)

    def lower_fields(self, face: Face) -> Floats:
        """Ways of the lower layer: opening, round, spread, closing."""
        depth = np.clip(self.below, 0, None) / max(self.chin, 0.1)
        lip = (1 - (1 - CORNER_SHARE) * self.along**2) * self.side
        jaw = 1 - smoothstep(0.25, 1.0, np.abs(self.u))
        chin = smoothstep(0.1, 0.8, depth)
        fade = 1 - smoothstep(self.chin, self.chin + 0.5, self.v)
        opening = FULL_OPENING * (lip * (1 - chin) + jaw * chin) * fade
        closing = -(CLOSE_LOWER * self.gap) * (1 - smoothstep(0.3, 1.3, depth)) * fade
        return self._fields(face, opening, self.below, closing)

    def _fields(self, face: Face, opening: Floats, from_lip: Floats, closing: Floats) -> Floats:
        middle = (self.lips.left + self.lips.right) / 2
        height = np.clip(self.v / 0.4, -1, 1)
        near = self.side * (1 - height**2) ** 2
        inwards = (middle - self.u) * near
        level = self.along**2 * near
        pout = POUT * np.clip(from_lip, 0, 0.3) * near * np.sign(self.v)
        still = np.zeros_like(self.u)
        fields = (
            (still, opening),
            (ROUND * inwards, pout),
            (-SPREAD * inwards, still),
            (RELAX_NARROW * self.smile * inwards, closing + RELAX_LEVEL * self.smile * level),
        )
        return np.stack([face.ways(u, v) for u, v in fields])

    # --- what is behind the lips ---------------------------------------------------------------

    def healed(self, part: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The skin without the dark corners that a smile has and a closed mouth has not."""
        if not self.smile:
            return part
        off = np.abs(self.v - self.lips.upper_line(self.u) - self.lips.gap(self.u) / 2)
        across = np.abs(self.lips.across(self.u))
        corner = (across > 0.7) & (across < 1.2) & (off < 0.11)  # noqa: PLR2004 - around them
        grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
        dark = corner & (grey < 0.72 * np.median(grey[corner]))
        hole = cv2.dilate(dark.astype(np.uint8), np.ones((3, 3), np.uint8))
        return np.asarray(cv2.inpaint(part, hole, 4, cv2.INPAINT_TELEA), np.uint8)

    def light(self, part: NDArray[np.uint8]) -> float:
        """How bright the lips are: the mouth lies in the same light, 0.25..1."""
        lips = (np.abs(self.v) < 0.12) & (self.along < 0.8)  # noqa: PLR2004 - about the lips
        return float(np.clip(np.median(part[lips].max(axis=-1)) / 190, 0.25, 1))

    def behind(self, part: Floats, light: float) -> Floats:
        """The photo's own teeth where it shows them, else painted ones; a dark mouth below."""
        depth = self.v - self.lips.upper_line(self.u)
        cavity = np.broadcast_to(np.array([52, 18, 18], np.float32) * light, part.shape)
        own = smoothstep(*OPEN_PHOTO, self.lips.gap(self.u)) * smoothstep(0.0, 0.02, depth)
        own = own * smoothstep(0.0, 0.02, self.lips.gap(self.u) - depth)
        length = 0.085 * np.sqrt(1 - np.minimum(self.along, 1) ** 2)
        shown = 1 - smoothstep(-0.025, 0.015, depth - length)
        shown = shown * (1 - smoothstep(0.5, 0.85, self.along))
        teeth = np.array([168, 158, 148], np.float32) * light
        painted = cavity + (teeth - cavity) * (0.8 * shown * (1 - self.smile))[..., None]
        return np.asarray(painted + (part - painted) * own[..., None], np.float32)
