"""Cut-outs of composites whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from talkgen.models.matting import (
    defocused_background,
    estimate_foreground,
    over,
    refine_alpha,
    with_alpha,
)

from ..memory import growth, on_linux

SIZE = 500
Y, X = np.mgrid[:SIZE, :SIZE].astype(np.float32)
FROM_CENTRE = np.hypot(X - 250, Y - 250)


def disc(radius: float, softness: float) -> np.ndarray:
    """The alpha of a disc in the middle whose edge is `softness` pixels wide."""
    return np.clip((radius - FROM_CENTRE) / softness + 0.5, 0, 1).astype(np.float32)


def plain(*colour: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), colour, np.uint8)


def blended(front: np.ndarray, back: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    weight = alpha[..., None]
    return np.rint(front * weight + back * (1 - weight)).astype(np.uint8)


RED, BLUE = plain(200, 60, 40), plain(30, 60, 220)


# --- alpha -------------------------------------------------------------------------------------


def test_a_coarse_mask_is_fitted_to_the_edge_in_the_picture():
    truth = disc(150, softness=1)
    picture = blended(RED, BLUE, truth)
    coarse = disc(153, softness=9)

    refined = refine_alpha(picture, coarse)

    assert np.abs(refined - truth).mean() < np.abs(coarse - truth).mean() / 2
    assert refined[FROM_CENTRE < 140].min() == 1
    assert refined[FROM_CENTRE > 170].max() == 0


def test_soft_strands_stay_soft():
    strands = (disc(150, 1) * (0.35 + 0.3 * (X % 8 < 4))).astype(np.float32)
    strands[FROM_CENTRE < 125] = 1
    picture = blended(RED, BLUE, strands)

    refined = refine_alpha(picture, disc(140, 12))

    # Between strands, within the mask's uncertainty, something of the background is seen.
    ring = refined[(FROM_CENTRE > 136) & (FROM_CENTRE < 144)]
    assert ((ring > 0.05) & (ring < 0.95)).mean() > 0.3


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_certainty_stays(value):
    certain = np.full((SIZE, SIZE), value, np.float32)

    assert (refine_alpha(RED, certain) == value).all()


def test_a_large_picture_is_refined_as_its_small_one():
    small = refine_alpha(blended(RED, BLUE, disc(150, 1)), disc(153, 9))
    grow = np.ones((3, 3))
    large = refine_alpha(
        np.kron(blended(RED, BLUE, disc(150, 1)), grow[..., None]).astype(np.uint8),
        np.kron(disc(153, 9), grow).astype(np.float32),
    )

    assert large.shape == (1500, 1500)
    assert np.abs(large[1::3, 1::3] - small).mean() < 0.01


shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))


@given(st.data(), shapes)
def test_refined_alpha_is_an_alpha(data, shape):
    pixels = data.draw(arrays(np.uint8, (*shape, 3)))
    alpha = data.draw(arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))

    refined = refine_alpha(pixels, alpha)

    assert refined.shape == shape
    assert refined.dtype == np.float32
    assert 0 <= refined.min() <= refined.max() <= 1


# --- colours -----------------------------------------------------------------------------------


def test_the_old_background_does_not_shine_through():
    alpha = disc(150, softness=20)
    back = np.dstack([X / 2, Y / 2, 255 - X / 2]).astype(np.uint8)
    picture = blended(RED, back, alpha)

    colours = estimate_foreground(picture, alpha)

    seen = alpha > 0.1
    error = np.abs(colours.astype(float) - RED)[seen]
    mixed = np.abs(picture.astype(float) - RED)[seen]
    assert error.mean() < 2
    assert error.mean() < mixed.mean() / 5
    assert error.max() < 40


def test_texture_of_the_person_is_kept():
    alpha = disc(150, softness=6)
    front = RED.copy()
    front[(X.astype(int) // 3) % 2 == 0] = (120, 90, 60)

    colours = estimate_foreground(blended(front, BLUE, alpha), alpha)

    assert np.abs(colours.astype(float) - front)[alpha == 1].max() <= 1
    assert np.abs(colours.astype(float) - front)[alpha > 0.5].mean() < 3


def thrice(array: np.ndarray) -> np.ndarray:
    return array.repeat(3, axis=0).repeat(3, axis=1)


def test_a_large_picture_gets_the_colours_of_its_small_one():
    alpha = disc(150, softness=20)
    picture = blended(RED, BLUE, alpha)

    large = estimate_foreground(thrice(picture), thrice(alpha))

    assert large.shape == (1500, 1500, 3)
    error = np.abs(large[1::3, 1::3].astype(int) - estimate_foreground(picture, alpha))
    assert error.mean() < 0.5
    assert error[alpha > 0.1].max() < 10


@on_linux
@pytest.mark.parametrize("function", ["estimate_foreground", "defocused_background"])
@pytest.mark.parametrize(("shape", "megabytes"), [((3, 20_000), 100), ((3_000, 4_000), 500)])
def test_neither_a_long_picture_nor_a_large_one_fills_the_memory(function, shape, megabytes):
    """A filter holds as many rows of the picture as it is high itself."""
    grown = growth(
        f"import numpy as np; from talkgen.models.matting import {function};"
        f"pixels, alpha = np.zeros(({shape}) + (3,), 'u1'), np.full({shape}, 0.5, 'f4')",
        f"{function}(pixels, alpha)",
    )

    assert grown < megabytes


@given(st.data(), shapes)
def test_where_the_person_is_opaque_the_colours_are_the_pictures(data, shape):
    pixels = data.draw(arrays(np.uint8, (*shape, 3)))
    alpha = data.draw(arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))

    colours = estimate_foreground(pixels, alpha)

    assert colours.shape == pixels.shape
    assert colours.dtype == np.uint8
    opaque = alpha == 1
    assert np.abs(colours[opaque].astype(int) - pixels[opaque]).max(initial=0) <= 1


# --- laying on ---------------------------------------------------------------------------------


def test_a_cut_out_on_its_own_background_is_the_photo():
    alpha = disc(150, softness=20)
    picture = blended(RED, BLUE, alpha)

    again = over(with_alpha(estimate_foreground(picture, alpha), alpha), BLUE)

    assert np.abs(again.astype(int) - picture).max() <= 12


def test_opaque_covers_and_clear_shows():
    cut = with_alpha(RED, disc(150, softness=1))

    laid = over(cut, BLUE)

    assert (laid[FROM_CENTRE < 148] == RED[0, 0]).all()
    assert (laid[FROM_CENTRE > 152] == BLUE[0, 0]).all()


def test_alpha_is_multiplied_by_the_one_that_is_there():
    half = np.dstack([RED, np.full((SIZE, SIZE), 100, np.uint8)])

    cut = with_alpha(half, np.full((SIZE, SIZE), 0.5, np.float32))

    assert (cut[..., 3] == 50).all()
    assert (half[..., 3] == 100).all()


def test_a_defocused_background_has_no_halo_of_the_person():
    alpha = disc(150, softness=2)

    behind = defocused_background(blended(RED, BLUE, alpha), alpha)

    outside = behind[FROM_CENTRE > 152].astype(int)
    assert np.abs(outside - BLUE[0, 0]).max() <= 4


def test_a_large_picture_is_as_much_out_of_focus_as_its_small_one():
    alpha = disc(150, softness=2)
    picture = blended(RED, np.dstack([X / 2, Y / 2, 255 - X / 2]).astype(np.uint8), alpha)

    large = defocused_background(thrice(picture), thrice(alpha))

    small = defocused_background(picture, alpha)
    assert np.abs(large[1::3, 1::3].astype(int) - small).max() <= 2


def test_a_defocused_background_is_blurred():
    stripes = plain(0, 0, 0)
    stripes[:, X[0] % 8 < 4] = 255

    behind = defocused_background(stripes, np.zeros((SIZE, SIZE), np.float32))

    assert behind.astype(int).std() < 12
