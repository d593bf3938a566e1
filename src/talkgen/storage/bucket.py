"""The calls that read and change an object store, each in one place, and what their failures mean.

Reads and writes of one object are whole or fail, and a listing shows what has been written
before: so promise the stores behind it. https://developmentseed.org/obstore/
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from talkgen.errors import FileMissing, StorageError, StorageUnavailable, TalkgenError
from talkgen.requirements import explained

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Bucket"]

PIECE = 2**20  # bytes that are read at a time
DELETED_AT_ONCE = 1000  # as many as one request of S3 may name
TOLD = frozenset({"endpoint", "region"})  # options that help to understand an error
SHORTEST_SECRET = 8  # characters

# What may hold a signature or a password in an address.
PRIVATE = re.compile(r"(?<=://)[^/\s@]+@|\?[^\s)\"'>]+")
REFUSED = re.compile(r"status code: 4\d\d")


class Bucket:
    """Objects below an address; every call blocks.

    Attributes:
        address: The URL, without anything private.
        durable: Objects outlive this process.
    """

    def __init__(self, url: str, store: Any, options: dict[str, Any]) -> None:
        """Contact nobody yet.

        Args:
            url: Like `s3://bucket/folder`.
            store: An obstore store to use; None to make one.
            options: For the making of it.

        Raises:
            MissingDependency: obstore is not installed.
            ValueError: The address is of no object store, or an option is none of it.
        """
        with explained():
            import obstore
            from obstore import store as stores
        self.address = _public(url)
        self._calls: Any = obstore
        self._secrets = tuple(_texts(options))
        kinds = (stores.S3Store, stores.GCSStore, stores.AzureStore, stores.MemoryStore)
        try:
            self._store = store or stores.from_url(url, **options)
        except (ValueError, obstore.exceptions.BaseError) as error:
            raise ValueError(f"{self.address} cannot be used: {self._told(error)}") from None
        if not isinstance(self._store, kinds):
            raise ValueError(f"{self.address} is no address of S3, GCS, Azure or memory://")  # noqa: TRY004 - of a wrong value
        self.durable = not isinstance(self._store, stores.MemoryStore)

    def url(self, key: str) -> str:
        """The address of an object; empty where nobody outside could use it."""
        return f"{self.address.rstrip('/')}/{key}" if self.durable else ""

    def create(self, key: str, data: bytes) -> bool:
        """Write an object, unless there is one; tells whether it was written."""
        with self._failures("write", key):
            try:
                self._calls.put(self._store, key, data, mode="create")
            except self._calls.exceptions.AlreadyExistsError:
                return False
        return True

    def put(self, key: str, data: bytes | Path) -> None:
        """Write an object, large ones in parts."""
        with self._failures("write", key):
            self._calls.put(self._store, key, data)

    def get(self, key: str) -> bytes:
        """The bytes of an object.

        Raises:
            FileMissing: There is none.
        """
        with self._failures("read", key):
            return bytes(self._calls.get(self._store, key).bytes())

    def pieces(self, key: str) -> Iterator[bytes]:
        """The bytes of an object, as they come."""
        with self._failures("read", key):
            for piece in self._calls.get(self._store, key).stream(min_chunk_size=PIECE):
                yield bytes(piece)

    def has(self, key: str) -> bool:
        """There is such an object."""
        try:
            with self._failures("look for", key):
                self._calls.head(self._store, key)
        except FileMissing:
            return False
        return True

    def objects(self, folder: str) -> dict[str, str]:
        """What is in a folder and its folders: keys, sorted, with the version of each."""
        with self._failures("list", folder):
            found = [meta for page in self._calls.list(self._store, folder) for meta in page]
        return {meta["path"]: str(meta["e_tag"]) for meta in sorted(found, key=_path)}

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder, sorted."""
        with self._failures("list", folder):
            found = self._calls.list_with_delimiter(self._store, folder)["common_prefixes"]
        return sorted(path.rpartition("/")[2] for path in found)

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects, where they are there."""
        doomed = sorted(keys)
        for start in range(0, len(doomed), DELETED_AT_ONCE):
            with self._failures("remove", doomed[start]):
                try:
                    self._calls.delete(self._store, doomed[start : start + DELETED_AT_ONCE])
                except FileNotFoundError:  # some stores tell
                    for key in doomed[start : start + DELETED_AT_ONCE]:
                        self._remove_one(key)

    def _remove_one(self, key: str) -> None:
        if self.has(key):
            self._calls.delete(self._store, key)

    @contextmanager
    def _failures(self, action: str, key: str) -> Iterator[None]:
        """Say what could not be done to which object, without what is private.

        The store's own error is not chained: it may hold a signed address.
        """
        told = f"Could not {action} {key} in {self.address}"
        try:
            yield
        except TalkgenError:
            raise
        except FileNotFoundError:
            raise FileMissing(f"{told}: there is none.") from None
        except (OSError, self._calls.exceptions.BaseError) as error:
            raise self._explained(error, told) from None

    def _explained(self, error: Exception, told: str) -> StorageError:
        reason = self._told(error)
        exceptions = self._calls.exceptions
        denied = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
        if isinstance(error, (PermissionError, *denied)):
            return StorageError(f"{told}: {reason}", hint="Check the credentials and their rights.")
        if isinstance(error, exceptions.GenericError) and not REFUSED.search(reason):
            return StorageUnavailable(f"{told}: {reason}")
        return StorageError(f"{told}: {reason}")

    def _told(self, error: Exception) -> str:
        """What the store says, in a line."""
        line = PRIVATE.sub("...", str(error).partition("\n")[0])
        for secret in self._secrets:
            line = line.replace(secret, "...")
        return line


def _path(meta: dict[str, Any]) -> str:
    return str(meta["path"])


def _public(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _texts(value: Any) -> Iterator[str]:
    """All strings of some length inside; shorter ones could be anything."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from () if name in TOLD else _texts(one)
    elif isinstance(value, str) and len(value) >= SHORTEST_SECRET:
        yield value
