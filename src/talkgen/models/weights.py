"""Weights that are not in the wheel: where each is on the hub, and where on this machine.

Nothing here reaches the network but `download`, which `python -m talkgen fetch` and
`allow_downloads` call. Nothing is handed out that is not what was pinned.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import attrs

from talkgen.errors import ModelUnavailable
from talkgen.models import _hub
from talkgen.models._hub import OnProgress, cache_folder, offline

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "OnProgress",
    "Weights",
    "cache_folder",
    "cached",
    "digest_of",
    "download",
    "located",
    "offline",
    "sha256",
    "verified",
]


@attrs.frozen
class Weights:
    """A file on the hub, pinned.

    Attributes:
        name: What `python -m talkgen fetch` calls it, like `yolov8n` or `birefnet-lite`.
        repository: `owner/name` on the hub.
        revision: A commit of the repository, or a branch where no commit is known.
        filename: The file in the repository.
        sha256: Hexadecimal digest that its bytes must have.
        licence: SPDX identifier.
        companions: Small files of the repository that its loader reads beside it.
        size: Bytes, where known; for people.
    """

    name: str
    repository: str
    revision: str
    filename: str
    sha256: str
    licence: str
    companions: tuple[str, ...] = ()
    size: int | None = None


def cached(weights: Weights) -> Path | None:
    """The file in the hub's cache on this machine, not checked; None where it is absent.

    No network. None, too, where a companion is absent.
    """
    files = (*weights.companions, weights.filename)
    found = [_hub.cached(weights.repository, file, weights.revision) for file in files]
    return None if None in found else found[-1]


def download(weights: Weights, *, progress: OnProgress | None = None) -> Path:
    """Fetch the file into the hub's cache, unless it is there, and check it.

    Args:
        weights: Which.
        progress: Told the bytes that are there, and all of them where that is known.

    Raises:
        talkgen.errors.ModelUnavailable: It cannot be had, or is not what was pinned.
        talkgen.errors.InsufficientStorage: The disk is full.
    """
    path = cached(weights)
    if path is not None and _genuine(path, weights):
        return path
    if path is not None:
        _discard(path)
    path = _fetch(weights, progress)
    if not _genuine(path, weights):
        raise ModelUnavailable(
            f"{weights.repository}/{weights.filename} is not the pinned {weights.name}: "
            f"its SHA-256 differs. {_discard(path)}",
            hint="Check what HF_ENDPOINT points to, and try again; "
            "or get the file yourself and name its path.",
        )
    return path


def located(weights: Weights, *, allow_downloads: bool = False) -> Path:
    """The file on this machine, checked.

    Raises:
        talkgen.errors.ModelUnavailable: It is absent or damaged; the hint is the command that
            fetches it.
    """
    if allow_downloads:
        return download(weights)
    fetch = f"Fetch them: python -m talkgen fetch {weights.name}"
    path = cached(weights)
    if path is None:
        raise ModelUnavailable(
            f"The weights {weights.name} ({weights.repository}, {weights.filename}) "
            "are not on this machine.",
            hint=fetch,
        )
    if not _genuine(path, weights):
        raise ModelUnavailable(
            f"{path} was damaged: its SHA-256 is not that of {weights.name}. {_discard(path)}",
            hint=fetch,
        )
    return path


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file of the caller's own; read again only when its size or time has changed.

    Raises:
        talkgen.errors.ModelUnavailable: It cannot be read.
    """
    try:
        facts = path.stat()
        return _digest_of(path, facts.st_mtime_ns, facts.st_size)
    except OSError as error:
        raise _unreadable(path, error) from error


@lru_cache(maxsize=64)
def _digest_of(path: Path, _modified: int, _size: int) -> str:
    return sha256(path)


def verified(path: Path, digest: str) -> Path:
    """The file, read through: it holds what it is meant to hold.

    Args:
        path: The file.
        digest: The SHA-256 that it must have, hexadecimal.

    Raises:
        talkgen.errors.ModelUnavailable: It cannot be read, or holds something else.
    """
    try:
        found = sha256(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if found != digest:
        raise ModelUnavailable(
            f"The weights {path} are not those that were meant: their SHA-256 differs from "
            f"{digest[:12]}...",
            hint="The file has changed or is damaged: put the right one there.",
        )
    return path


def _unreadable(path: Path, error: OSError) -> ModelUnavailable:
    return ModelUnavailable(
        f"The weights {path} cannot be read: {error.strerror}.",
        hint="Check the path, and that this user may read the file.",
    )


def _fetch(weights: Weights, progress: OnProgress | None) -> Path:
    path = _hub.fetch(weights.repository, weights.filename, weights.revision, progress)
    # The companions of this very commit: a branch may move meanwhile.
    commit = path.parents[weights.filename.count("/")].name
    for companion in weights.companions:
        _hub.fetch(weights.repository, companion, commit)
    return path


# --- is it the true file? ----------------------------------------------------------------------


def _genuine(path: Path, weights: Weights) -> bool:
    """Its bytes are those pinned.

    A file that was checked is not read again while its size, time and place stay.
    """
    note = _hub.notes_folder() / weights.sha256
    mark = _mark(path)
    if _read(note) == mark:
        return True
    if sha256(path) != weights.sha256:
        return False
    _write(note, mark)
    return True


def _mark(path: Path) -> str:
    facts = path.stat()
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ino}"


def _read(note: Path) -> str | None:
    try:
        return note.read_text()
    except OSError:
        return None


def _write(note: Path, mark: str) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(mark)
    except OSError:  # a cache that is mounted read-only is hashed each time
        return


def _discard(path: Path) -> str:
    """Take a file out of the cache: the name in the snapshot, and what it points to.

    Returns:
        For people, whether it is gone.
    """
    content = path.resolve()
    try:
        path.unlink(missing_ok=True)
        content.unlink(missing_ok=True)
    except OSError as error:  # a cache that is mounted read-only
        return f"It has to be deleted by hand: {content} ({error.strerror})."
    return "It was deleted."
