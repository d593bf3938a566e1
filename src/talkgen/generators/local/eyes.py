"""Eyes that blink: the skin between brow and lashes is drawn down over the eye."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import cv2
import numpy as np

from talkgen.generators.local.rig import Face, Floats, Grid, sampled, smoothstep

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Eye"]

# Landmarks of upper lid, lower lid and the brow's lower edge, from the picture's left to its
# right; the picture's left eye first.
EYES = (
    (
        (33, 246, 161, 160, 159, 158, 157, 173, 133),
        (33, 7, 163, 144, 145, 153, 154, 155, 133),
        (46, 53, 52, 65, 55),
    ),
    (
        (362, 398, 384, 385, 386, 387, 388, 466, 263),
        (362, 382, 381, 380, 374, 373, 390, 249, 263),
        (285, 295, 282, 283, 276),
    ),
)

# Parts of the eye's own height.
LASHES = 0.18  # that stay behind: skin from just above them is what covers the eye
OVERSHOOT = 0.12  # that the lid goes beyond the lower one, to cover its lashes too
RIM = 0.03  # eye distances of skin at the lid's edge that are not stretched
LEAST_SKIN = 0.06  # eye distances between brow and lid, where the brow hangs low


@attrs.frozen(eq=False)
class Eye:
    """An eye and the lid above it.

    Attributes:
        grid: Over the part of the picture that the lid moves over.
        above: How far each pixel is above the lid's edge, in eye distances.
        way: How far the edge goes at its place.
        skin: How far the skin that is drawn down reaches above the edge.
        mask: Where the eye is from left to right, 0..1.
        down: Pixels for an eye distance downwards, x and y.
    """

    grid: Grid
    above: Floats
    way: Floats
    skin: Floats
    mask: Floats
    down: Floats

    @classmethod
    def of(cls, face: Face, which: int) -> Eye:
        """Prepare the picture's left (0) or right (1) eye."""
        upper, lower, brow = (face.contour(numbers) for numbers in EYES[which])
        left, right = float(upper[0, 0]), float(upper[-1, 0])
        top, bottom = float(upper[:, 1].min()), float(lower[:, 1].max())
        reach = (float(brow[:, 1].min()), bottom + 0.1)
        grid = Grid(face.box((left - 0.06, right + 0.06), reach))
        local = face.local(grid.pixels)
        u, v = local[..., 0], local[..., 1]
        edge, shut, skin_top = (
            np.interp(u, line[:, 0], line[:, 1]).astype(np.float32) for line in (upper, lower, brow)
        )
        edge = edge - np.float32(LASHES * (bottom - top))
        way = (1 + OVERSHOOT) * np.clip(shut - edge, 0, None)
        skin = np.clip(edge - skin_top, LEAST_SKIN, None)
        mask = smoothstep(-0.02, 0.03, u - left) * smoothstep(-0.02, 0.03, right - u)
        return cls(grid, edge - v, way, skin, mask, face.axes[1])

    def draw(self, skin: NDArray[np.uint8], shut: float) -> None:
        """Put the lid into a picture: 0 where the photo has it, 1 closed."""
        part = skin[self.grid.box.slices]
        way = self.way * shut
        above = self.above + way
        # What was at the skin's top stays, its edge goes all the way as it is; the skin between is
        # stretched evenly.
        stretch = (self.skin - RIM) / (self.skin - RIM + way)
        origin = np.where(above < RIM, above, RIM + (above - RIM) * stretch)
        moved = np.where(above < self.skin + way, np.maximum(origin, 0), self.above) - self.above
        lid = sampled(part, self.grid.here - moved[..., None] * self.down, cv2.INTER_CUBIC)
        cover = (smoothstep(-0.012, 0.004, above) * self.mask * min(8 * shut, 1))[..., None]
        covered = part + (lid - part.astype(np.float32)) * cover
        skin[self.grid.box.slices] = (covered + 0.5).astype(np.uint8)
