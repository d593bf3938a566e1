"""The mouth: two layers of skin that part at the lips, and what is seen between them.

All shapes live in the face's own frame, see `rig.Face`: u along the eyes, v down the face, the
eye distance as unit. The photo's own smile is closed in every pose, and opened again by the jaw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import cv2
import numpy as np

from talkgen.generators.local.lips import Lips
from talkgen.generators.local.rig import Box, Face, Floats, Grid, Layer, sampled
from talkgen.generators.local.shape import CHIN, NOSE_BASE, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from talkgen.generators.local.motion import Pose

__all__ = ["Mouth"]

CELLS = 44  # points of the fields for an eye distance

# Parts of the full opening.
PRESS = 0.18  # that the jaw goes on when the lips have met
TOUCHING = 0.2  # up to which lips are not quite apart
LIT = (0.2, 0.95)  # from which light falls in, and at which all does
DARKEST = 0.05


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
        face = face.bent()
        lips = Lips.of(face, pixels)
        chin, nose = face.height_of(CHIN), face.height_of(NOSE_BASE)
        box = face.box((-1.05, 1.05), (nose - 0.25, chin + 0.55))
        coarse = Grid(box, max(1, round(face.unit / CELLS)))
        form, fields = (Shape.of(face, lips, grid) for grid in (Grid(box), coarse))
        part = np.ascontiguousarray(pixels[box.slices])
        light = form.light(part)
        parting = form.parting().within(box)
        return cls(
            box=box,
            skin=form.healed(part),
            over=form.above > 0,
            upper=Layer(coarse, fields.upper_fields()),
            lower=Layer(coarse, fields.lower_fields()),
            upper_masks=form.upper_masks(),
            lower_masks=form.lower_masks(),
            lips=parting,
            behind=form.behind(part.astype(np.float32), light)[parting.slices],
            tongue=np.array([128, 56, 56], np.float32) * light,
        )

    def draw(self, skin: NDArray[np.uint8], pose: Pose) -> None:
        """Put the mouth in a pose into a picture."""
        numbers = (_pressed(pose.opening), max(-pose.width, 0.0), max(pose.width, 0.0), 1.0)
        upper, lower = self.upper.source(numbers), self.lower.source(numbers)
        source = np.where(self.over[..., None], upper, lower)
        part = sampled(self.skin, source, cv2.INTER_CUBIC)
        at = self.lips.slices
        part[at] = np.clip(self._parted(upper[at], lower[at], _lit(pose.opening)) + 0.5, 0, 255)
        skin[self.box.slices] = part

    def _parted(self, upper: Floats, lower: Floats, lit: float) -> Floats:
        """Both layers and what is between them."""
        above, light, crease = _channels(sampled(self.upper_masks, upper))
        below, floor = _channels(sampled(self.lower_masks, lower))
        # Where the layers overlap they share; where they leave a gap the inside is seen. Beside
        # the mouth they add up to one, so that nothing dark leaks past the corners.
        covered = above + below
        skin = sampled(self.skin, upper, cv2.INTER_CUBIC) * above
        skin += sampled(self.skin, lower, cv2.INTER_CUBIC) * below
        skin *= (1 - crease * np.minimum(above, below)) / np.maximum(covered, 1)
        inside = (self.behind + (self.tongue - self.behind) * floor) * (light * np.float32(lit))
        return np.asarray(skin + inside * (1 - np.minimum(covered, 1)), np.float32)


def _channels(masks: Floats) -> list[Floats]:
    return [masks[..., i : i + 1] for i in range(masks.shape[-1])]


def _pressed(opening: float) -> float:
    """How far the jaw is down: lips that touch are soft, and give way a little."""
    return opening - PRESS * max(0.0, 1 - opening / TOUCHING)


def _lit(opening: float) -> float:
    """How much light falls between the lips: none through a narrow gap, even on teeth."""
    dark, bright = LIT
    return min(max((opening - dark) / (bright - dark), DARKEST), 1.0)
