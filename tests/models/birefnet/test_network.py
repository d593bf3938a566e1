"""The whole network: its tensors, and what it must not depend on."""

import hashlib
import os
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from talkgen.errors import ModelUnavailable
from talkgen.models.birefnet.backbones import LARGE, LITE
from talkgen.models.birefnet.blocks import TileConvs, normed, tiled
from talkgen.models.birefnet.network import BiRefNet, build

from .conftest import random_weights

# SHA-256 of "name shape" of every tensor of the official module, sorted, a line each.
OFFICIAL = {
    LITE: (586, "c063db149253b96274002145191dcc68a866b50926e17d9e4a5fd5bb01b899ea"),
    LARGE: (754, "10a666c4ccbccaed6f11a767acc413d25730c6107ad5c218b0497dcdc41e3d23"),
}


@pytest.mark.parametrize("backbone", [LITE, LARGE], ids=lambda backbone: backbone.name)
def test_the_tensors_are_the_official_ones(backbone):
    with torch.device("meta"):
        tensors = BiRefNet(backbone).state_dict()

    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert (len(lines), digest) == OFFICIAL[backbone]


def test_logits_are_of_the_pictures_size(lite, pictures):
    logits = lite(pictures)

    assert logits.shape == (2, 1, 64, 96)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    assert 0.1 < logits.std() < 10


def test_pictures_of_a_batch_do_not_meet(lite, pictures):
    one_by_one = torch.cat([lite(picture[None]) for picture in pictures])

    assert torch.allclose(lite(pictures), one_by_one, atol=1e-5)


def test_it_computes_in_the_precision_that_it_has(lite_weights, pictures):
    exact = build(lite_weights).double()(pictures.double())

    assert exact.dtype == torch.float64
    assert (build(lite_weights)(pictures) - exact).abs().max() < 1e-3


def test_weights_of_half_precision_are_raised(lite_weights, pictures):
    half = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in lite_weights.items()
    }
    single = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in half.items()
    }

    network = build(half)

    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert torch.equal(network(pictures), build(single)(pictures))


def test_the_names_that_wrappers_leave_are_taken_off(lite_weights, lite, pictures):
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in lite_weights.items()}

    assert torch.equal(build(wrapped)(pictures), lite(pictures))


def test_a_checkpoint_from_before_may_2024_is_refused(lite_weights):
    old = {
        name: tensor
        for name, tensor in lite_weights.items()
        if not name.startswith(("decoder.ipt_blk5", "decoder.gdt_convs_4"))
    }

    with pytest.raises(ModelUnavailable, match="before May 2024"):
        build(old)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("decoder.conv_out1.0.bias"), "conv_out1.0.bias"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "more"),
        (lambda tensors: tensors.update({"bb.norm0.bias": torch.zeros(3)}), "bb.norm0.bias"),
        (lambda tensors: tensors.pop("bb.patch_embed.proj.weight"), "not among them"),
    ],
)
def test_what_is_not_whole_and_unchanged_is_refused(lite_weights, change, said):
    tensors = dict(lite_weights)
    change(tensors)

    with pytest.raises(ModelUnavailable, match=said):
        build(tensors)


def test_sides_that_do_not_divide_are_refused(lite):
    with pytest.raises(ValueError, match="100x64"):
        lite(torch.zeros(1, 3, 64, 100))


def test_tiles_are_contiguous_and_stacked_channel_by_channel():
    pictures = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)

    tiles = tiled(pictures, 2, 3)

    assert tiles.shape == (2, 12, 2, 3)
    for channel, row, column in [(0, 0, 0), (0, 1, 0), (1, 0, 1), (2, 1, 1)]:
        part = pictures[:, channel, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
        assert torch.equal(tiles[:, (channel * 2 + row) * 2 + column], part)


def test_mixing_before_is_mixing_after_at_the_borders_too():
    torch.manual_seed(0)
    convs, mix = TileConvs(3, 12).double(), nn.Conv2d(12, 1, 1, bias=False).double()
    pictures = torch.randn(2, 3, 6, 7, dtype=torch.float64)

    mixed = convs.mixed(pictures, mix.weight)

    assert torch.allclose(mixed, mix(convs(pictures, pictures)), atol=1e-13)


def test_norms_use_what_they_have_learned():
    norm = nn.BatchNorm2d(4).double()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
        tensor.normal_()
    norm.running_var.uniform_(0.1, 2)
    maps = torch.randn(2, 4, 3, 3, dtype=torch.float64)

    expected = F.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    assert torch.allclose(normed(maps, norm), expected, atol=1e-13)


# --- beside the official code ------------------------------------------------------------------


@pytest.fixture
def official(monkeypatch):
    """Makes the official network with weights; its folder is given by the environment."""
    folder = os.environ.get("TALKGEN_BIREFNET_REFERENCE")
    if not folder:
        pytest.skip("TALKGEN_BIREFNET_REFERENCE names no checkout of ZhengPeng7/BiRefNet")
    monkeypatch.syspath_prepend(Path(folder))
    before = set(sys.modules)
    module = import_module("models.birefnet")
    plain = module.Config

    def made(backbone, weights):
        def config():
            settings = plain()
            settings.bb = {"large": "swin_v1_l", "lite": "swin_v1_t"}[backbone.name]
            settings.lateral_channels_in_collection = [2 * w for w in backbone.widths[::-1]]
            settings.cxt = settings.lateral_channels_in_collection[1:][::-1]
            return settings

        monkeypatch.setattr(module, "Config", config)
        network = module.BiRefNet(bb_pretrained=False).eval()
        network.load_state_dict(weights)
        return network

    yield made
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"models", "config", "dataset", "utils", "image_proc"}:
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backbone", [LITE, LARGE], ids=lambda backbone: backbone.name)
@pytest.mark.parametrize("size", [(2, 256, 256), (1, 352, 480), (1, 64, 160)])
def test_it_is_what_the_official_code_gives(official, backbone, size):
    weights = random_weights(backbone, seed=3)
    batch, height, width = size
    pictures = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(4))
    theirs, ours = official(backbone, weights), build(weights)
    with torch.inference_mode():
        errors = [network(pictures) for network in (lambda x: theirs(x)[-1], ours)]
        exact = theirs.double()(pictures.double())[-1]
        assert (ours.double()(pictures.double()) - exact).abs().max() < 1e-8

    their_error, our_error = ((logits - exact).abs().max() for logits in errors)
    assert our_error < 1.5 * their_error
