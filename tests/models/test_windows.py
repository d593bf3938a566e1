"""Squares cut out of pictures, and the way back."""

from math import pi

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkgen.models._windows import Window, turned

NOISE = np.random.default_rng(7).integers(0, 256, (60, 80, 3), np.uint8)

angles = st.floats(-pi, pi)
places = st.floats(-500, 500)


def test_a_window_on_whole_pixels_gives_them_unchanged():
    window = Window(x=30, y=20, side=32)

    sampled = window.sample(NOISE, 32)

    assert sampled * 255 == pytest.approx(NOISE[4:36, 14:46], abs=0.01)


def test_alpha_is_ignored():
    opaque = np.dstack([NOISE, np.zeros((60, 80), np.uint8)])
    window = Window(x=30, y=20, side=50, angle=0.3)

    assert np.array_equal(window.sample(opaque, 24), window.sample(NOISE, 24))


def test_outside_of_the_picture_is_black():
    sampled = Window(x=0, y=0, side=40).sample(np.full((60, 80, 3), 255, np.uint8), 40)

    assert sampled[25:, 25:].min() == 1
    assert sampled[:15].max() == 0
    assert sampled[:, :15].max() == 0


def test_a_window_far_outside_is_black():
    assert Window(x=-900, y=4000, side=40).sample(NOISE, 16).max() == pytest.approx(0)


def test_shrinking_averages_rather_than_skips():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255

    sampled = Window(x=32, y=32, side=64).sample(stripes, 8)

    assert sampled == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2, pi / 2])
@pytest.mark.parametrize("size", [24, 96])
def test_what_is_seen_in_a_window_is_where_it_says(angle, size):
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[77:82, 168:173] = 255  # its middle is at (170.5, 79.5)
    window = Window(x=150, y=90, side=96, angle=angle)

    y, x = np.argwhere(window.sample(picture, size)[..., 0] > 0.3).mean(axis=0)
    seen = window.to_picture(np.array([[x + 0.5, y + 0.5]]) / size)

    assert seen[0] == pytest.approx([170.5, 79.5], abs=1.5)


@given(x=places, y=places, side=st.floats(1, 1000), angle=angles)
def test_corners_are_where_they_belong(x, y, side, angle):
    corners = Window(x, y, side, angle).to_picture(np.array([[0, 0], [1, 0], [0.5, 0.5]]))

    assert corners[2] == pytest.approx([x, y], abs=1e-2)
    assert np.hypot(*(corners[1] - corners[0])) == pytest.approx(side, rel=1e-3, abs=1e-2)
    # The top edge points where the angle says.
    along = (corners[1] - corners[0]) / side
    assert along == pytest.approx([np.cos(angle), np.sin(angle)], abs=1e-2)


@given(x=places, y=places, angle=angles)
def test_turning_back_undoes_turning(x, y, angle):
    there = turned(np.array([[x, y]]), angle)

    assert turned(there, -angle)[0] == pytest.approx([x, y], abs=1e-2)
