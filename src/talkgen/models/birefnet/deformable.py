"""Modulated deformable convolution (Zhu et al., "Deformable ConvNets v2", 2018) in plain torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["DeformableConv2d", "unflattened"]

STRIP_BYTES = 4 * 2**20
"""Samples that are held at a time on a CPU: more than its caches hold are slower, not faster."""

STRIP_BYTES_ON_DEVICES = 256 * 2**20
"""The same elsewhere, where a launch costs more than memory does."""


class DeformableConv2d(nn.Module):
    """A convolution that looks beside its grid, by learned offsets, and weighs each look.

    The samples are not convolved at once but in strips, so that they never fill the memory: for
    one pixel of the result there are kernel * kernel * channels of them.
    """

    def __init__(self, inner: int, outer: int, kernel: int) -> None:
        super().__init__()
        taps, padding = kernel * kernel, kernel // 2
        self.kernel = kernel
        self.offset_conv = nn.Conv2d(inner, 2 * taps, kernel, padding=padding)
        self.modulator_conv = nn.Conv2d(inner, taps, kernel, padding=padding)
        self.regular_conv = nn.Conv2d(inner, outer, kernel, padding=padding, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve.

        Args:
            maps: Shape (batch, channels, height, width).
        """
        matrix = self.matrix()
        flat = torch.cat([samples @ matrix for samples in self.strips(maps)])
        return unflattened(flat, maps)

    def matrix(self) -> Tensor:
        """The weights as a matrix from samples to channels, shape (taps * inner, outer)."""
        return self.regular_conv.weight.permute(2, 3, 1, 0).flatten(0, 2)

    def strips(self, maps: Tensor) -> Iterator[Tensor]:
        """The weighted samples of all pixels, row by row, picture after picture.

        Args:
            maps: Shape (batch, channels, height, width).

        Yields:
            Shape (pixels, taps * channels); the pixels of all strips are batch * height * width.
        """
        offsets, modulation = self._looks(maps)
        if torch.compiler.is_compiling():  # or exported
            yield _sampled(maps, offsets, modulation, self.kernel)
            return
        table = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).contiguous()
        index, weight = _corners(offsets, modulation, self.kernel)
        row = index.shape[1] * maps.shape[1] * maps.element_size()
        budget = STRIP_BYTES if maps.device.type == "cpu" else STRIP_BYTES_ON_DEVICES
        size = max(1, budget // row)
        for some, by in zip(index.split(size), weight.split(size), strict=True):
            samples = F.embedding_bag(
                some.flatten(0, 1), table, mode="sum", per_sample_weights=by.flatten(0, 1)
            )
            yield samples.view(len(some), -1)

    def _looks(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets in pixels, (batch, height, width, taps, 2), and factors, (..., taps)."""
        # One convolution for both: they look at the same pixels.
        weight = torch.cat([self.offset_conv.weight, self.modulator_conv.weight])
        bias = torch.cat([self.offset_conv.bias, self.modulator_conv.bias])  # type: ignore[list-item]
        looks = F.conv2d(maps, weight, bias, padding=self.kernel // 2).permute(0, 2, 3, 1)
        taps = self.kernel**2
        offsets, modulation = looks.split([2 * taps, taps], -1)
        return offsets.unflatten(-1, (taps, 2)), 2 * modulation.sigmoid()


def unflattened(pixels: Tensor, like: Tensor) -> Tensor:
    """From (batch * height * width, channels) to a map of this batch, height and width."""
    batch, _, height, width = like.shape
    return pixels.view(batch, height, width, -1).permute(0, 3, 1, 2)


def _taps(height: int, width: int, kernel: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column that each tap is at without its offset, shapes (h, 1, taps), (w, taps)."""
    tap = torch.arange(kernel**2, device=device)
    rows = torch.arange(height, device=device)[:, None, None] + tap // kernel - kernel // 2
    columns = torch.arange(width, device=device)[:, None] + tap % kernel - kernel // 2
    return rows, columns


def _corners(offsets: Tensor, modulation: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """The four pixels around each look, and their part in it.

    The whole part of an offset moves the index, and only the fraction weighs: nothing is lost to
    rounding, in half precision either, as it is where an offset is added to a position first.

    Returns:
        Indices of pixels and weights, shapes (batch * height * width, taps, 4).
    """
    batch, height, width = offsets.shape[:3]
    whole = offsets.floor()
    fraction = offsets - whole
    rows, columns = _taps(height, width, kernel, offsets.device)
    y = whole[..., 0].to(torch.int32) + rows.to(torch.int32)
    x = whole[..., 1].to(torch.int32) + columns.to(torch.int32)
    picture = torch.arange(batch, device=offsets.device, dtype=torch.int32)
    start = picture.view(-1, 1, 1, 1) * (height * width)
    down, right = fraction.unbind(-1)
    vertical = _both(y, modulation * (1 - down), modulation * down, height)
    horizontal = _both(x, 1 - right, right, width)
    index = [start + row * width + column for row, _ in vertical for column, _ in horizontal]
    weight = [above * left for _, above in vertical for _, left in horizontal]
    return torch.stack(index, -1).flatten(0, 2), torch.stack(weight, -1).flatten(0, 2)


def _both(place: Tensor, near: Tensor, far: Tensor, end: int) -> list[tuple[Tensor, Tensor]]:
    """A place and the next one along an axis with their weights; none outside of the map."""
    places = ((place, near), (place + 1, far))
    return [(at.clamp(0, end - 1), by * ((at >= 0) & (at < end))) for at, by in places]


def _sampled(maps: Tensor, offsets: Tensor, modulation: Tensor, kernel: int) -> Tensor:
    """The same samples by one operator that every runtime has, all at once."""
    batch, _, height, width = maps.shape
    rows, columns = _taps(height, width, kernel, maps.device)
    y = (offsets[..., 0] + rows) * (2 / height) + (1 / height - 1)
    x = (offsets[..., 1] + columns) * (2 / width) + (1 / width - 1)
    grid = torch.stack([x, y], -1).view(batch, height * width, -1, 2)
    samples = F.grid_sample(maps, grid, align_corners=False)
    samples = samples * modulation.reshape(batch, 1, height * width, -1)
    return samples.permute(0, 2, 3, 1).reshape(batch * height * width, -1)
