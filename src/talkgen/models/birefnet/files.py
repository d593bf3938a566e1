"""What a safetensors file holds, by its header alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkgen.errors import ModelUnavailable
from talkgen.requirements import explained

with explained():
    from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["shapes"]


def shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor.

    Raises:
        talkgen.errors.ModelUnavailable: It is no safetensors file, or a broken one.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise ModelUnavailable(
            f"{path} is no safetensors file, or a damaged one: {error}.",
            hint="Get it again, from where it came.",
        ) from error
