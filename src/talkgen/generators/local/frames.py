"""A prepared portrait and a pose give a frame."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
import cv2
import numpy as np

from talkgen.generators.local.eyes import Eye
from talkgen.generators.local.head import Head
from talkgen.generators.local.mouth import Mouth
from talkgen.generators.local.rig import Box, Face, Floats, sampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from talkgen.generators.local.motion import Pose

__all__ = ["Puppet"]

BANDS = 8  # that the picture is cut into, to leave out what is beside the person
MARGIN = 0.12  # eye distances around the person, for movement


@attrs.frozen(eq=False)
class Puppet:
    """A portrait ready to be posed.

    Attributes:
        pixels: RGB, shape (height, width, 3).
        behind: RGB, what stays where it is.
        alpha: How much a pixel is the person's, 0..1, shape (height, width); None where what is
            behind is plain and in `pixels` too: nobody sees it move along.
        parts: Boxes that hold all of the person.
        face: Where the face is.
        mouth: The lips and what is behind them; None to leave them as they are.
        eyes: Both.
        head: What else moves.
    """

    pixels: NDArray[np.uint8]
    behind: NDArray[np.uint8]
    alpha: Floats | None
    parts: tuple[Box, ...]
    face: Face
    mouth: Mouth | None
    eyes: tuple[Eye, Eye]
    head: Head

    @classmethod
    def of(
        cls,
        pixels: NDArray[np.uint8],
        alpha: Floats,
        behind: NDArray[np.uint8] | tuple[int, int, int],
        points: Floats,
    ) -> Puppet:
        """Prepare a portrait.

        Args:
            pixels: RGB `uint8`, shape (height, width, 3).
            alpha: How much a pixel is the person's, 0..1, shape (height, width).
            behind: What stays behind the person: RGB of the same shape, or a colour.
            points: The face mesh, shape (468, 3), in pixels.
        """
        height, width = alpha.shape
        face = Face(np.asarray(points, np.float32), width, height)
        moves_along = None if isinstance(behind, tuple) else alpha
        if isinstance(behind, tuple):
            behind = np.full_like(pixels, behind)
            pixels = np.asarray(cv2.blendLinear(pixels, behind, alpha, 1 - alpha), np.uint8)
        return cls(
            pixels=pixels,
            behind=behind,
            alpha=moves_along,
            parts=_parts(alpha, round(MARGIN * face.unit) + 1),
            face=face,
            mouth=Mouth.of(face, pixels),
            eyes=(Eye.of(face, 0), Eye.of(face, 1)),
            head=Head.of(face),
        )

    def frame(self, pose: Pose) -> NDArray[np.uint8]:
        """The portrait in a pose: RGB, shape (height, width, 3)."""
        skin = self.pixels.copy()
        if self.mouth is not None:
            self.mouth.draw(skin, pose)
        if pose.blink > 0:
            for eye in self.eyes:
                eye.draw(skin, pose.blink)
        source = self.head.source(pose)
        frame = self.behind.copy()
        for part in self.parts:
            frame[part.slices] = self._moved(skin, source[part.slices], part)
        return frame

    def _moved(self, skin: NDArray[np.uint8], source: Floats, part: Box) -> NDArray[np.uint8]:
        moved = np.asarray(sampled(skin, source, cv2.INTER_CUBIC), np.uint8)
        if self.alpha is None:
            return moved
        alpha = sampled(self.alpha, source)
        behind = self.behind[part.slices]
        return np.asarray(cv2.blendLinear(moved, behind, alpha, 1 - alpha), np.uint8)


def _parts(alpha: Floats, margin: int) -> tuple[Box, ...]:
    """What holds all of the person, band by band."""
    seen = cv2.dilate((alpha > 0).astype(np.uint8), np.ones((2 * margin + 1, 2 * margin + 1)))
    height = len(alpha)
    edges = [height * i // BANDS for i in range(BANDS + 1)]
    boxes = []
    for top, bottom in pairwise(edges):
        columns = np.flatnonzero(seen[top:bottom].any(axis=0))
        if columns.size:
            boxes.append(Box(int(columns[0]), top, int(columns[-1]) + 1, bottom))
    return tuple(boxes)
