"""BiRefNet at inference, with the names of the official checkpoints' tensors.

Zheng et al., "Bilateral Reference for High-Resolution Dichotomous Image Segmentation", 2024.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from talkgen.errors import ModelUnavailable
from talkgen.models.birefnet.backbones import backbone_of
from talkgen.models.birefnet.blocks import DecoderBlock, Gate, Lateral, TileConvs, resized
from talkgen.models.birefnet.swin import SwinTransformer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from talkgen.models.birefnet.backbones import Backbone

__all__ = ["MULTIPLE", "BiRefNet", "build", "segmented"]

MULTIPLE = 32
"""Sides of a picture must be multiples of this."""


class BiRefNet(nn.Module):
    """Tells what is in front: pictures to logits of the same size."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        # Every level is seen twice, at full and at half scale.
        c1, c2, c3, c4 = (2 * width for width in backbone.widths)
        self.bb = SwinTransformer(backbone)
        self.squeeze_module = nn.Sequential(DecoderBlock(c1 + c2 + c3 + c4, c4))
        self.decoder = Decoder(c1, c2, c3, c4)

    def forward(self, pictures: Tensor) -> Tensor:
        """The logits.

        Args:
            pictures: RGB in 0..1, less the mean (0.485, 0.456, 0.406), by the deviation (0.229,
                0.224, 0.225), shape (batch, 3, height, width), sides multiples of 32.

        Returns:
            Shape (batch, 1, height, width); the alpha is their sigmoid.

        Raises:
            ValueError: A side is no multiple of 32.
        """
        return segmented(self.bb, self.squeeze_module, self.decoder, pictures)


def segmented(
    encoder: nn.Module, squeeze_module: nn.Module, decoder: nn.Module, pictures: Tensor
) -> Tensor:
    """The logits, by the network's three parts; see `BiRefNet.forward`."""
    height, width = pictures.shape[2:]
    if height % MULTIPLE or width % MULTIPLE:
        raise ValueError(f"pictures of {width}x{height}: sides must be multiples of {MULTIPLE}")
    halved = resized(pictures, torch.Size([height // 2, width // 2]))
    pairs = zip(encoder(pictures), encoder(halved), strict=True)
    x1, x2, x3, x4 = (torch.cat([full, resized(half, full.shape)], 1) for full, half in pairs)
    context = torch.cat([*(resized(maps, x4.shape) for maps in (x1, x2, x3)), x4], 1)
    return decoder(pictures, x1, x2, x3, squeeze_module(context))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """From the deepest map up to the picture's size, level by level, with the picture at hand."""

    def __init__(self, c1: int, c2: int, c3: int, c4: int) -> None:
        super().__init__()
        self.ipt_blk5 = TileConvs(3 * 32**2, c4 // 8)
        self.ipt_blk4 = TileConvs(3 * 16**2, c4 // 8)
        self.ipt_blk3 = TileConvs(3 * 8**2, c3 // 8)
        self.ipt_blk2 = TileConvs(3 * 4**2, c2 // 8)
        self.ipt_blk1 = TileConvs(3, c1 // 8)
        self.decoder_block4 = DecoderBlock(c4 + c4 // 8, c3)
        self.decoder_block3 = DecoderBlock(c3 + c4 // 8, c2)
        self.decoder_block2 = DecoderBlock(c2 + c3 // 8, c1)
        self.decoder_block1 = DecoderBlock(c1 + c2 // 8, c1 // 2)
        for level, width in ((4, c3), (3, c2), (2, c1)):
            self.add_module(f"lateral_block{level}", Lateral(width))
            self.add_module(f"gdt_convs_{level}", Gate(width))
            self.add_module(f"gdt_convs_attn_{level}", _to_one(16))
            # In every checkpoint, but of use in training alone.
            self.add_module(f"gdt_convs_pred_{level}", _to_one(16))
            self.add_module(f"conv_ms_spvn_{level}", nn.Conv2d(width, 1, 1))
        self.conv_out1 = _to_one(c1 // 2 + c1 // 8)

    def forward(self, pictures: Tensor, x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor) -> Tensor:
        """The logits, from the pictures and the maps of the four levels."""
        maps = x4
        for level, skipped in ((4, x3), (3, x2), (2, x1)):
            maps = self._gated(level, self._block(level, pictures, maps))
            lateral = self.get_submodule(f"lateral_block{level}")
            maps = resized(maps, skipped.shape) + lateral(skipped)
        return self._logits(pictures, self._block(1, pictures, maps))

    def _block(self, level: int, pictures: Tensor, maps: Tensor) -> Tensor:
        tiles = self.get_submodule(f"ipt_blk{level + 1}")(pictures, maps)
        block = self.get_submodule(f"decoder_block{level}")
        return block(torch.cat([maps, tiles], 1))  # type: ignore[no-any-return]

    def _gated(self, level: int, maps: Tensor) -> Tensor:
        gate = self.get_submodule(f"gdt_convs_{level}")
        attention = self.get_submodule(f"gdt_convs_attn_{level}")
        return maps * attention(gate(maps)).sigmoid()  # type: ignore[no-any-return]

    def _logits(self, pictures: Tensor, maps: Tensor) -> Tensor:
        """`conv_out1` of the maps, scaled up, beside `ipt_blk1` of the pictures.

        It is one number for each pixel, and everything before it is linear: the maps are mixed
        before they are scaled, and the pictures' last convolution is mixed itself.
        """
        last = self.conv_out1.get_submodule("0")
        assert isinstance(last, nn.Conv2d)  # noqa: S101 - for mypy
        ours, theirs = last.weight.split([maps.shape[1], last.in_channels - maps.shape[1]], 1)
        mixed = resized(F.conv2d(maps, ours, last.bias), pictures.shape)
        return mixed + self.ipt_blk1.mixed(pictures, theirs)


def _to_one(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, 1, 1))


# Wrappers of data-parallel and of compiled models leave them in the names of files.
_WRAPPERS = ("module.", "_orig_mod.")


def build(state_dict: Mapping[str, Tensor]) -> BiRefNet:
    """The network with official weights, ready for inference.

    Args:
        state_dict: As published, of either backbone. Half precision is raised to `float32`,
            other tensors are taken as they are, without a copy.

    Raises:
        talkgen.errors.ModelUnavailable: The tensors are not those of a BiRefNet, or some are
            missing, left over or of another shape.
    """
    tensors = {_unwrapped(name): _raised(tensor) for name, tensor in state_dict.items()}
    backbone = backbone_of({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    with torch.device("meta"):
        network = BiRefNet(backbone)
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise ModelUnavailable(
            f"These weights are not all of BiRefNet's {backbone.name} ones: {error}",
            hint="Use an official file, whole and unchanged.",
        ) from error
    return network.eval().requires_grad_(requires_grad=False)


def _unwrapped(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def _raised(tensor: Tensor) -> Tensor:
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.float() if half else tensor
