"""The hub's own client, told what talkgen wants of it: its cache, its errors, its silence.

Tokens, mirrors, the cache and the offline mode are the ecosystem's: `HF_TOKEN`, `HF_ENDPOINT`,
`HF_HOME` and `HF_HUB_OFFLINE` mean here what they mean elsewhere.
"""

from __future__ import annotations

import errno
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from talkgen.errors import InsufficientStorage, ModelUnavailable
from talkgen.requirements import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from talkgen.errors import TalkgenError

__all__ = ["OnProgress", "cache_folder", "cached", "fetch", "notes_folder", "offline"]

OnProgress: TypeAlias = "Callable[[int, int | None], None]"
"""Told the bytes that are there, and all of them where that is known; the first never falls."""

SERVER_DOWN = 500
FULL = {errno.ENOSPC, errno.EDQUOT}

_quiet_lock = threading.Lock()


@contextmanager
def _importing() -> Iterator[None]:
    """Explain what is absent; and what tqdm misses in a notebook is not missed here."""
    with explained(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        yield


def offline() -> bool:
    """The hub is not to be asked: `HF_HUB_OFFLINE`."""
    with _importing():
        from huggingface_hub import constants
    return constants.HF_HUB_OFFLINE


def cache_folder() -> Path:
    """Where the hub's client keeps files on this machine."""
    with _importing():
        from huggingface_hub import constants
    return Path(constants.HF_HUB_CACHE)


def notes_folder() -> Path:
    """Where talkgen may keep notes about these files: the hub's folder for such things.

    It need not be there, nor can it always be made. `huggingface_hub.cached_assets_path` makes it.
    """
    with _importing():
        from huggingface_hub import constants
    return Path(constants.HF_ASSETS_CACHE, "talkgen", "weights", "checked")


def cached(repository: str, filename: str, revision: str) -> Path | None:
    """The file in the cache; None where it is absent. No network."""
    with _importing():
        from huggingface_hub import try_to_load_from_cache
    path = try_to_load_from_cache(repository, filename, revision=revision)
    return Path(path) if isinstance(path, str) else None


def fetch(
    repository: str, filename: str, revision: str, progress: OnProgress | None = None
) -> Path:
    """Fetch a file into the cache, unless it is there. A cut connection is taken up again.

    Raises:
        talkgen.errors.ModelUnavailable: It cannot be had; the hint tells what to do.
        talkgen.errors.InsufficientStorage: The disk is full.
    """
    with _importing():
        from huggingface_hub import hf_hub_download
    try:
        with _quiet():
            path = hf_hub_download(
                repository, filename, revision=revision, tqdm_class=_bar(progress)
            )
    except Exception as error:  # the client's own, its HTTP library's, the disk's
        raise _explained(error, f"{repository}/{filename} (revision {revision})") from error
    return Path(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the client say nothing of this machine to the hub, without touching the environment.

    One download at a time: a host's own choice, kept here meanwhile, must come back.
    """
    from huggingface_hub import constants

    with _quiet_lock:
        chosen = constants.HF_HUB_DISABLE_TELEMETRY
        constants.HF_HUB_DISABLE_TELEMETRY = True
        try:
            yield
        finally:
            constants.HF_HUB_DISABLE_TELEMETRY = chosen


def _bar(progress: OnProgress | None) -> Any:
    """What the client takes for a progress bar: shows nothing, tells the callback.

    It makes several for some files; what is told is the furthest of them.
    """
    from tqdm import tqdm

    furthest = 0

    class Bar(tqdm):  # type: ignore[misc]  # it has no types
        def __init__(self, *values: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*values, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            nonlocal furthest
            self.n += n or 0
            furthest = max(furthest, int(self.n))
            if progress is not None:
                progress(furthest, None if self.total is None else int(self.total))

    return Bar


def _explained(error: Exception, what: str) -> TalkgenError:
    """The client's error as one of talkgen's, with what to do about it."""
    if (trouble := _disk_trouble(error, what)) is not None:
        return trouble
    cause = _cause(error)
    for kind, reason, hint in _remedies():
        if isinstance(cause, kind):
            return ModelUnavailable(f"{what} was not downloaded: {reason}.", hint=hint)
    return _refused(cause, what)


def _disk_trouble(error: BaseException | None, what: str) -> TalkgenError | None:
    """What is wrong with the cache's folder, if that is the cause; sockets name no file."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return InsufficientStorage(
                f"The disk is full: {what} does not fit into {cache_folder()}.",
                hint="Free disk space, or set HF_HOME to a folder on another disk.",
            )
        if isinstance(error, OSError) and error.filename is not None:
            return ModelUnavailable(
                f"{what} was not downloaded: {error.filename}: {error.strerror}.",
                hint="Set HF_HOME to a folder that can be written.",
            )
        error = error.__cause__
    return None


def _remedies() -> tuple[tuple[type[Exception], str, str], ...]:
    """Most specific first."""
    from huggingface_hub import errors

    permission = "Ask for access on the repository's page, then set HF_TOKEN."
    version = "Update talkgen; or get the file yourself and name its path."
    return (
        (
            errors.OfflineModeIsEnabled,
            "HF_HUB_OFFLINE forbids it",
            "Unset HF_HUB_OFFLINE, or copy the hub's cache from a machine that has the file.",
        ),
        (errors.GatedRepoError, "the repository is open to those admitted only", permission),
        (
            errors.RepositoryNotFoundError,
            "there is no such repository, or not for you",
            "Check HF_ENDPOINT, and HF_TOKEN if the repository is private.",
        ),
        (errors.RevisionNotFoundError, "the repository has no such revision", version),
        (errors.RemoteEntryNotFoundError, "the repository has no such file", version),
        (
            errors.FileMetadataError,
            "what answered is not a hub",
            "Check HF_ENDPOINT, and the proxy if there is one.",
        ),
    )


def _refused(error: BaseException, what: str) -> ModelUnavailable:
    """The hub answered with an error, or not at all, or not to the end."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in {401, 403}:
        trouble, hint = (
            "the hub refuses access",
            "Check HF_TOKEN, or unset it: a bad one is refused.",
        )
    elif status is not None and status < SERVER_DOWN:
        trouble, hint = "the hub refuses it", "Check HF_ENDPOINT."
    else:
        trouble = "the hub cannot be reached, or the connection was cut"
        hint = "Check the connection (HF_ENDPOINT names a mirror), then try again."
    told = f"{trouble} ({status or type(error).__name__})"
    return ModelUnavailable(f"{what} was not downloaded: {told}.", hint=hint)


def _cause(error: BaseException) -> BaseException:
    """Why nothing was found, where the client only says that nothing was."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error
