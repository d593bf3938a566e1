"""Local folders for encoders, always removed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from anyio import CancelScope, to_thread

from talkgen.storage.filesystem import failures, room_in
from talkgen.storage.names import temporary_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from pathlib import Path

    from talkgen.storage.filesystem import FileSystem

__all__ = ["Scratch"]


class Scratch:
    """Makes and removes temporary folders in one place."""

    def __init__(self, parent: Path, disk: FileSystem) -> None:
        self._parent = parent
        self._disk = disk
        self._names: set[str] = set()

    @property
    def in_use(self) -> Collection[str]:
        """The names of the folders that are there now."""
        return frozenset(self._names)

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """A new folder, removed with all that is in it, also under cancellation.

        Raises:
            InsufficientStorage: The block has filled the disk.
        """
        path = self._parent / temporary_name("scratch")
        self._names.add(path.name)
        try:
            await to_thread.run_sync(self._make, path)
            with room_in(path):
                yield path
        finally:
            try:
                with CancelScope(shield=True):
                    await to_thread.run_sync(self._remove, path)
            finally:  # what cannot be removed is left to clean-up
                self._names.discard(path.name)

    def check(self, path: Path) -> None:
        """Let only a path inside one of the folders pass; whatever is moved is lost elsewhere.

        Raises:
            ValueError: It is elsewhere, or leads there through a link.
        """
        folders = [(self._parent / name).resolve() for name in self.in_use]
        if not any(map(path.resolve().is_relative_to, folders)):
            raise ValueError(f"{path} is not in scratch(), so it is not moved; pass its bytes")

    def _make(self, path: Path) -> None:
        with failures("make", path):
            self._disk.make_folder(path, private=True)

    def _remove(self, path: Path) -> None:
        with failures("remove", path):
            self._disk.remove_tree(path)
