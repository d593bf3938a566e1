"""The encoder's pieces by the rules of their paper, token by token."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from talkgen.models.birefnet.swin import (
    HEAD,
    PatchMerging,
    WindowAttention,
    relative_positions,
    windows,
)

CPU = torch.device("cpu")
sides = st.integers(1, 23)


@given(sides, sides, st.sampled_from([(7, 3), (12, 6), (4, 2)]), st.booleans())
def test_every_token_has_one_place_and_comes_back(height, width, window, shifted):
    side, shift = window
    layout = windows(height, width, side, shift if shifted else 0, CPU)

    order = layout.order.flatten()
    count = height * width
    assert torch.equal(order[layout.back], torch.arange(count))
    assert (order == count).sum() == len(order) - count
    assert layout.missing == (len(order) > count)
    assert sum(layout.groups) == len(layout.order)


def seen(height, width, side, shift):
    """For each token, the places that it attends to, by the definition: rolled, cut, masked."""
    rows, columns = -(-height // side) * side, -(-width // side) * side
    region = {
        y: (0 if y < rows - side else 1 if y < rows - shift else 2) if shift else 0
        for y in range(rows)
    }
    across = {
        x: (0 if x < columns - side else 1 if x < columns - shift else 2) if shift else 0
        for x in range(columns)
    }
    sees = {}
    places = [(y, x) for y in range(rows) for x in range(columns)]
    for y, x in places:
        here = ((y + shift) % rows, (x + shift) % columns)
        sees[here] = {
            ((v + shift) % rows, (u + shift) % columns)
            for v, u in places
            if (v // side, u // side) == (y // side, x // side)
            and (region[v], across[u]) == (region[y], across[x])
        }
    return sees


@pytest.mark.parametrize(
    ("height", "width", "side", "shift"),
    [(8, 12, 4, 2), (8, 12, 4, 0), (3, 5, 4, 2), (9, 4, 4, 2), (7, 15, 7, 3), (4, 4, 4, 2)],
)
def test_tokens_see_those_that_they_should(height, width, side, shift):
    layout = windows(height, width, side, shift, CPU)

    wanted = seen(height, width, side, shift)
    masks = [
        mask for mask, count in zip(layout.masks, layout.groups, strict=True) for _ in range(count)
    ]
    for tokens, mask in zip(layout.order.tolist(), masks, strict=True):
        for place, token in enumerate(tokens):
            if token == height * width:
                continue
            visible = {
                other
                for index, other in enumerate(tokens)
                if mask is None or mask[place, index] == 0
            }
            expected = {
                y * width + x if y < height and x < width else height * width
                for y, x in wanted[divmod(token, width)]
            }
            assert visible == expected


def test_relative_positions_are_numbered_by_row_and_column():
    index = relative_positions(7)

    assert index.shape == (49, 49)
    for query, key in [(0, 0), (0, 48), (48, 0), (3, 25), (40, 8)]:
        dy, dx = query // 7 - key // 7, query % 7 - key % 7
        assert index[query, key] == (dy + 6) * 13 + dx + 6


@pytest.mark.parametrize("shift", [0, 2])
def test_attention_is_what_the_formula_gives(shift):
    """One token at a time; tokens that are missing to whole windows take part as zeros."""
    torch.manual_seed(0)
    height, width, side = 6, 5, 4
    layer = WindowAttention(2 * HEAD, side).double().requires_grad_(requires_grad=False)
    layer.relative_position_bias_table.normal_()
    tokens = torch.randn(2, height, width, 2 * HEAD, dtype=torch.float64)

    attended = layer(tokens, windows(height, width, side, shift, CPU))

    rows = columns = 8
    whole = F.pad(tokens, (0, 0, 0, columns - width, 0, rows - height))
    qkv = layer.qkv(whole).unflatten(-1, (3, 2, HEAD))
    sees = seen(height, width, side, shift)
    for b, y, x in [(0, 0, 0), (0, 5, 4), (1, 3, 1), (1, 0, 4), (0, 2, 2)]:
        heads = []
        for head in range(2):
            query = qkv[b, y, x, 0, head] * HEAD**-0.5
            logits, values = [], []
            for v, u in sorted(sees[y, x]):
                dy = ((y - shift) % rows) % side - ((v - shift) % rows) % side
                dx = ((x - shift) % columns) % side - ((u - shift) % columns) % side
                row = (dy + side - 1) * (2 * side - 1) + dx + side - 1
                bias = layer.relative_position_bias_table[row, head]
                logits.append(query @ qkv[b, v, u, 1, head] + bias)
                values.append(qkv[b, v, u, 2, head])
            heads.append(torch.stack(logits).softmax(0) @ torch.stack(values))
        expected = layer.proj(torch.cat(heads))
        assert torch.allclose(attended[b, y, x], expected, atol=1e-12, rtol=0)


def test_merging_takes_the_phases_in_order_and_fills_up_odd_sides():
    layer = PatchMerging(1).double()
    layer.norm = torch.nn.Identity()
    layer.reduction = torch.nn.Identity()
    tokens = torch.arange(9.0).view(1, 3, 3, 1)

    merged = layer(tokens)

    assert merged[0, 0, 0].tolist() == [0, 3, 1, 4]
    assert merged[0, 1, 1].tolist() == [8, 0, 0, 0]
