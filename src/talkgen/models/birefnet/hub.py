"""BiRefNet as `transformers` loads and saves models, from the official repositories.

None of their code is run: they carry the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from talkgen.errors import ModelUnavailable
from talkgen.models.birefnet.backbones import LARGE, LITE, backbone_of
from talkgen.models.birefnet.files import shapes
from talkgen.models.birefnet.network import BiRefNet, segmented
from talkgen.requirements import explained

with explained():
    import torch
    from safetensors.torch import load_file
    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.utils.hub import cached_file

if TYPE_CHECKING:
    import os

    from torch import Tensor

__all__ = ["BiRefNetConfig", "BiRefNetModel"]

_FILE = "model.safetensors"

# What finds a file on the hub, of all that `from_pretrained` takes.
_WHERE = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)


class BiRefNetConfig(PretrainedConfig):
    """What a checkpoint does not say itself.

    Args:
        backbone: `large` or `lite`. The official `config.json` has none: `from_pretrained` tells
            it by the tensors.
    """

    model_type: ClassVar[str] = "birefnet"

    def __init__(self, backbone: str = LARGE.name, **kwargs: Any) -> None:
        # The official one names code to run beside the weights; there is none here, ever.
        kwargs.pop("auto_map", None)
        super().__init__(**kwargs)
        self.backbone = backbone


class BiRefNetModel(PreTrainedModel):
    """The network, for inference; the names of its tensors are the official ones."""

    config_class = BiRefNetConfig
    main_input_name = "pixel_values"
    # The network itself stands in for a missing fused attention, on export.
    _supports_sdpa = True

    def __init__(self, config: BiRefNetConfig) -> None:
        super().__init__(config)
        backbones = {backbone.name: backbone for backbone in (LARGE, LITE)}
        network = BiRefNet(backbones[config.backbone])
        self.bb = network.bb
        self.squeeze_module = network.squeeze_module
        self.decoder = network.decoder
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """The logits; see `talkgen.models.birefnet.network.BiRefNet.forward`."""
        return segmented(self.bb, self.squeeze_module, self.decoder, pixel_values)

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: all weights are read from a file."""

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the rest is passed on
        cls, name: str | os.PathLike[str], *args: Any, config: Any = None, **kwargs: Any
    ) -> Self:
        """Load official weights, or what `save_pretrained` has written, from safetensors alone.

        Args:
            name: A repository on the hub, `owner/name`; a folder; or a .safetensors file.
            args: As `transformers` takes them.
            config: None tells the backbone by the tensors.
            kwargs: As `transformers` takes them, like `revision`; `dtype` is `float32` unless
                told, whatever the file has.

        Raises:
            talkgen.errors.ModelUnavailable: The tensors are not BiRefNet's.
            OSError: There is no such file.
        """
        alone = Path(name).is_file()
        where = {key: kwargs[key] for key in _WHERE if key in kwargs}
        file = name if alone else cached_file(name, _FILE, **where)
        if config is None:
            config = BiRefNetConfig(backbone_of(shapes(str(file))).name)
        kwargs = {"dtype": torch.float32, **kwargs, "use_safetensors": True}
        source = None if alone else name
        if alone:
            kwargs["state_dict"] = load_file(name)
        loaded: Any = super().from_pretrained(
            source, *args, config=config, output_loading_info=True, **kwargs
        )
        model, found = loaded
        if trouble := {kind: keys for kind, keys in found.items() if keys}:
            raise ModelUnavailable(
                f"The weights in {name} are not all of BiRefNet's, or more: {trouble}",
                hint="Use an official file, whole and unchanged.",
            )
        return model  # type: ignore[no-any-return]
