"""From a network's mask to a clean cut-out: soft edges that follow the picture, pure colours.

Everything here is a pure function on arrays, whichever network the mask is from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from talkgen.requirements import explained

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["estimate_foreground", "refine_alpha"]

# Of the picture's longer side: about 0.07 eye distances of a head-and-shoulders portrait, and
# three pixels of a mask of 256.
_REACH = 0.012

# How much the mask's slope is steepened around one half before the picture shapes it.
_CONTRAST = 2.0

# How much an edge in the picture must stand out for the alpha to follow it, in squared intensity.
_FLAT = 1e-4

# What is as good as nothing, and as good as everything.
_ENDS = 0.05


def refine_alpha(pixels: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fit a network's soft mask to the edges of the picture.

    The contrast is stretched around one half, a guided filter (He, Sun and Tang, 2013) with the
    picture as the guide draws the edge where the picture has one, and the ends are clipped.

    Args:
        pixels: RGB or RGBA `uint8`, shape (height, width, 3 or 4); a fourth channel is ignored.
        alpha: `float32` in 0..1, shape (height, width).

    Returns:
        `float32` in 0..1, shape (height, width).
    """
    guide = pixels[..., :3].astype(np.float32) / 255
    radius = max(1, round(_REACH * max(alpha.shape)))
    steep = np.clip((alpha - 0.5) * _CONTRAST + 0.5, 0, 1)
    fitted = _guided(guide, steep, radius)
    return np.clip((fitted - _ENDS) / (1 - 2 * _ENDS), 0, 1)


def _guided(
    guide: NDArray[np.float32], values: NDArray[np.float32], radius: int
) -> NDArray[np.float32]:
    """The guided filter with a colour guide: in each window the values as a plane over colour."""
    mean, value = _box(guide, radius), _box(values, radius)
    crossed = _box(guide * values[..., None], radius) - mean * value[..., None]
    slope = np.linalg.solve(_covariance(guide, mean, radius), crossed[..., None])[..., 0]
    offset = value - (slope * mean).sum(axis=-1)
    return (_box(slope, radius) * guide).sum(axis=-1) + _box(offset, radius)


def _covariance(
    guide: NDArray[np.float32], mean: NDArray[np.float32], radius: int
) -> NDArray[np.float32]:
    """Of the colours in each window, regularised, shape (height, width, 3, 3)."""
    products = guide[..., :, None] * guide[..., None, :]
    averaged = _box(products.reshape(*guide.shape[:2], 9), radius).reshape(products.shape)
    return averaged - mean[..., :, None] * mean[..., None, :] + _FLAT * np.eye(3, dtype=np.float32)


# Radii of the two passes, of the picture's longer side: wide to reach pure colour from within
# hair, narrow to bring back detail. From 90 and 6 pixels of the method's own pictures.
_PASSES = (0.09, 0.006)


def estimate_foreground(pixels: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The person's own colours where a soft edge has the old background mixed in.

    Blur fusion (Forte, "Approximate fast foreground colour estimation", 2021) in two passes.

    Args:
        pixels: RGB or RGBA `uint8`, shape (height, width, 3 or 4); a fourth channel is ignored.
        alpha: `float32` in 0..1, shape (height, width).

    Returns:
        RGB `uint8`, shape (height, width, 3): the picture itself where alpha is 1.
    """
    picture = pixels[..., :3].astype(np.float32) / 255
    foreground = background = picture
    weight = alpha[..., None]
    for share in _PASSES:
        radius = max(1, round(share * max(alpha.shape)))
        foreground, background = _fused(picture, foreground, background, weight, radius)
    return np.rint(np.clip(foreground, 0, 1) * 255).astype(np.uint8)


def _fused(
    picture: NDArray[np.float32],
    foreground: NDArray[np.float32],
    background: NDArray[np.float32],
    weight: NDArray[np.float32],
    radius: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Blur both layers by their weights, then let the front take up what the blend lacks."""
    behind = 1 - weight
    front = _average(foreground, weight, radius)
    back = _average(background, behind, radius)
    lacking = picture - weight * front - behind * back
    return front + weight * lacking, back


def _average(
    colours: NDArray[np.float32], weight: NDArray[np.float32], radius: int
) -> NDArray[np.float32]:
    # Where nothing of the layer is near, any colour will do; it is not seen there.
    return _box(colours * weight, radius) / (_box(weight, radius)[..., None] + 1e-5)


def _box(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The mean of the square around each pixel, reflected at the borders."""
    with explained():
        import cv2

    size = (2 * radius + 1, 2 * radius + 1)
    return np.asarray(cv2.blur(values, size, borderType=cv2.BORDER_REFLECT), np.float32)
