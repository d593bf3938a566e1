"""Random weights in the official layout: the real ones are not here, their names and shapes are."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from talkgen.models.birefnet.backbones import LITE, Backbone
from talkgen.models.birefnet.network import BiRefNet, build
from talkgen.models.birefnet.swin import relative_positions

OFFICIAL_CONFIG = {
    "architectures": ["BiRefNet"],
    "auto_map": {"AutoModelForImageSegmentation": "birefnet.BiRefNet"},
    "bb_pretrained": False,
}


def random_weights(backbone: Backbone, seed: int = 0) -> dict[str, torch.Tensor]:
    """As large as keeps the logits near 1, with offsets of a pixel or two."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: meta.shape for name, meta in BiRefNet(backbone).state_dict().items()}
    return {name: _random(name, shape, generator) for name, shape in shapes.items()}


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    if name.endswith("relative_position_index"):
        return relative_positions(int(shape[0] ** 0.5))
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    noise = torch.randn(shape, generator=generator)
    if name.endswith("running_var"):
        return noise.abs() + 0.5
    if name.endswith("weight") and len(shape) > 1:
        return noise * (1.4 / shape[1:].numel()) ** 0.5
    if name.endswith("weight"):
        return 1 + 0.2 * noise
    return (0.5 if name.endswith("table") else 0.1) * noise


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def lite_weights() -> dict[str, torch.Tensor]:
    return random_weights(LITE)


@pytest.fixture(scope="session")
def lite(lite_weights) -> BiRefNet:
    return build(lite_weights)


@pytest.fixture(scope="session")
def lite_folder(lite_weights, tmp_path_factory) -> Path:
    """An official repository's files."""
    folder = tmp_path_factory.mktemp("BiRefNet_lite")
    save_file(lite_weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(OFFICIAL_CONFIG))
    return folder


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
