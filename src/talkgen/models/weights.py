"""Weights that are not in the wheel: where each is on the hub, and where on this machine.

Nothing here reaches the network but `download`, which `python -m talkgen fetch` and
`allow_downloads` call.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import attrs

from talkgen.errors import ModelUnavailable
from talkgen.requirements import explained

__all__ = ["Weights", "cached", "download", "located", "sha256"]

_PIECE = 2**20


@attrs.frozen
class Weights:
    """A file on the hub, pinned.

    Attributes:
        name: What `python -m talkgen fetch` calls it, like `yolov8n` or `birefnet-lite`.
        repository: `owner/name` on the hub.
        revision: A commit of the repository, or a branch where no commit is known.
        filename: The file in the repository.
        sha256: Hexadecimal digest that its bytes must have; None where none was published.
        licence: SPDX identifier.
        companions: Small files of the repository that its loader reads beside it.
    """

    name: str
    repository: str
    revision: str
    filename: str
    sha256: str | None
    licence: str
    companions: tuple[str, ...] = ()


def cached(weights: Weights) -> Path | None:
    """The file in the hub's cache on this machine; None where it is absent. No network."""
    with explained():
        from huggingface_hub import try_to_load_from_cache
    path = try_to_load_from_cache(weights.repository, weights.filename, revision=weights.revision)
    return Path(path) if isinstance(path, str) else None


def download(weights: Weights) -> Path:
    """Fetch the file into the hub's cache, unless it is there, and check it.

    Raises:
        talkgen.errors.ModelUnavailable: It cannot be had, or is not what was pinned.
    """
    with explained():
        from huggingface_hub import hf_hub_download
    path = Path(hf_hub_download(weights.repository, weights.filename, revision=weights.revision))
    _check(path, weights)
    return path


def located(weights: Weights, *, allow_downloads: bool = False) -> Path:
    """The file on this machine.

    Raises:
        talkgen.errors.ModelUnavailable: It is absent; the hint is the command that fetches it.
    """
    if (path := cached(weights)) is not None:
        return path
    if allow_downloads:
        return download(weights)
    raise ModelUnavailable(
        f"The weights {weights.name} ({weights.repository}, {weights.filename}) "
        "are not on this machine.",
        hint=f"Fetch them: python -m talkgen fetch {weights.name}",
    )


def _check(path: Path, weights: Weights) -> None:
    if weights.sha256 is not None and sha256(path) != weights.sha256:
        raise ModelUnavailable(
            f"{path} is not the pinned {weights.name}: its SHA-256 differs.",
            hint=f"Delete it and fetch it again: python -m talkgen fetch {weights.name}",
        )


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
