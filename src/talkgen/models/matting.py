"""From a network's mask to a clean cut-out: soft edges that follow the picture, pure colours.

Everything here is a pure function on arrays, whichever network the mask is from. What is smooth
is computed from a smaller picture, and what is not for one colour after the other: a photo of 50
megapixels would fill the memory otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from talkgen.requirements import explained

with explained():
    import cv2

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]
    Pixels: TypeAlias = NDArray[np.uint8]

__all__ = [
    "defocused_background",
    "estimate_foreground",
    "over",
    "refine_alpha",
    "with_alpha",
]

# Of the picture's longer side: about 0.07 eye distances of a head-and-shoulders portrait, and
# three pixels of a mask of 256.
_REACH = 0.012

# Side of the picture that the coefficients come from, at most: they are smooth.
_COEFFICIENTS_SIDE = 720

# Colours of RGB and of RGBA; beyond them is alpha.
_COLOURS = 3

# How much the mask's slope is steepened around one half before the picture shapes it.
_CONTRAST = 2.0

# How much an edge in the picture must stand out for the alpha to follow it, in squared intensity.
_FLAT = 2e-3

# Of 500 pixels along a side, a mask three off ends one off; after the first time, two and a half.
_TIMES = 2

# What is as good as nothing, and as good as everything.
_ENDS = 0.05


def refine_alpha(pixels: Pixels, alpha: Floats) -> Floats:
    """Fit a network's soft mask to the edges of the picture.

    The contrast is stretched around one half, a guided filter (He, Sun and Tang, 2013) with the
    picture as the guide draws the edge where the picture has one, and the ends are clipped;
    twice, so that the second time starts nearer to the edge.

    Args:
        pixels: RGB or RGBA `uint8`, shape (height, width, 3 or 4); a fourth channel is ignored.
        alpha: `float32` in 0..1, shape (height, width).

    Returns:
        `float32` in 0..1, shape (height, width).
    """
    guide = _shrunk(pixels, _COEFFICIENTS_SIDE)
    for _ in range(_TIMES):
        fitted = _guided(pixels, guide, _clipped((alpha - 0.5) * _CONTRAST + 0.5))
        alpha = _clipped((fitted - _ENDS) / (1 - 2 * _ENDS))
    return alpha


def _guided(pixels: Pixels, guide: Floats, values: Floats) -> Floats:
    """The guided filter, its coefficients from a smaller picture, the guide (He and Sun, 2015)."""
    slope, offset = _coefficients(guide, _resized(values, _size(guide)))
    fitted = _resized(offset, _size(values))
    for colour in range(_COLOURS):
        fitted += _resized(slope[..., colour], _size(values)) * _scaled(pixels[..., colour])
    return fitted


def _coefficients(guide: Floats, values: Floats) -> tuple[Floats, Floats]:
    """The values in each window as a plane over the guide's colours, averaged over windows."""
    radius = _radius(_REACH, values)
    mean, value = _box(guide, radius), _box(values, radius)
    crossed = _box(guide * values[..., None], radius) - mean * value[..., None]
    slope = _solved(_covariance(guide, mean, radius), crossed)
    return _box(slope, radius), _box(value - _dot(slope, mean), radius)


def _covariance(guide: Floats, mean: Floats, radius: int) -> Floats:
    """Of the colours in each window, regularised, shape (height, width, 3, 3)."""
    products = guide[..., :, None] * guide[..., None, :]
    averaged = _box(products.reshape(*guide.shape[:2], 9), radius).reshape(products.shape)
    covariance: Floats = averaged - mean[..., :, None] * mean[..., None, :]
    return covariance + np.float32(_FLAT) * np.eye(3, dtype=np.float32)


def _solved(matrices: Floats, right: Floats) -> Floats:
    """Cramer's rule on symmetric 3x3 matrices: a fifth of the time of a general solver."""
    a, b, c = (matrices[..., i] for i in range(3))
    cofactors = [np.cross(b, c), np.cross(c, a), np.cross(a, b)]
    determinant = _dot(a, cofactors[0])
    return np.stack([_dot(right, cofactor) / determinant for cofactor in cofactors], axis=-1)


def _dot(a: Floats, b: Floats) -> Floats:
    product: Floats = np.einsum("...i,...i->...", a, b)
    return product


# Radii of the two passes, of the picture's longer side: wide to reach pure colour from within
# hair, narrow to bring back detail. From 90 and 6 pixels of the method's own pictures.
_PASSES = (0.09, 0.006)

# Side of the picture that is blurred with them, at most. At a larger one the colours at edges are
# off by 1 % less, for four times the time.
_BLURRED_SIDE = 1024


def estimate_foreground(pixels: Pixels, alpha: Floats) -> Pixels:
    """The person's own colours where a soft edge has the old background mixed in.

    Blur fusion (Forte, "Approximate fast foreground colour estimation", 2021) in two passes.

    Args:
        pixels: RGB or RGBA `uint8`, shape (height, width, 3 or 4); a fourth channel is ignored.
        alpha: `float32` in 0..1, shape (height, width).

    Returns:
        RGB `uint8`, shape (height, width, 3): the picture itself where alpha is 1.
    """
    picture = _shrunk(pixels, _BLURRED_SIDE)
    front, back = _blurred(picture, _resized(alpha, _size(picture)))

    def whole(colour: int) -> Floats:
        ours, theirs = (_resized(layer[..., colour], _size(alpha)) for layer in (front, back))
        return _fused(_scaled(pixels[..., colour]), ours, theirs, alpha)

    return _in_colour(whole)


def _blurred(picture: Floats, alpha: Floats) -> tuple[Floats, Floats]:
    """The front and the back, each blurred by its own weights."""
    weight = alpha[..., None]
    foreground = back = picture
    for share in _PASSES:
        radius = _radius(share, alpha)
        front, back = _average(foreground, weight, radius), _average(back, 1 - weight, radius)
        foreground = _fused(picture, front, back, weight)
    return front, back


def _fused(picture: Floats, front: Floats, back: Floats, weight: Floats) -> Floats:
    """The blurred front, which takes up what the blend of both lacks."""
    fused: Floats = front + weight * (picture - weight * front - (1 - weight) * back)
    return fused


def _average(colours: Floats, weight: Floats, radius: int) -> Floats:
    # Where nothing of the layer is near, any colour will do; it is not seen there.
    return _box(colours * weight, radius) / (_box(weight, radius)[..., None] + 1e-5)


def with_alpha(pixels: Pixels, alpha: Floats) -> Pixels:
    """Make a picture transparent.

    Args:
        pixels: RGB or RGBA `uint8`, shape (height, width, 3 or 4).
        alpha: `float32` in 0..1, shape (height, width); multiplied by the alpha that is there.

    Returns:
        RGBA `uint8`, shape (height, width, 4), alpha straight.
    """
    opaque = np.full_like(pixels[..., :1], 255)
    rgba = np.concatenate([pixels, opaque], axis=-1)[..., :4]
    rgba[..., 3] = np.rint(rgba[..., 3] * alpha)
    return rgba


def over(rgba: Pixels, background: Pixels) -> Pixels:
    """Lay a cut-out on a background.

    The mean is taken of the encoded values, not in linear light: the alpha and the foreground
    were estimated from them as such a mean, so that only this brings back the photo on its own
    background, and browsers and editors do the same.

    Args:
        rgba: `uint8`, shape (height, width, 4), alpha straight.
        background: RGB `uint8`, shape (height, width, 3), or (3,) for one colour.

    Returns:
        RGB `uint8`, shape (height, width, 3).
    """
    alpha = _scaled(rgba[..., 3])

    def blend(colour: int) -> Floats:
        return _scaled(rgba[..., colour]) * alpha + _scaled(background[..., colour]) * (1 - alpha)

    return _in_colour(blend)


# Of the picture's longer side: no letter stays legible, and no edge competes with the person.
_DEFOCUS = 0.03

# Side of the picture that is put out of focus, at most: nothing as small as its pixels is left.
_DEFOCUSED_SIDE = 720


def defocused_background(pixels: Pixels, alpha: Floats) -> Pixels:
    """What is behind a person, out of focus.

    The person has next to no part in the blur: it would stand around them as a halo.

    Args:
        pixels: The photo, RGB or RGBA `uint8`, shape (height, width, 3 or 4).
        alpha: The person, `float32` in 0..1, shape (height, width).

    Returns:
        RGB `uint8`, shape (height, width, 3).
    """
    picture = _shrunk(pixels, _DEFOCUSED_SIDE)
    behind = 1 - _resized(alpha, _size(picture))[..., None] + np.float32(0.001)
    sigma = _DEFOCUS * max(_size(picture))
    colours = cv2.GaussianBlur(picture * behind, (0, 0), sigma)
    weight = cv2.GaussianBlur(behind, (0, 0), sigma)[..., None]
    blurred = np.asarray(colours / weight, np.float32)
    return _in_colour(lambda colour: _resized(blurred[..., colour], _size(alpha)))


def _scaled(pixels: Pixels) -> Floats:
    """From bytes to 0..1."""
    return pixels.astype(np.float32) / np.float32(255)


def _in_colour(compute: Callable[[int], Floats]) -> Pixels:
    """RGB of three planes in 0..1, one made after the other."""
    planes = (np.rint(_clipped(compute(colour)) * 255) for colour in range(_COLOURS))
    return np.stack([plane.astype(np.uint8) for plane in planes], axis=-1)


def _shrunk(pixels: Pixels, side: int) -> Floats:
    """The colours in 0..1, shape (height, width, 3), scaled down until no side is longer."""
    height, width = pixels.shape[:2]
    scale = min(1, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    planes = [_resized(_scaled(pixels[..., colour]), size) for colour in range(_COLOURS)]
    return np.stack(planes, axis=-1)


def _size(values: Floats) -> tuple[int, int]:
    """Width and height."""
    return values.shape[1], values.shape[0]


def _radius(share: float, values: Floats) -> int:
    return max(1, round(share * float(max(values.shape))))


def _clipped(values: Floats) -> Floats:
    return np.clip(values, 0, 1)


def _box(values: Floats, radius: int) -> Floats:
    """The mean of the square around each pixel, reflected at the borders."""
    size = (2 * radius + 1, 2 * radius + 1)
    return np.asarray(cv2.blur(values, size, borderType=cv2.BORDER_REFLECT), np.float32)


def _resized(values: Floats, size: tuple[int, int]) -> Floats:
    """Scaled to a width and height."""
    if _size(values) == size:
        return values
    shrinks = size[0] < values.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, size, interpolation=how), np.float32)
