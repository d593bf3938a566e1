"""Files in a folder of this machine."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import attrs
from anyio import CancelScope, to_thread
from anyio.streams.file import FileReadStream

from talkgen._clock import utc_now
from talkgen._flush import make_folders
from talkgen._iteration import Fetched, Paged
from talkgen.errors import StorageError
from talkgen.protocols import DiskStats
from talkgen.storage.cleanup import CleanUp
from talkgen.storage.filesystem import (
    FileSystem,
    VolatileFileSystem,
    failures,
    free_bytes,
    names_in,
    no_room,
    open_plain,
)
from talkgen.storage.index import Index
from talkgen.storage.layout import Layout
from talkgen.storage.listing import find, in_order, statistics, visible
from talkgen.storage.names import check_task_id, is_task_id
from talkgen.storage.published import Published
from talkgen.storage.retention import Retention
from talkgen.storage.scratch import Scratch
from talkgen.storage.staging import Staging, read_exactly
from talkgen.storage.transaction import StorageTransaction

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Collection, Sequence
    from datetime import datetime
    from io import BufferedReader

    from anyio.abc import ByteReceiveStream

    from talkgen._types import JSON
    from talkgen.media import FileRef, Tier
    from talkgen.protocols import CleanupReport, FileInfo, Manifest, NewFile, StorageStats

__all__ = ["LocalStorage"]

GIBIBYTE = 2**30
PAGE = 1000  # files listed at a time


class LocalStorage:
    """Keeps files in a folder, published all at once and whole at any moment.

    Any number of processes of one machine may share the folder, on a local disk. The layout is
    for reading: `uploads/`, `processed/`, `videos/` and `temp/` hold whole files only, and
    `videos/{task_id}_metadata.json` says which belong to a task, with its result.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        retention: Retention | None = None,
        min_free_bytes: int = 5 * GIBIBYTE,
        clock: Callable[[], datetime] = utc_now,
        disk: FileSystem | None = None,
    ) -> None:
        """Name the folder; it is made when it is first used.

        Args:
            root: The folder.
            retention: How long published files are kept.
            min_free_bytes: What `ensure_free` leaves free on the disk.
            clock: Gives the time, with its zone.
            disk: The calls that change the disk, for tests.
        """
        self._layout = Layout(Path(root).absolute())
        self._retention = retention or Retention()
        self._min_free = min_free_bytes
        self._clock = clock
        self._disk = disk or FileSystem()
        self._making = threading.Lock()
        self._made = False
        self._shelves = Published(self._layout, self._disk)
        self._index = Index(self._layout, self._disk, self._shelves.readable)
        self._scratch = Scratch(self._layout.tier("temp"), self._disk)

    @classmethod
    def temporary(
        cls, *, retention: Retention | None = None, min_free_bytes: int = 0
    ) -> LocalStorage:
        """A storage in a temporary folder, which goes with the last reference to it.

        It goes at once, in the thread that drops the reference.

        Args:
            retention: How long published files are kept.
            min_free_bytes: What `ensure_free` leaves free on the disk.
        """
        root = Path(tempfile.gettempdir(), f"talkgen-{uuid4()}")
        storage = cls(
            root, retention=retention, min_free_bytes=min_free_bytes, disk=VolatileFileSystem()
        )
        weakref.finalize(storage, shutil.rmtree, root, ignore_errors=True)
        return storage

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r})"

    @property
    def root(self) -> Path:
        """The folder, absolute."""
        return self._layout.root

    @property
    def durable(self) -> bool:
        """Files outlive this process."""
        return self._disk.durable

    async def get(self, file: FileRef) -> bytes:
        """The bytes of a published file.

        Raises:
            FileMissing: It is not published, has expired, or was replaced.
        """
        return await to_thread.run_sync(self._read, file)

    @asynccontextmanager
    async def stream(self, file: FileRef) -> AsyncIterator[ByteReceiveStream]:
        """The bytes of a published file, piece by piece.

        Raises:
            FileMissing: It is not published, has expired, or was replaced.
        """
        async with FileReadStream(await to_thread.run_sync(self._open, file)) as stream:
            yield stream

    def list(self, tier: Tier | None = None, task_id: str | None = None) -> AsyncIterator[FileInfo]:
        """Published files, oldest first.

        Args:
            tier: Only this tier's.
            task_id: Only this task's.
        """
        if task_id is not None:
            return Fetched(partial(to_thread.run_sync, self._listed, tier, task_id))
        return Paged(lambda last: to_thread.run_sync(self._page, tier, last))

    async def delete_task(self, task_id: str) -> None:
        """Delete whatever is published under this id; what is staged stays."""
        check_task_id(task_id)
        with CancelScope(shield=True):
            await to_thread.run_sync(self._delete, task_id)

    async def open(self, task_id: str) -> StorageTransaction:
        """A new transaction, or an unfinished one again.

        Raises:
            InvalidName: The id cannot be part of a file name.
        """
        check_task_id(task_id)
        return await to_thread.run_sync(self._opened, task_id)

    async def staged(self) -> tuple[str, ...]:
        """Tasks with an unfinished transaction, by name."""
        return await to_thread.run_sync(self._staged)

    async def ensure_free(self, bytes: int) -> None:  # noqa: A002 - the protocol's
        """Make sure that so many bytes can be written, cleaning up if need be.

        Raises:
            InsufficientStorage: Fewer than these and `min_free_bytes` are free even then.
        """
        if await to_thread.run_sync(self._free, bytes) < self._min_free:
            await self.cleanup()
            left = await to_thread.run_sync(self._free, bytes)
            if left < self._min_free:
                raise no_room(self.root, bytes, left + bytes, self._min_free)

    async def cleanup(self, now: datetime | None = None) -> CleanupReport:
        """Delete published files whose time is over, and temporary ones that nobody uses.

        What is staged is never touched: its owner ends it, or recovery.

        Args:
            now: Another time than the clock's.
        """
        work = CleanUp(
            self._layout, self._disk, self._shelves, self._index, self._retention, self._scratch
        )
        pieces = work.pieces(now or self._clock())
        await to_thread.run_sync(self._published)
        while await to_thread.run_sync(next, pieces, None):
            pass
        return work.report()

    async def stats(self) -> StorageStats:
        """Published files by tier, and the disk."""
        return await to_thread.run_sync(self._stats)

    async def aclose(self) -> None:
        """Nothing is held open. Published files can still be read."""

    def _published(self) -> Published:
        """The published side, in a folder that is there."""
        with self._making:
            if not self._made:
                with failures("make", self.root):
                    self._make()
                self._made = True
        return self._shelves

    def _make(self) -> None:
        for path in (*self._layout.folders, *self._layout.own_files):
            if path.is_symlink():
                raise StorageError(f"{path} is a link.", hint="Remove it, or give a plain one.")
        waited_for = self._layout.lock.exists()
        if not waited_for:
            make_folders(self.root, self._disk.make_folder, self._disk.sync_folder)
        missing = [folder for folder in self._layout.folders if not folder.exists()]
        for folder in missing:
            self._disk.make_folder(folder, private=folder == self._layout.staging)
        # Written last: where it is, somebody has waited for the folders. And while there is
        # room: discarding must be possible on a full disk.
        if missing or not waited_for:
            self._disk.sync_folder(self.root)
            with suppress(FileExistsError):
                self._disk.write(self._layout.lock, b"")

    def _infos(self, task_id: str) -> tuple[FileInfo, ...]:
        return self._visible(self._published().manifest(check_task_id(task_id)))

    def _visible(self, manifest: Manifest | None) -> tuple[FileInfo, ...]:
        return visible(manifest, self._retention, self._clock())

    def _find(self, file: FileRef) -> Path:
        return self._layout.place(find(file, self._infos(file.task_id)))

    def _read(self, file: FileRef) -> bytes:
        return read_exactly(self._find(file), file)

    def _open(self, file: FileRef) -> BufferedReader:
        path = self._find(file)
        with failures("read", path):
            return open_plain(path)

    def _listed(self, tier: Tier | None, task_id: str) -> tuple[FileInfo, ...]:
        return in_order(self._infos(task_id), tier)

    def _page(self, tier: Tier | None, after: FileInfo | None) -> Sequence[FileInfo]:
        self._published()
        now = self._clock()
        return self._index.page(self._retention, now, tier=tier, after=after, limit=PAGE)

    def _opened(self, task_id: str) -> StorageTransaction:
        published = self._published()
        published.finish_deleting(task_id)
        staging = Staging(task_id, self._layout, self._disk)
        unfinished = _Unfinished(staging, published, self._clock, self)
        return StorageTransaction(unfinished, self._scratch)

    def _staged(self) -> tuple[str, ...]:
        self._published()
        return tuple(filter(is_task_id, names_in(self._layout.staging)))

    def _delete(self, task_id: str) -> None:
        self._published().delete(task_id)

    def _free(self, need: int) -> int:
        """What would be left of the disk's room."""
        self._published()
        return free_bytes(self.root) - need

    def _stats(self) -> StorageStats:
        self._published()
        sizes = self._index.sizes(self._retention, self._clock())
        usage = shutil.disk_usage(self.root)
        disk = DiskStats(
            total_gb=usage.total / GIBIBYTE,
            used_gb=usage.used / GIBIBYTE,
            free_gb=usage.free / GIBIBYTE,
            percent_used=100 * usage.used / usage.total,
        )
        return statistics(str(self.root), sizes, self._retention, disk)


@attrs.frozen
class _Unfinished:
    """A staging folder, and where it goes; the storage only to be kept alive."""

    staging: Staging
    published: Published
    clock: Callable[[], datetime]
    storage: LocalStorage

    def put(self, *new: NewFile) -> tuple[FileRef, ...]:
        return self.staging.put(*new)

    def read(self, file: FileRef) -> bytes:
        return self.staging.read(file)

    def retain(self, files: Collection[FileRef]) -> None:
        self.staging.retain(files)

    def publish(self, result: JSON) -> Manifest:
        return self.published.publish(self.staging, result, self.clock())

    def discard(self) -> None:
        self.published.discard(self.staging)
