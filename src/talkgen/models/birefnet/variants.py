"""The official checkpoints that can be asked for by name; `catalogue` has where their files are."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from talkgen.models.birefnet.backbones import LARGE, LITE, Backbone
from talkgen.models.catalogue import birefnet

if TYPE_CHECKING:
    from talkgen.models.weights import Weights

__all__ = ["VARIANTS", "Variant"]


@attrs.frozen
class Variant:
    """A published checkpoint.

    Attributes:
        name: Short.
        backbone: The network's size.
        size: Side of the square, in pixels, that it was trained on; `dynamic` on many.
    """

    name: str
    backbone: Backbone
    size: int = 1024

    @property
    def weights(self) -> Weights:
        """Its file."""
        return birefnet(self.name)


VARIANTS = MappingProxyType(
    {
        variant.name: variant
        for variant in (
            Variant("general", LARGE),
            Variant("lite", LITE),
            Variant("portrait", LARGE),
            Variant("matting", LARGE),
            Variant("hr", LARGE, 2048),
            Variant("hr-matting", LARGE, 2048),
            Variant("dynamic", LARGE),
            Variant("lite-matting", LITE),
        )
    }
)
"""The published models, by name: their network, and the side in pixels that they see."""
