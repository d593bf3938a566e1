"""The two sizes that BiRefNet is published in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from talkgen.errors import ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LARGE", "LITE", "Backbone", "backbone_of"]


@attrs.frozen
class Backbone:
    """A Swin transformer's shape; everything else in the network follows from it.

    Attributes:
        name: `large` or `lite`.
        width: Channels of the first stage; each next has twice as many.
        depths: Blocks of each stage.
        window: Side of the attention's windows in tokens.
    """

    name: str
    width: int
    depths: tuple[int, int, int, int]
    window: int

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Channels of each stage."""
        return (self.width, 2 * self.width, 4 * self.width, 8 * self.width)


LARGE = Backbone("large", width=192, depths=(2, 2, 18, 2), window=12)
LITE = Backbone("lite", width=96, depths=(2, 2, 6, 2), window=7)

_BY_WIDTH = {backbone.width: backbone for backbone in (LARGE, LITE)}
_PATCHES = "bb.patch_embed.proj.weight"
_TILES = "decoder.ipt_blk5."


def backbone_of(shapes: Mapping[str, tuple[int, ...]]) -> Backbone:
    """Tell the backbone by the tensors of a checkpoint.

    Args:
        shapes: Of each tensor, by its official name.

    Raises:
        talkgen.errors.ModelUnavailable: It is no BiRefNet, or one from before May 2024, which
            has another graph.
    """
    backbone = _BY_WIDTH.get(shapes.get(_PATCHES, (0,))[0])
    if backbone is None:
        raise ModelUnavailable(
            f"These weights are no BiRefNet with a Swin-L or Swin-T backbone: {_PATCHES} is "
            + (f"of shape {shapes[_PATCHES]}." if _PATCHES in shapes else "not among them."),
            hint="Use the official weights of a variant that talkgen.models.birefnet knows.",
        )
    if not any(name.startswith(_TILES) for name in shapes):
        raise ModelUnavailable(
            f"These weights are of a BiRefNet from before May 2024: they have no {_TILES}*.",
            hint="Use weights that were published later, such as those of `general`.",
        )
    return backbone
