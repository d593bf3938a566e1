"""What the decoder is made of.

For inference alone: batch norms always use the statistics they have learned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from talkgen.models.birefnet.deformable import DeformableConv2d, unflattened

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DecoderBlock", "Gate", "Lateral", "TileConvs", "normed", "resized"]

INNER = 64
"""Channels within every block, of both variants."""

BRANCH = 256
"""Channels of each branch of the pyramid."""


def resized(maps: Tensor, shape: torch.Size) -> Tensor:
    """Scaled to the sides that end a shape, bilinear, corner on corner."""
    return F.interpolate(maps, size=shape[-2:], mode="bilinear", align_corners=True)


def normed(maps: Tensor, norm: nn.Module) -> Tensor:
    """Batch norm by the statistics that were learned."""
    factor, shift = affine(norm)
    return torch.addcmul(shift.view(-1, 1, 1), maps, factor.view(-1, 1, 1))


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A batch norm as the factor and the shift of each channel."""
    assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101 - for mypy, as the next
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101, PT018
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return factor, norm.bias - norm.running_mean * factor


class DecoderBlock(nn.Module):
    """To few channels, a look around at several distances, and out again."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inner, INNER, 3, padding=1)
        self.bn_in = nn.BatchNorm2d(INNER)
        self.dec_att = DeformablePyramid()
        self.conv_out = nn.Conv2d(INNER, outer, 3, padding=1)
        self.bn_out = nn.BatchNorm2d(outer)

    def forward(self, maps: Tensor) -> Tensor:
        """Shape (batch, inner, height, width) to (batch, outer, height, width)."""
        maps = normed(self.conv_in(maps), self.bn_in).relu()
        return normed(self.conv_out(self.dec_att(maps)), self.bn_out)


class Branch(nn.Module):
    """A deformable convolution and its norm."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.atrous_conv = DeformableConv2d(INNER, BRANCH, kernel)
        self.bn = nn.BatchNorm2d(BRANCH)


class DeformablePyramid(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., 2017) with deformable convolutions.

    Four of them and the mean of the whole map, each normed and rectified, are mixed by `conv1`.
    The 1280 channels between are never held together: each strip of a branch is mixed at once,
    and the mean, the same everywhere, is a bias.
    """

    def __init__(self) -> None:
        super().__init__()
        self.aspp1 = Branch(1)
        self.aspp_deforms = nn.ModuleList(Branch(kernel) for kernel in (1, 3, 7))
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(INNER, BRANCH, 1, bias=False),
            nn.BatchNorm2d(BRANCH),
            nn.ReLU(),
        )
        self.conv1 = nn.Conv2d(5 * BRANCH, INNER, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(INNER)

    def forward(self, maps: Tensor) -> Tensor:
        """The shape stays as it is: (batch, 64, height, width)."""
        factor, shift = affine(self.bn1)
        mixing = (self.conv1.weight.flatten(1) * factor[:, None]).t()
        *mixes, pooled_mix = mixing.split(BRANCH)
        branches = [self.aspp1, *self.aspp_deforms]
        parts = [_mixed(*pair, maps) for pair in zip(branches, mixes, strict=True)]
        pooled = self._pooled(maps) @ pooled_mix + shift
        mixed = unflattened(sum(parts[1:], parts[0]), maps) + pooled[..., None, None]
        rectified: Tensor = mixed.relu()
        return rectified

    def _pooled(self, maps: Tensor) -> Tensor:
        """The mean's branch, shape (batch, channels)."""
        pool, conv, norm, relu = self.global_avg_pool
        return relu(normed(conv(pool(maps)), norm)).flatten(1)  # type: ignore[no-any-return]


def _mixed(branch: Branch, mix: Tensor, maps: Tensor) -> Tensor:
    """A branch's part in the mixture, shape (batch * height * width, channels)."""
    factor, shift = affine(branch.bn)
    matrix = branch.atrous_conv.matrix() * factor
    strips = branch.atrous_conv.strips(maps)
    return torch.cat([torch.addmm(shift, strip, matrix).relu() @ mix for strip in strips])


class TileConvs(nn.Module):
    """From the picture itself, cut in tiles, to a level of the decoder."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, INNER, 3, padding=1)
        self.conv_out = nn.Conv2d(INNER, outer, 3, padding=1)

    def forward(self, pictures: Tensor, like: Tensor) -> Tensor:
        """Convolve.

        Args:
            pictures: Normalised, shape (batch, 3, height, width).
            like: A map of the level's size, which divides that of the pictures.
        """
        return self.conv_out(self.conv1(tiled(pictures, *like.shape[2:])))  # type: ignore[no-any-return]

    def mixed(self, pictures: Tensor, mix: Tensor) -> Tensor:
        """What a 1 x 1 convolution to one channel makes of the result for uncut pictures.

        All three convolutions are linear. What a pixel gives to each of its nine neighbours is
        therefore found first, as nine channels, and only then moved there: the 64 channels
        between, at full size the largest of the whole network, are never made.

        Args:
            pictures: Normalised, shape (batch, 3, height, width).
            mix: The last one's weight, shape (1, channels, 1, 1).
        """
        biases = self.conv1.bias, self.conv_out.bias
        assert biases[0] is not None and biases[1] is not None  # noqa: S101, PT018 - for mypy
        taps = torch.einsum("m,mikl->kli", mix.flatten(), self.conv_out.weight).flatten(0, 1)
        weight = torch.einsum("ti,ichw->tchw", taps, self.conv1.weight)
        given = F.conv2d(pictures, weight, taps @ biases[0], padding=1)
        move = torch.eye(9, dtype=mix.dtype, device=mix.device).view(1, 9, 3, 3)
        return F.conv2d(given, move, mix.flatten(1) @ biases[1], padding=1)


def tiled(pictures: Tensor, height: int, width: int) -> Tensor:
    """Cut in tiles of this size, stacked on the channels: channel, tile row, tile column."""
    batch, channels, whole_height, whole_width = pictures.shape
    rows, columns = whole_height // height, whole_width // width
    tiles = pictures.view(batch, channels, rows, height, columns, width)
    return tiles.permute(0, 1, 2, 4, 3, 5).reshape(batch, -1, height, width)


class Lateral(nn.Module):
    """From the encoder straight to the decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """The shape stays as it is: (batch, width, height, width)."""
        return self.conv(maps)  # type: ignore[no-any-return]


class Gate(nn.Sequential):
    """What a level's gate is computed from."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(width, 16, 3, padding=1), nn.BatchNorm2d(16))

    def forward(self, maps: Tensor) -> Tensor:
        """Shape (batch, width, height, width) to (batch, 16, height, width)."""
        conv, norm = self
        return normed(conv(maps), norm).relu()
