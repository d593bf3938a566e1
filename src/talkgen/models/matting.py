"""From a network's mask to a clean cut-out: soft edges that follow the picture, pure colours.

Everything here is a pure function on arrays, whichever network the mask is from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from talkgen.requirements import explained

with explained():
    import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]

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

# How much the mask's slope is steepened around one half before the picture shapes it.
_CONTRAST = 2.0

# How much an edge in the picture must stand out for the alpha to follow it, in squared intensity.
_FLAT = 2e-3

# Of 500 pixels along a side, a mask three off ends one off; after the first time, two and a half.
_TIMES = 2

# What is as good as nothing, and as good as everything.
_ENDS = 0.05


def refine_alpha(pixels: NDArray[np.uint8], alpha: Floats) -> Floats:
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
    guide = _scaled(pixels)
    for _ in range(_TIMES):
        fitted = _guided(guide, _clipped((alpha - 0.5) * _CONTRAST + 0.5))
        alpha = _clipped((fitted - _ENDS) / (1 - 2 * _ENDS))
    return alpha


def _guided(guide: Floats, values: Floats) -> Floats:
    """The guided filter, its coefficients from a smaller picture (He and Sun, 2015)."""
    height, width = values.shape
    shrink = min(1, _COEFFICIENTS_SIDE / max(height, width))
    small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    slope, offset = _coefficients(_resized(guide, small), _resized(values, small))
    return _dot(_resized(slope, (width, height)), guide) + _resized(offset, (width, height))


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


def estimate_foreground(pixels: NDArray[np.uint8], alpha: Floats) -> NDArray[np.uint8]:
    """The person's own colours where a soft edge has the old background mixed in.

    Blur fusion (Forte, "Approximate fast foreground colour estimation", 2021) in two passes.

    Args:
        pixels: RGB or RGBA `uint8`, shape (height, width, 3 or 4); a fourth channel is ignored.
        alpha: `float32` in 0..1, shape (height, width).

    Returns:
        RGB `uint8`, shape (height, width, 3): the picture itself where alpha is 1.
    """
    foreground = background = picture = _scaled(pixels)
    for share in _PASSES:
        radius = _radius(share, alpha)
        foreground, background = _fused(picture, foreground, background, alpha[..., None], radius)
    return _rounded(foreground)


def _fused(
    picture: Floats,
    foreground: Floats,
    background: Floats,
    weight: Floats,
    radius: int,
) -> tuple[Floats, Floats]:
    """Blur both layers by their weights, then let the front take up what the blend lacks."""
    behind = 1 - weight
    front = _average(foreground, weight, radius)
    back = _average(background, behind, radius)
    lacking = picture - weight * front - behind * back
    return front + weight * lacking, back


def _average(colours: Floats, weight: Floats, radius: int) -> Floats:
    # Where nothing of the layer is near, any colour will do; it is not seen there.
    return _box(colours * weight, radius) / (_box(weight, radius)[..., None] + 1e-5)


def with_alpha(pixels: NDArray[np.uint8], alpha: Floats) -> NDArray[np.uint8]:
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


def over(rgba: NDArray[np.uint8], background: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay a cut-out on a background.

    The mean is taken of the encoded values, not in linear light: the alpha and the foreground
    were estimated from them as such a mean, so that only this brings back the photo on its own
    background, and browsers and editors do the same.

    Args:
        rgba: `uint8`, shape (height, width, 4), alpha straight.
        background: RGB `uint8`, shape (height, width, 3).

    Returns:
        RGB `uint8`, shape (height, width, 3).
    """
    alpha = rgba[..., 3:].astype(np.float32) / np.float32(255)
    return _rounded(_scaled(rgba) * alpha + _scaled(background) * (1 - alpha))


# Of the picture's longer side: no letter stays legible, and no edge competes with the person.
_DEFOCUS = 0.03


def defocused_background(pixels: NDArray[np.uint8], alpha: Floats) -> NDArray[np.uint8]:
    """What is behind a person, out of focus.

    The person has next to no part in the blur: it would stand around them as a halo.

    Args:
        pixels: The photo, RGB or RGBA `uint8`, shape (height, width, 3 or 4).
        alpha: The person, `float32` in 0..1, shape (height, width).

    Returns:
        RGB `uint8`, shape (height, width, 3).
    """
    behind = 1 - alpha[..., None] + np.float32(0.001)
    sigma = _DEFOCUS * max(alpha.shape)
    colours = cv2.GaussianBlur(_scaled(pixels) * behind, (0, 0), sigma)
    weight = cv2.GaussianBlur(behind, (0, 0), sigma)
    return _rounded(np.asarray(colours / weight[..., None], np.float32))


def _scaled(pixels: NDArray[np.uint8]) -> Floats:
    """The colours in 0..1."""
    return pixels[..., :3].astype(np.float32) / np.float32(255)


def _rounded(colours: Floats) -> NDArray[np.uint8]:
    """Colours in 0..1 as bytes."""
    return np.asarray(np.rint(_clipped(colours) * 255), np.uint8)


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
    if values.shape[1::-1] == size:
        return values
    shrinks = size[0] < values.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, size, interpolation=how), np.float32)
