"""How a mouth moves: over its part of the picture, the two layers, their ways and the inside."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import attrs
import cv2
import numpy as np

from talkgen.generators.local.lips import TEETH_SEEN, Lips
from talkgen.generators.local.rig import Box, Face, Floats, Grid, smoothstep

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Shape"]

CHIN, NOSE_BASE = 152, 2

# Eye distances, or parts of the photo's own gap.
FULL_OPENING = 0.185
CORNER_SHARE = 0.3  # of the jaw's way that the corners go along
UPPER_RISE = 0.025
SWING = 0.4  # how far the jaw goes into the face, about its hinge by the ears, as it goes down
CLOSE_UPPER = 0.34  # the upper lip's share of closing
ROUND, SPREAD, POUT = 0.34, 0.07, 0.2
EDGE = 0.014  # softness of the lips' edges
CREASE = 0.6  # how dark the line between the lips is
INSET = 0.012  # that teeth of the photo would be seen on the lip's edge


@attrs.frozen(eq=False)
class Shape:
    """Masks and fields over the mouth, at the points of a grid."""

    face: Face
    lips: Lips
    u: Floats
    v: Floats

    @classmethod
    def of(cls, face: Face, lips: Lips, grid: Grid) -> Shape:
        """Over a grid, of a bent face."""
        local = face.local(grid.pixels)
        return cls(face, lips, local[..., 0], local[..., 1])

    @cached_property
    def chin(self) -> float:
        """Its v."""
        return self.face.height_of(CHIN)

    @cached_property
    def nose(self) -> float:
        """The v of its base."""
        return self.face.height_of(NOSE_BASE)

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
    def apart(self) -> Floats:
        """How far the lips of the photo are apart, with what is cut off them."""
        return self.lips.gap(self.u) + 2 * self.inset

    @cached_property
    def inset(self) -> Floats:
        """What is cut off the lips, where teeth shine on them."""
        return np.asarray(INSET * smoothstep(*TEETH_SEEN, self.lips.gap(self.u)), np.float32)

    @cached_property
    def smile(self) -> float:
        """Whether the photo shows teeth, 0..1."""
        return float(smoothstep(*TEETH_SEEN, np.asarray(self.lips.widest, np.float32)))

    @cached_property
    def along(self) -> Floats:
        """0 in the middle of the mouth, 1 at its corners and beyond."""
        return np.minimum(np.abs(self.lips.across(self.u)), 1)

    @cached_property
    def side(self) -> Floats:
        """1 between the corners, fading over the cheeks."""
        half = (self.lips.right - self.lips.left) / 2
        return 1 - smoothstep(1, 1 + 0.5 / half, np.abs(self.lips.across(self.u)))

    def parting(self) -> Box:
        """The part of the picture where the lips ever part."""
        upper, lower = self.lips.upper_line(self.u), self.lips.lower_line(self.u)
        down = float(lower.max()) + FULL_OPENING + 0.05
        return self.face.box(
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

    def upper_fields(self) -> Floats:
        """Ways of the upper layer: opening, round, spread, closing."""
        fade = 1 - smoothstep(0.1, 0.95, self.above / max(-self.nose, 0.05))
        corners = CORNER_SHARE * self.along**2 * self.side
        rise = UPPER_RISE * (1 - self.along**2)
        opening = (FULL_OPENING * corners - rise) * fade
        return self._fields(opening, -self.above, CLOSE_UPPER * self.apart * fade, 0.0)

    def lower_fields(self) -> Floats:
        """Ways of the lower layer: opening, round, spread, closing."""
        depth = np.clip(self.below, 0, None) / max(self.chin, 0.1)
        lip = (1 - (1 - CORNER_SHARE) * self.along**2) * self.side
        jaw = 1 - smoothstep(0.25, 1.0, np.abs(self.u))
        chin = smoothstep(0.1, 0.8, depth)
        fade = 1 - smoothstep(self.chin, self.chin + 0.5, self.v)
        opening = FULL_OPENING * (lip * (1 - chin) + jaw * chin) * fade
        closing = (CLOSE_UPPER - 1) * self.apart * (1 - smoothstep(0.3, 1.3, depth)) * fade
        return self._fields(opening, self.below, closing, SWING)

    def _fields(
        self, opening: Floats, from_lip: Floats, closing: Floats, closing_swing: float
    ) -> Floats:
        half = (self.lips.right - self.lips.left) / 2
        height = np.clip(self.v / 0.4, -1, 1)
        near = self.side * (1 - height**2) ** 2
        across = self.lips.across(self.u)
        drawn = (1 - smoothstep(1, 1 + 0.8 / half, np.abs(across))) * (1 - height**2) ** 2
        inwards = -half * np.clip(across, -1, 1) * drawn
        level = self.along**2 * near
        pout = POUT * np.clip(from_lip, 0, 0.3) * near * np.sign(self.v)
        still = np.zeros_like(self.u)
        relaxed = closing + self.smile * self.lips.sag(CLOSE_UPPER) * level
        fields = (
            (still, opening, SWING * opening),
            (ROUND * inwards, pout, still),
            (-SPREAD * inwards, still, still),
            (still, relaxed, closing_swing * closing),
        )
        return np.stack([self.face.ways(self.u, *way) for way in fields])

    # --- what is behind the lips ---------------------------------------------------------------

    def healed(self, part: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The skin without the dark corners that a smile has and a closed mouth has not."""
        off = np.abs(self.v - self.lips.upper_line(self.u) - self.lips.gap(self.u) / 2)
        across = np.abs(self.lips.across(self.u))
        corner = (across > 0.7) & (across < 1.2) & (off < 0.11)  # noqa: PLR2004 - around them
        if not self.smile or not corner.any():  # none in the smallest videos
            return part
        grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
        dark = corner & (grey < 0.72 * np.median(grey[corner]))
        hole = cv2.dilate(dark.astype(np.uint8), np.ones((3, 3), np.uint8))
        return np.asarray(cv2.inpaint(part, hole, 4, cv2.INPAINT_TELEA), np.uint8)

    def light(self, part: NDArray[np.uint8]) -> float:
        """How bright the lips are: the mouth lies in the same light, 0.25..1."""
        lips = (np.abs(self.v) < 0.12) & (self.along < 0.8)  # noqa: PLR2004 - about the lips
        seen = part[lips] if lips.any() else part
        return float(np.clip(np.median(seen.max(axis=-1)) / 190, 0.25, 1))

    def behind(self, part: Floats, light: float) -> Floats:
        """The photo's own teeth where it shows them, else painted ones; a dark mouth below."""
        depth = self.v - self.lips.upper_line(self.u)
        cavity = np.broadcast_to(np.array([52, 18, 18], np.float32) * light, part.shape)
        own = smoothstep(*TEETH_SEEN, self.lips.gap(self.u)) * smoothstep(0.0, 0.02, depth)
        own = own * smoothstep(0.0, 0.02, self.lips.gap(self.u) - depth)
        length = 0.085 * np.sqrt(1 - np.minimum(self.along, 1) ** 2)
        shown = 1 - smoothstep(-0.025, 0.015, depth - length)
        shown = shown * (1 - smoothstep(0.5, 0.85, self.along))
        teeth = np.array([168, 158, 148], np.float32) * light
        painted = cavity + (teeth - cavity) * (0.8 * shown * (1 - self.smile))[..., None]
        return np.asarray(painted + (part - painted) * own[..., None], np.float32)
