"""The deformable convolution by other means: a loop, and torchvision's operator."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import deform_conv2d

from talkgen.models.birefnet import deformable
from talkgen.models.birefnet.deformable import DeformableConv2d

SIZE = (2, 4, 6, 9)


def made(kernel: int, reach: float = 2.0) -> DeformableConv2d:
    """Random, in fp64, with offsets of about `reach` pixels."""
    generator = torch.Generator().manual_seed(kernel)
    conv = DeformableConv2d(SIZE[1], 5, kernel).double().requires_grad_(requires_grad=False)
    for name, parameter in conv.named_parameters():
        scale = reach if name.startswith("offset_conv.bias") else 0.3
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return conv


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_torchvision(conv, maps):
    padding = conv.kernel // 2
    return deform_conv2d(
        maps,
        conv.offset_conv(maps),
        conv.regular_conv.weight,
        padding=padding,
        mask=2 * conv.modulator_conv(maps).sigmoid(),
    )


def by_a_loop(conv, maps):
    """Sample by sample, as the paper has it; what is outside of the map is zero."""
    offsets, factors = conv.offset_conv(maps), 2 * conv.modulator_conv(maps).sigmoid()
    batch, _, height, width = maps.shape
    weight, k = conv.regular_conv.weight, conv.kernel
    result = torch.zeros(batch, len(weight), height, width, dtype=maps.dtype)

    def at(b, y, x):
        y0, x0 = int(y // 1), int(x // 1)
        value = torch.zeros(maps.shape[1], dtype=maps.dtype)
        for j, i in ((y0, x0), (y0, x0 + 1), (y0 + 1, x0), (y0 + 1, x0 + 1)):
            if 0 <= j < height and 0 <= i < width:
                value += maps[b, :, j, i] * (1 - abs(y - j)) * (1 - abs(x - i))
        return value

    for b, y, x, t in torch.cartesian_prod(
        *(torch.arange(n) for n in (batch, height, width, k * k))
    ).tolist():
        dy, dx = offsets[b, 2 * t : 2 * t + 2, y, x].tolist()
        sample = at(b, y - k // 2 + t // k + dy, x - k // 2 + t % k + dx)
        result[b, :, y, x] += weight[:, :, t // k, t % k] @ sample * factors[b, t, y, x]
    return result


@pytest.mark.parametrize("kernel", [1, 3])
def test_it_is_what_the_loop_gives(maps, kernel):
    conv = made(kernel)

    assert torch.allclose(conv(maps), by_a_loop(conv, maps), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("reach", [0.0, 2.0, 100.0])
def test_it_is_what_torchvision_gives(maps, kernel, reach):
    conv = made(kernel, reach)

    assert torch.allclose(conv(maps), by_torchvision(conv, maps), atol=1e-12, rtol=0)


def test_whole_offsets_land_on_pixels(maps):
    conv = made(1)
    conv.offset_conv.weight.zero_()
    conv.offset_conv.bias.copy_(torch.tensor([1.0, -2.0]))
    conv.modulator_conv.weight.zero_()
    conv.modulator_conv.bias.zero_()

    moved = F.pad(maps, (2, 0, 0, 1))[:, :, 1:, : SIZE[3]]
    assert torch.allclose(conv(maps), F.conv2d(moved, conv.regular_conv.weight), atol=1e-14)


def test_strips_change_nothing(maps, monkeypatch):
    conv = made(3)
    whole = conv(maps)

    monkeypatch.setattr(deformable, "STRIP_BYTES", 10_000)
    strips = list(conv.strips(maps))

    assert len(strips) > 2
    assert max(strip.nbytes for strip in strips) <= 10_000
    assert torch.equal(conv(maps), whole)


@pytest.mark.parametrize("kernel", [1, 7])
def test_the_form_for_export_gives_the_same_samples(maps, kernel):
    conv = made(kernel)
    eager = torch.cat(list(conv.strips(maps)))

    exported = deformable._sampled(maps, *conv._looks(maps), kernel)

    assert torch.allclose(exported, eager, atol=1e-12, rtol=0)


def test_offsets_without_end_harm_nothing(maps):
    conv = made(1)
    conv.offset_conv.bias.fill_(torch.inf)

    assert conv(maps).shape == (2, 5, 6, 9)


def test_half_precision_keeps_fractions_far_from_the_origin():
    """At pixel 2000 half precision knows whole pixels only; offsets are near zero and exact."""
    conv = made(1).half()
    conv.offset_conv.weight.zero_()
    conv.offset_conv.bias.copy_(torch.tensor([0.0, 0.25]))
    conv.modulator_conv.weight.zero_()
    conv.modulator_conv.bias.zero_()
    ramp = torch.zeros(1, SIZE[1], 1, 2048).half()
    ramp[..., 2001] = 1

    (samples,) = conv.strips(ramp)

    assert samples[1999:2003, 0].tolist() == [0, 0.25, 0.75, 0]
