"""The face's own frame, however the head is turned."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from talkgen.generators.local.rig import EYE_CORNERS, LIPS, MOUTH_CORNERS, Face

UNIT = 80.0


def rotation(turn, nod, roll):
    """Of a head: about the vertical axis, the eyes' axis and the view, in degrees."""

    def about(axis, degrees):
        a, b = [i for i in range(3) if i != axis]
        matrix = np.eye(3)
        sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
        matrix[[a, a, b, b], [a, b, a, b]] = cosine, -sine, sine, cosine
        return matrix

    return about(2, roll) @ about(1, turn) @ about(0, nod)


def head(turn=0.0, nod=0.0, roll=0.0, corners=0.25):
    """The landmarks that the frame rests on, as a mesh would see them in a picture.

    The middle of the lips is in front of the corners by so many eye distances.
    """
    points = np.zeros((468, 3))
    for x, eye in zip((-0.5, 0.5), EYE_CORNERS, strict=True):
        points[eye] = [(x - 0.2, -1.0, corners), (x + 0.2, -1.0, corners)]
    points[MOUTH_CORNERS] = [(-0.45, 0, corners), (0.45, 0, corners)]
    points[LIPS] = 0
    placed = points @ rotation(turn, nod, roll).T * UNIT + (256, 200, 0)
    return Face(placed.astype(np.float32), 512, 512)


heads = st.builds(
    head, st.floats(-60, 60), st.floats(-20, 20), st.floats(-40, 40), st.floats(-0.1, 0.4)
)
spots = st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5))


@given(heads, spots)
@example(head(turn=-1.72e-18, roll=1.625, corners=0.0), (0.0, 0.0))
def test_each_pixel_has_one_place_on_a_face(face, spot):
    for surface in (face, face.bent()):
        pixel = surface.pixels(np.array(spot, np.float32))
        assert surface.local(pixel) == pytest.approx(spot, abs=2e-3)
        assert surface.pixels(surface.local(pixel)) == pytest.approx(pixel, abs=0.02)


@given(heads, spots)
def test_ways_are_where_a_small_step_leads(face, spot):
    surface, step = face.bent(), 0.01
    u, v = np.float32(spot)
    for du, dv in ((step, 0.0), (0.0, step)):
        there, back = (
            surface.pixels(np.array([u + s * du, v + s * dv], np.float32)) for s in (0.5, -0.5)
        )
        assert surface.ways(u, np.float32(du), np.float32(dv)) == pytest.approx(
            there - back, abs=0.02
        )


@given(st.floats(-60, 60), st.floats(-20, 20), st.floats(-40, 40))
def test_turning_the_head_moves_no_landmark_on_the_face(turn, nod, roll):
    straight, turned = head().bent(), head(turn, nod, roll).bent()
    assert turned.unit == pytest.approx(UNIT, rel=1e-3)
    assert turned.bend == pytest.approx(straight.bend, abs=0.01)
    if abs(turn) > 30:  # the far corner of the mouth is out of sight
        return
    corners = turned.local(turned.points[MOUTH_CORNERS, :2])
    assert corners == pytest.approx(np.array([(-0.45, 0), (0.45, 0)]), abs=0.01)


@given(st.floats(-60, 60), st.floats(-40, 40))
def test_the_turn_is_told_in_degrees(turn, roll):
    assert head(turn, 0, roll).turn == pytest.approx(turn, abs=0.1)


def test_a_mouth_that_lies_behind_its_corners_is_flat():
    assert head(corners=-0.1).bent().bend == 0
