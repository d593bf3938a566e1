"""From a recording to the movement of a mouth.

The sound is measured 100 times a second in broad bands, as a listener would hear it: how loud a
syllable is says how far the jaw drops, the balance of the bands says whether the lips are round
or spread, and short dips of the level are where they touch. Nothing depends on the language.

Bands follow the formants of adult speech (Peterson and Barney 1952): the first lies at 250-900 Hz
and rises as the mouth opens; the second at 700-1300 Hz for rounded back vowels, at 1700-2600 Hz
for spread front ones.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
import numpy as np
from scipy.ndimage import binary_closing, binary_opening, gaussian_filter1d, maximum_filter1d

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["Articulation", "articulate"]

RATE = 100
"""Measurements a second."""

_WINDOW = 0.032  # seconds that one measurement looks at
_CHUNK = 1000  # measurements at a time, so that a long recording needs no large spectrogram
_EDGES = (80, 350, 700, 1300, 2000, 3500, 8000)  # Hz
_MURMUR, _OPEN, _BACK, _MID, _FRONT, _HISS = range(6)

_GATE = 30.0  # dB below the loud parts of the speech: what is softer is a pause
_FLOOR = -55.0  # dB of full scale: a recording that never rises above is silence
_PAUSE = 0.16  # seconds; a shorter gap is part of a word
_AUDIBLE = 0.1  # an opening below it is hardly one
_LEAD = 0.02  # seconds that lips are ahead of their sound


@attrs.frozen(eq=False)
class Articulation:
    """The movement of a mouth, one value for each frame.

    Attributes:
        opening: `float32` in 0..1: lips touch at 0, the jaw is down at 1.
        width: `float32` in -1..1: round at -1, at rest at 0, spread at 1.
        stress: `float32` in 0..1: how much a syllable stands out.
    """

    opening: NDArray[np.float32]
    width: NDArray[np.float32]
    stress: NDArray[np.float32]


def articulate(
    samples: NDArray[np.float32],
    sample_rate: int,
    *,
    fps: int,
    frames: int,
    at_chunk: Callable[[], None] | None = None,
) -> Articulation:
    """Move the mouth to a recording.

    Args:
        samples: `float32` in -1..1, shape (channels, n).
        sample_rate: Hz.
        fps: Frames a second.
        frames: How many to make; those after the end of the recording are at rest.
        at_chunk: Called every few milliseconds of work; may raise to stop.
    """
    bands = _decibels(samples, sample_rate, at_chunk)
    voiced, loudness = _loudness(bands)
    # Lips meet faster than the jaw swings, so their touch is not smoothed with its movement.
    apart = 1 - _smooth(_closures(bands, voiced), 0.015)
    opening = _full(_smooth(_opening(bands, loudness), 0.045)) * apart * _smooth(voiced, 0.02)
    width = _smooth(np.clip(1.6 * _width(bands), -1, 1) * voiced, 0.04)
    times = (np.arange(frames) + 0.5) / fps + _LEAD
    return Articulation(
        opening=_at(times, opening),
        width=_at(times, width),
        stress=_at(times, _stress(loudness)),
    )


# --- measuring ---------------------------------------------------------------------------------


def _decibels(
    samples: NDArray[np.float32], sample_rate: int, at_chunk: Callable[[], None] | None
) -> NDArray[np.float32]:
    """Level of each band in dB of full scale, shape (n, bands)."""
    chunks = []
    for chunk in _powers(samples, sample_rate):
        chunks.append(chunk)
        if at_chunk is not None:
            at_chunk()
    power = np.concatenate(chunks)
    return np.asarray(10 * np.log10(power + 1e-12), np.float32)


def _powers(samples: NDArray[np.float32], sample_rate: int) -> Iterator[NDArray[np.float64]]:
    size = max(16, round(_WINDOW * sample_rate))
    taper = np.hanning(size)
    frequencies = np.fft.rfftfreq(size, 1 / sample_rate)
    filters = np.array(
        [(frequencies >= low) & (frequencies < high) for low, high in pairwise(_EDGES)],
        float,
    ).T * (2 / (taper.sum() ** 2))
    count = 1 + samples.shape[1] * RATE // sample_rate
    for first in range(0, count, _CHUNK):
        centres = np.arange(first, min(first + _CHUNK, count)) * sample_rate // RATE
        yield np.abs(np.fft.rfft(_windows(samples, centres, size) * taper)) ** 2 @ filters


def _windows(
    samples: NDArray[np.float32], centres: NDArray[np.int64], size: int
) -> NDArray[np.float32]:
    """The mean channel around each centre, silence beyond both ends, shape (n, size)."""
    start = int(centres[0]) - size // 2
    stop = int(centres[-1]) - size // 2 + size
    inside = samples[:, max(start, 0) : max(stop, 0)].mean(axis=0)
    padded = np.zeros(stop - start, np.float32)
    padded[max(-start, 0) :][: inside.size] = inside
    windows: NDArray[np.float32] = padded[(centres - centres[0])[:, None] + np.arange(size)]
    return windows


# --- deciding ----------------------------------------------------------------------------------


def _loudness(
    bands: NDArray[np.float32],
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Where there is speech, and how loud it is from 0 (just audible) to 1 (loud)."""
    level = _total(bands)
    active = level[level > level.max() - 40]
    loud, soft = np.percentile(active, [95, 5])
    if loud < _FLOOR:
        return np.zeros(level.size, bool), np.zeros(level.size, np.float32)
    # Noise behind the speech fills the pauses: the gate lies above it, far below the speech.
    gate = min(max(loud - _GATE, soft + 6), loud - _GATE / 2)
    speech = _without_gaps(level > gate)
    return speech, np.asarray(np.clip((level - gate) / (loud - gate), 0, 1) ** 1.2, np.float32)


def _total(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(10 * np.log10((10 ** (bands / 10)).sum(axis=1)), np.float32)


def _without_gaps(speech: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Speech with the gaps inside words closed; what is shorter than a sound is dropped."""
    reach = round(_PAUSE * RATE / 2)
    padded = np.pad(speech, 2 * reach)
    words = binary_closing(padded, np.ones(2 * reach + 1, bool))
    sounds = binary_opening(words, np.ones(5, bool))
    return np.asarray(sounds[2 * reach : -2 * reach], np.bool_)


def _closures(bands: NDArray[np.float32], speech: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How firmly the lips touch, 0..1: the hum of b and m, the gap and dull burst of p."""
    hum = bands[:, _MURMUR] - bands[:, _OPEN:_HISS].max(axis=1)
    level = _total(bands[:, :_HISS])
    gap = _surroundings(level) - level
    # Hissing sounds need the mouth a little open.
    hiss = bands[:, _HISS] - bands[:, :_MID].max(axis=1)
    # Lips pull the second formant down, the tongue's tip pulls it up (Delattre, Liberman and
    # Cooper 1955).
    labial = bands[:, _BACK] - bands[:, _MID]
    shut = np.maximum(_ramp(hum, 5, 9), _ramp(gap, 10, 16) * (1 - 0.6 * _ramp(hiss, 0, 8)))
    return _dilated(shut * (0.3 + 0.7 * _ramp(labial, -4, 6)) * speech, 0.02)


def _surroundings(level: NDArray[np.float32]) -> NDArray[np.float32]:
    """The lower of the loudest moments just before and just after."""
    reach = 13
    before = maximum_filter1d(level, reach, origin=reach // 2)
    after = maximum_filter1d(level, reach, origin=-(reach // 2))
    return np.asarray(np.minimum(before, after), np.float32)


def _opening(bands: NDArray[np.float32], loudness: NDArray[np.float32]) -> NDArray[np.float32]:
    first_formant = bands[:, _OPEN : _BACK + 1].max(axis=1) - bands[:, _MURMUR]
    return np.asarray(loudness * (0.5 + 0.5 * _ramp(first_formant, -10, 6)), np.float32)


def _full(opening: NDArray[np.float32]) -> NDArray[np.float32]:
    """Quiet and loud voices alike use the jaw's whole way, on their loudest syllables."""
    loud = opening[opening > _AUDIBLE]
    most = float(np.percentile(loud, 95)) if loud.size else 1.0
    return np.asarray(np.clip(opening / most, 0, 1) ** 0.4, np.float32)


def _width(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    murmur, opening, back, mid, front = bands[:, :_HISS].T
    low_second = _ramp(back - mid, 4, 18)
    low_first = _ramp(murmur - opening, 2, 6) * _ramp(back - front, -10, 0)
    spread = _ramp(front - back, 10, 30)
    return np.asarray(spread * 0.8 - np.maximum(low_second, low_first), np.float32)


def _stress(loudness: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is louder than the speech around it."""
    return np.asarray(
        2 * np.clip(_smooth(loudness, 0.08) - _smooth(loudness, 0.5), 0, 1), np.float32
    )


# --- curves ------------------------------------------------------------------------------------


def _ramp(values: NDArray[np.floating], low: float, high: float) -> NDArray[np.float32]:
    """0 up to `low`, 1 from `high` on, smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _smooth(
    values: NDArray[np.floating] | NDArray[np.bool_], seconds: float
) -> NDArray[np.float32]:
    return np.asarray(
        gaussian_filter1d(values.astype(np.float32), seconds * RATE, mode="nearest"), np.float32
    )


def _dilated(values: NDArray[np.floating], seconds: float) -> NDArray[np.float32]:
    return np.asarray(maximum_filter1d(values, 1 + 2 * round(seconds * RATE)), np.float32)


def _at(times: NDArray[np.float64], values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.interp(times, np.arange(values.size) / RATE, values, right=0).astype(np.float32)
