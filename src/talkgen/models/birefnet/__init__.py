"""BiRefNet by its official weights: the background remover of the extra `birefnet`.

`build` needs torch alone; nothing here imports it before it is called.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from talkgen.models.birefnet.hub import BiRefNetConfig as BiRefNetConfig
    from talkgen.models.birefnet.hub import BiRefNetModel as BiRefNetModel
    from talkgen.models.birefnet.network import build as build
    from talkgen.models.birefnet.remover import BiRefNetRemover as BiRefNetRemover
    from talkgen.models.birefnet.variants import VARIANTS as VARIANTS

_HOMES = {
    "VARIANTS": "variants",
    "BiRefNetConfig": "hub",
    "BiRefNetModel": "hub",
    "BiRefNetRemover": "remover",
    "build": "network",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
