"""BiRefNet compiled for one GPU by TensorRT, once: `torch_tensorrt` takes minutes."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING
from uuid import uuid4

from talkgen.requirements import explained

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from talkgen.models.birefnet.model import MattingModel

__all__ = ["available", "built"]

_PACKAGE = "torch_tensorrt"


def available() -> bool:
    """Whether `torch_tensorrt` is installed; it is not imported."""
    return find_spec(_PACKAGE) is not None


def built(
    model: MattingModel, network: nn.Module, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """The network as an engine for pictures of the model's size; kept for the next time."""
    with explained():
        import torch
        import torch_tensorrt  # type: ignore[import-not-found]
    path = _path(model, torch.cuda.get_device_name(device))
    if not path.exists():
        dtype = next(network.parameters()).dtype
        example = torch.zeros(1, 3, model.size, model.size, dtype=dtype, device=device)
        compiled = torch_tensorrt.compile(network, ir="dynamo", inputs=[example])
        _save(torch_tensorrt, compiled, path, example)
    return torch_tensorrt.load(str(path)).module()  # type: ignore[no-any-return]


def _save(torch_tensorrt: object, compiled: object, path: Path, example: Tensor) -> None:
    # Another process may be writing, or reading, the same one.
    whole = path.with_name(f"{path.name}.{uuid4()}.tmp")
    try:
        torch_tensorrt.save(compiled, str(whole), inputs=[example])  # type: ignore[attr-defined]
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)


def _path(model: MattingModel, device_name: str) -> Path:
    """Where the engine is kept: one for each content, size, precision, device and version."""
    from huggingface_hub import cached_assets_path

    facts = (model.key, device_name, *(version(name) for name in ("torch", _PACKAGE)))
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    folder = cached_assets_path("talkgen", namespace="tensorrt", subfolder="birefnet")
    return folder / f"{digest[:32]}.ep"
