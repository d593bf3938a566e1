"""The encoder: a Swin transformer (Liu et al., "Swin Transformer", 2021) that gives four maps.

Tokens are kept as maps, shape (batch, height, width, channels). Everything is made in the dtype
and on the device of what comes in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

if TYPE_CHECKING:
    from torch import Tensor

    from talkgen.models.birefnet.backbones import Backbone

__all__ = ["SwinTransformer"]

HEAD = 32
"""Channels of one head, in every variant."""


class SwinTransformer(nn.Module):
    """Maps at a fourth, an eighth, a sixteenth and a thirty-second of the picture."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        widths = backbone.widths
        self.patch_embed = PatchEmbedding(widths[0])
        self.layers = nn.ModuleList(
            Stage(width, depth, backbone.window, last=width == widths[-1])
            for width, depth in zip(widths, backbone.depths, strict=True)
        )
        for index, width in enumerate(widths):
            self.add_module(f"norm{index}", nn.LayerNorm(width))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """The four maps, largest first.

        Args:
            pictures: Normalised, shape (batch, 3, height, width), sides multiples of 4.

        Returns:
            Shapes (batch, stage width, rows, columns).
        """
        tokens = self.patch_embed(pictures)
        maps = []
        for index, stage in enumerate(self.layers):
            result, tokens = stage(tokens)
            norm = self.get_submodule(f"norm{index}")
            maps.append(norm(result).permute(0, 3, 1, 2).contiguous())
        return maps


class PatchEmbedding(nn.Module):
    """A token for each 4 x 4 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, stride=4)
        self.norm = nn.LayerNorm(width)

    def forward(self, pictures: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.proj(pictures).permute(0, 2, 3, 1))
        return tokens


class Stage(nn.Module):
    """Blocks on one grid, whole and shifted windows in turns, then a grid of half the sides."""

    def __init__(self, width: int, depth: int, window: int, *, last: bool) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(Block(width, window) for _ in range(depth))
        self.downsample = None if last else PatchMerging(width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What the blocks make of the tokens, and the tokens of the next stage."""
        height, width = tokens.shape[1:3]
        layouts = [
            windows(height, width, self.window, shift, tokens.device)
            for shift in (0, self.window // 2)
        ]
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, layouts[index % 2])
        return tokens, tokens if self.downsample is None else self.downsample(tokens)


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        even = F.pad(tokens, (0, 0, 0, tokens.shape[2] % 2, 0, tokens.shape[1] % 2))
        phases = [even[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(phases, -1)))
        return merged


class Block(nn.Module):
    """Attention within windows, then a perceptron for each token."""

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Perceptron(width)

    def forward(self, tokens: Tensor, layout: Windows) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens), layout)
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]


class Perceptron(nn.Module):
    """Two layers, with four times the width between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))  # type: ignore[no-any-return]


class WindowAttention(nn.Module):
    """Attention of the tokens of one window among themselves."""

    relative_position_index: Tensor

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window - 1) ** 2, self.heads)
        )
        self.register_buffer("relative_position_index", relative_positions(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, layout: Windows) -> Tensor:
        """Attend.

        Args:
            tokens: Normed, shape (batch, height, width, channels).
            layout: The windows of a map of this size.
        """
        flat = tokens.flatten(1, 2)
        if layout.missing:
            # One token of zeros stands for all those that are missing to whole windows: they
            # take part, and are not masked.
            flat = F.pad(flat, (0, 0, 0, 1))
        dealt = self.qkv(flat).index_select(1, layout.order.flatten())
        parts = dealt.unflatten(1, layout.order.shape).split(layout.groups, 1)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        attended = [self._attend(*pair, bias) for pair in zip(parts, layout.masks, strict=True)]
        back = torch.cat(attended, 1).index_select(1, layout.back)
        return self.proj(back).view_as(tokens)  # type: ignore[no-any-return]

    def _attend(self, qkv: Tensor, mask: Tensor | None, bias: Tensor) -> Tensor:
        """From (batch, windows, tokens, 3 * channels) to (batch, windows * tokens, channels)."""
        batch, count, tokens = qkv.shape[:3]
        q, k, v = qkv.reshape(-1, tokens, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        attended = _attention(q, k, v, bias if mask is None else bias + mask.to(bias.dtype))
        joined: Tensor = attended.transpose(1, 2).reshape(batch, count * tokens, -1)
        return joined


def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    # The fused form has no counterpart in ONNX that takes its strides.
    if torch.compiler.is_exporting():
        logits = q * HEAD**-0.5 @ k.transpose(-1, -2) + bias
        explicit: Tensor = logits.softmax(-1) @ v
        return explicit
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])


def relative_positions(window: int) -> Tensor:
    """The row of the bias table for each pair of tokens of a window, shape (tokens, tokens)."""
    place = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    rows, columns = (place[:, None] - place + window - 1).unbind(-1)
    return rows * (2 * window - 1) + columns


class Windows(NamedTuple):
    """How the tokens of a map are dealt to windows, and back.

    In a shifted layout the map is rolled first, so that its last row and its last column of
    windows hold tokens from both ends, which must not see each other. These windows come last,
    in groups: each group has one mask, which is the same for every size of map.

    A plain tuple, which `torch.compile` can look into.

    Attributes:
        order: The token at each place, shape (windows, places); one past the last where there is
            none.
        back: The place of each token, shape (tokens,).
        missing: Whether there are places without a token.
        groups: How many windows each group has.
        masks: For each group, minus infinity for pairs of places that must not see each other,
            shape (places, places); None where all may.
    """

    order: Tensor
    back: Tensor
    missing: bool
    groups: list[int]
    masks: list[Tensor | None]


# Compilers take the layout for what it is, the same for every picture, instead of computing it.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def windows(height: int, width: int, side: int, shift: int, device: torch.device) -> Windows:
    """Lay windows of a side over a map of a size, which is filled up to whole ones at its end."""
    rows, columns = -(-height // side), -(-width // side)
    y = torch.arange(rows * side, device=device)[:, None]
    x = torch.arange(columns * side, device=device)
    above, left = (y + shift) % len(y), (x + shift) % len(x)
    token = torch.where((above < height) & (left < width), above * width + left, height * width)
    grid = token.view(rows, side, columns, side).transpose(1, 2).flatten(2)
    down, right = (y[:height] - shift) % len(y), (x[:width] - shift) % len(x)
    row, column = down // side, right // side
    within = down % side * side + right % side
    missing = rows * side * columns * side > height * width
    if not shift:
        back = (row * columns + column) * side**2 + within
        return Windows(grid.flatten(0, 1), back.flatten(), missing, [rows * columns], [None])
    number = torch.where(
        column < columns - 1, row * (columns - 1) + column, (rows - 1) * (columns - 1) + row
    )
    number = torch.where(row < rows - 1, number, (rows - 1) * columns + column)
    groups = {
        (False, False): grid[:-1, :-1],
        (False, True): grid[:-1, -1:],
        (True, False): grid[-1:, :-1],
        (True, True): grid[-1:, -1:],
    }
    some = {edges: part.flatten(0, 1) for edges, part in groups.items() if part.numel()}
    return Windows(
        torch.cat(list(some.values())),
        (number * side**2 + within).flatten(),
        missing,
        [len(part) for part in some.values()],
        [_mask(side, shift, *edges, device) for edges in some],
    )


def _mask(side: int, shift: int, bottom: bool, right: bool, device: torch.device) -> Tensor | None:
    """Tokens of a window from both ends of the map, told by their row or column, are apart."""
    if not (bottom or right):
        return None
    far = torch.arange(side, device=device) >= side - shift
    end = (2 * (far & bottom)[:, None] + (far & right)).flatten()
    apart = end[:, None] != end
    return torch.zeros(apart.shape, device=device).masked_fill(apart, -torch.inf)
