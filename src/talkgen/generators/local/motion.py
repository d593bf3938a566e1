"""What moves beside the mouth: lids, head and shoulders. The same for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from talkgen.generators.local.voice import Articulation

__all__ = ["Motion", "Pose", "move"]

# Seconds between blinks; people who speak blink at such intervals.
BLINK_AFTER = (2.6, 5.4)
# A blink at its times in seconds: down fast, two frames of 25 fps shut, up slowly.
BLINK_TIMES = (0.0, 0.05, 0.14, 0.20, 0.26)
BLINK_SHUT = (0.0, 1.0, 1.0, 0.45, 0.0)
BREATH = 4.2  # seconds

# Eye distances, or radians, at the most.
SWAY, LIFT, ROLL, TURN, NOD = 0.026, 0.016, 0.012, 0.010, 0.022


@attrs.frozen
class Pose:
    """One frame. Lengths in eye distances, angles in radians.

    Attributes:
        opening: 0 (shut) .. 1.
        width: -1 (round) .. 1 (spread).
        blink: 0 (open) .. 1 (shut).
        x: Of the head, to the picture's right.
        y: Of the head, downwards.
        roll: Of the head, clockwise.
        turn: How far the nose is ahead of the head, to the picture's right.
        breath: -1..1.
    """

    opening: float
    width: float
    blink: float
    x: float
    y: float
    roll: float
    turn: float
    breath: float


@attrs.frozen(eq=False)
class Motion:
    """All frames of a video; one row each, columns as the fields of `Pose`."""

    rows: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    def pose(self, frame: int) -> Pose:
        """The pose of a frame, counted from 0."""
        return Pose(*map(float, self.rows[frame]))


def move(mouth: Articulation, fps: int, seed: int) -> Motion:
    """Add everything that moves by itself to the mouth's movement."""
    random = np.random.default_rng(seed)
    times = np.arange(len(mouth.opening)) / fps
    columns = (
        mouth.opening,
        mouth.width,
        _blinks(times, random),
        SWAY * _noise(times, 0.22, random),
        LIFT * _noise(times, 0.30, random) + NOD * (mouth.stress - 0.5 * mouth.stress.mean()),
        ROLL * _noise(times, 0.25, random),
        TURN * _noise(times, 0.18, random),
        np.sin(2 * np.pi * times / BREATH + random.uniform(0, 2 * np.pi)),
    )
    return Motion(np.stack(columns, axis=1).astype(np.float32))


def _blinks(times: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    shut = np.zeros_like(times)
    begin = random.uniform(0.6, 2.0)
    while begin < times[-1]:
        shut = np.maximum(shut, np.interp(times - begin, BLINK_TIMES, BLINK_SHUT))
        begin += random.uniform(*BLINK_AFTER)
    return shut


def _noise(
    times: NDArray[np.float64], frequency: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Smooth and aimless, -1..1: a few sines of frequencies that do not fit each other."""
    parts = [
        weight * np.sin(2 * np.pi * (frequency * factor * times + random.uniform()))
        for factor, weight in ((1.0, 0.6), (1.73, 0.28), (2.91, 0.12))
    ]
    return np.asarray(np.sum(parts, axis=0))
