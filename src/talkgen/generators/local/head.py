"""How the head's and the shoulders' movement spreads over a portrait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from talkgen.generators.local.rig import Face, Floats, Grid, smoothstep

if TYPE_CHECKING:
    from talkgen.generators.local.motion import Pose

__all__ = ["Head"]

CHIN = 152
BREATHING = 0.012  # eye distances that the shoulders rise and fall
SHOULDER_SHARE = 0.12  # of the head's movement
CELLS = 11  # points of the fields for an eye distance


@attrs.frozen(eq=False)
class Head:
    """The head's movement over the picture, on a coarse grid.

    Attributes:
        grid: Over the whole picture.
        away: The way from the neck, which the head rolls about, to each point, in eye distances.
        weight: 1 on the head, less on the neck, little at the shoulders.
        depth: How far a point is in front of the head's middle, 0..1.
        unit: The distance between the eyes in pixels.
    """

    grid: Grid
    away: Floats
    weight: Floats
    depth: Floats
    unit: float

    @classmethod
    def of(cls, face: Face) -> Head:
        """Prepare the head of a face."""
        grid = Grid(face.whole, max(1, round(face.unit / CELLS)))
        local = face.local(grid.pixels)
        u, v = local[..., 0], local[..., 1]
        chin = face.height_of(CHIN)
        weight = 1 - (1 - SHOULDER_SHARE) * smoothstep(chin + 0.05, chin + 1.1, v)
        depth = np.exp(-((u / 0.9) ** 2) - ((v + 0.45) / 1.0) ** 2).astype(np.float32)
        neck = face.pixels(np.array([0, chin + 0.4], np.float32))
        return cls(grid, (grid.pixels - neck) / np.float32(face.unit), weight, depth, face.unit)

    def source(self, pose: Pose) -> Floats:
        """Where each pixel comes from, shape (height, width, 2)."""
        right = pose.x + pose.turn * self.depth - pose.roll * self.away[..., 1]
        down = pose.y + pose.roll * self.away[..., 0]
        breath = pose.breath * BREATHING * (1 - self.weight)
        way = np.stack([right * self.weight, down * self.weight - breath], axis=-1) * self.unit
        return self.grid.here - self.grid.enlarged(way.astype(np.float32))
