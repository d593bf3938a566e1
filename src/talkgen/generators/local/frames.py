"""A prepared portrait and a pose give a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import cv2
import numpy as np

from talkgen.generators.local.eyes import Eye
from talkgen.generators.local.mouth import Mouth
from talkgen.generators.local.rig import Face, sampled, smoothstep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from talkgen.generators.local.motion import Pose
    from talkgen.generators.local.rig import Floats

__all__ = ["Puppet"]

BREATHING = 0.012  # eye distances that the shoulders rise and fall
SHOULDER_SHARE = 0.12  # of the head's movement
COARSE = 8  # the head's movement is smooth: its map is made on every eighth pixel


@attrs.frozen(eq=False)
class Puppet:
    """A portrait ready to be posed.

    Attributes:
        pixels: RGB, shape (height, width, 3).
        alpha: 0..1, shape (height, width); what is not the person stays where it is.
        background: RGB, what is behind the person.
        face: Where the face is.
        mouth: The lips and what is behind them.
        eyes: Both.
    """

    pixels: NDArray[np.uint8]
    alpha: Floats
    background: NDArray[np.uint8]
    face: Face
    mouth: Mouth
    eyes: tuple[Eye, Eye]
    head: Head

    @classmethod
    def of(
        cls,
        pixels: NDArray[np.uint8],
        alpha: Floats,
        background: NDArray[np.uint8],
        points: Floats,
    ) -> Puppet:
        """Prepare a portrait.

        Args:
            pixels: RGB `uint8`, shape (height, width, 3).
            alpha: 0..1, shape (height, width).
            background: RGB `uint8`, shape (height, width, 3).
            points: The face mesh, shape (468, 2), in pixels.
        """
        height, width = alpha.shape
        face = Face(np.asarray(points, np.float32), width, height)
        eyes = (Eye.of(face, 0), Eye.of(face, 1))
        head = Head.of(face)
        return cls(pixels, alpha, background, face, Mouth.of(face, pixels), eyes, head)

    def frame(self, pose: Pose) -> NDArray[np.uint8]:
        """The portrait in a pose: RGB, shape (height, width, 3)."""
        skin = self.pixels.copy()
        self.mouth.draw(skin, pose)
        if pose.blink > 0:
            for eye in self.eyes:
                eye.draw(skin, pose.blink)
        return self._composed(skin, self.head.map(pose))

    def _composed(self, skin: NDArray[np.uint8], source: Floats) -> NDArray[np.uint8]:
        warped = sampled(skin, source, cv2.INTER_CUBIC)
        alpha = sampled(self.alpha, source)
        return np.asarray(cv2.blendLinear(warped, self.background, alpha, 1 - alpha), np.uint8)


@attrs.frozen(eq=False)
class Head:
    """How the head's movement spreads over the picture, on a coarse grid.

    Attributes:
        x, y: Pixels of the grid's points.
        weight: 1 on the head, less on the neck, little at the shoulders.
        depth: How far a point is in front of the head's middle, 0..1.
        pivot: The neck, in pixels.
        unit: The distance between the eyes in pixels.
        here: The place of every pixel, shape (height, width, 2).
    """

    x: Floats
    y: Floats
    weight: Floats
    depth: Floats
    pivot: Floats
    unit: float
    here: Floats

    @classmethod
    def of(cls, face: Face) -> Head:
        # Each point stands in the middle of its pixels, as cv2.resize sees it.
        columns, rows = (
            (np.arange(-(-side // COARSE), dtype=np.float32) + 0.5) * COARSE - 0.5
            for side in (face.width, face.height)
        )
        x, y = np.meshgrid(columns, rows)
        local = face.local(np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(*x.shape, 2)
        u, v = local[..., 0], local[..., 1]
        chin = float(face.local(face.points[[152]])[0, 1])
        weight = 1 - (1 - SHOULDER_SHARE) * smoothstep(chin + 0.05, chin + 1.1, v)
        depth = np.exp(-((u / 0.9) ** 2) - ((v + 0.45) / 1.0) ** 2).astype(np.float32)
        pivot = face.origin + (chin + 0.4) * face.axes[1]
        here = np.stack(np.meshgrid(np.arange(face.width), np.arange(face.height)), axis=-1)
        return cls(x, y, weight, depth, pivot, face.unit, here.astype(np.float32))

    def map(self, pose: Pose) -> Floats:
        """Where each pixel comes from, shape (height, width, 2)."""
        right = (pose.x + pose.turn * self.depth) * self.unit
        right = right - pose.roll * (self.y - self.pivot[1])
        down = pose.y * self.unit + pose.roll * (self.x - self.pivot[0])
        breath = pose.breath * BREATHING * self.unit * (1 - self.weight)
        way = np.stack([right * self.weight, down * self.weight - breath], axis=-1)
        return self.here - self._enlarged(np.asarray(way, np.float32))

    def _enlarged(self, coarse: Floats) -> Floats:
        height, width = self.here.shape[:2]
        rows, columns = coarse.shape[:2]
        full = cv2.resize(coarse, (columns * COARSE, rows * COARSE))
        return np.asarray(full[:height, :width], np.float32)
