"""Where the lips part: their inner edges, as curves over the mouth's width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import cv2
import numpy as np

from talkgen.generators.local.rig import Face, Floats, sampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TEETH_SEEN", "Lips"]

# Landmarks of the inner lips, from the picture's left to its right.
UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
CORNERS = (61, 291)  # of the outer lips

TEETH_SEEN = (0.05, 0.09)
"""Gap of the photo's lips below which it shows no teeth, and from which it does."""

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
        if lips.widest < TEETH_SEEN[0]:
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

    def sag(self, share: float) -> float:
        """How far below the corners lips meet in the middle, when the upper does this share."""
        left, middle, right = np.array([self.left, (self.left + self.right) / 2, self.right])
        corners = self.upper_line(np.array([left, right], np.float32)).mean()
        met = self._at(self.upper, middle) + share * self.widest
        return float(met - corners)

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
