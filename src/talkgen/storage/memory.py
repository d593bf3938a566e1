"""Files in this process's memory."""

from __future__ import annotations

import tempfile
import threading
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain, starmap
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import attrs
from anyio.lowlevel import checkpoint

from talkgen._clock import utc_now
from talkgen._iteration import Fetched
from talkgen.protocols import CleanupReport, Manifest
from talkgen.storage.filesystem import VolatileFileSystem, read_plain
from talkgen.storage.listing import find, identical, in_order, sizes, statistics, visible
from talkgen.storage.manifests import copied
from talkgen.storage.names import check_task_id, check_tier, file_name
from talkgen.storage.retention import Retention, expired_files, remainder
from talkgen.storage.scratch import Scratch
from talkgen.storage.staging import describe, not_staged
from talkgen.storage.streams import PieceStream
from talkgen.storage.transaction import StorageTransaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from datetime import datetime

    from anyio.abc import ByteReceiveStream

    from talkgen._types import JSON
    from talkgen.media import FileRef, Tier
    from talkgen.protocols import FileInfo, NewFile, StorageStats

__all__ = ["MemoryStorage"]

Files: TypeAlias = "dict[FileRef, bytes]"


class MemoryStorage:
    """Keeps files in memory, for as long as this process lives.

    Any number of threads and event loops may share it.
    """

    def __init__(
        self,
        *,
        retention: Retention | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Make an empty storage.

        Args:
            retention: How long published files are kept.
            clock: Gives the time, with its zone.
        """
        self._retention = retention or Retention()
        self._clock = clock
        self._tables = _Tables()
        self._scratch = Scratch(Path(tempfile.gettempdir()), VolatileFileSystem())

    @property
    def durable(self) -> bool:
        """Files go with this process."""
        return False

    async def get(self, file: FileRef) -> bytes:
        """The bytes of a published file.

        Raises:
            FileMissing: It is not published, has expired, or was replaced.
        """
        await checkpoint()
        with self._tables.lock:
            return self._tables.published[find(file, self._infos(file.task_id))]

    @asynccontextmanager
    async def stream(self, file: FileRef) -> AsyncIterator[ByteReceiveStream]:
        """The bytes of a published file, piece by piece.

        Raises:
            FileMissing: It is not published, has expired, or was replaced.
        """
        pieces = iter([await self.get(file)])

        async def fetch() -> bytes | None:
            return next(pieces, None)

        async with PieceStream(fetch) as stream:
            yield stream

    def list(self, tier: Tier | None = None, task_id: str | None = None) -> AsyncIterator[FileInfo]:
        """Published files, oldest first.

        Args:
            tier: Only this tier's.
            task_id: Only this task's.
        """
        return Fetched(partial(self._fetch, tier, task_id))

    async def delete_task(self, task_id: str) -> None:
        """Delete whatever is published under this id; what is staged stays."""
        check_task_id(task_id)
        await checkpoint()
        with self._tables.lock:
            self._tables.take_down(task_id)

    async def open(self, task_id: str) -> StorageTransaction:
        """A new transaction, or an unfinished one again.

        Raises:
            InvalidName: The id cannot be part of a file name.
        """
        await checkpoint()
        unfinished = _Unfinished(check_task_id(task_id), self._tables, self._clock)
        return StorageTransaction(unfinished, self._scratch)

    async def staged(self) -> tuple[str, ...]:
        """Tasks with an unfinished transaction, by name."""
        await checkpoint()
        with self._tables.lock:
            return tuple(sorted(self._tables.staged))

    async def ensure_free(self, bytes: int) -> None:  # noqa: A002, ARG002 - the protocol's
        """Memory is not counted."""
        await checkpoint()

    async def cleanup(self, now: datetime | None = None) -> CleanupReport:
        """Delete published files whose time is over; staged ones are never touched.

        Args:
            now: Another time than the clock's.
        """
        await checkpoint()
        with self._tables.lock:
            return self._tables.expire(self._retention, now or self._clock())

    async def stats(self) -> StorageStats:
        """Published files by tier."""
        infos = await self._fetch(None, None)
        return statistics("memory", sizes(infos), self._retention, disk=None)

    async def aclose(self) -> None:
        """Nothing is held open. Published files can still be read."""

    async def _fetch(self, tier: Tier | None, task_id: str | None) -> tuple[FileInfo, ...]:
        await checkpoint()
        with self._tables.lock:
            tasks = self._tables.manifests if task_id is None else (task_id,)
            return in_order(chain.from_iterable(map(self._infos, tasks)), tier)

    def _infos(self, task_id: str) -> tuple[FileInfo, ...]:
        manifest = self._tables.manifests.get(check_task_id(task_id))
        return visible(manifest, self._retention, self._clock())


@attrs.define
class _Tables:
    """Everything that a storage holds; whoever uses it holds the lock."""

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    manifests: dict[str, Manifest] = attrs.field(factory=dict)
    published: Files = attrs.field(factory=dict)
    staged: dict[str, Files] = attrs.field(factory=dict)

    def take_down(self, task_id: str) -> None:
        manifest = self.manifests.pop(task_id, None)
        for file in manifest.files if manifest else ():
            del self.published[file]

    def publish(self, manifest: Manifest, files: Files) -> None:
        self.take_down(manifest.task_id)
        self.published.update(files)
        self.manifests[manifest.task_id] = manifest

    def expire(self, retention: Retention, now: datetime) -> CleanupReport:
        expired: list[FileRef] = []
        tasks: list[str] = []
        for manifest in tuple(self.manifests.values()):
            expired += expired_files(manifest, retention, now)
            left = remainder(manifest, retention, now)
            if left is None:
                tasks.append(manifest.task_id)
                del self.manifests[manifest.task_id]
            else:
                self.manifests[manifest.task_id] = left
        for file in expired:
            del self.published[file]
        return CleanupReport(len(expired), sum(file.size for file in expired), tuple(tasks))


@attrs.frozen
class _Unfinished:
    """The staged files of one task."""

    task_id: str
    tables: _Tables
    clock: Callable[[], datetime]

    def put(self, *new: NewFile) -> tuple[FileRef, ...]:
        return tuple(starmap(self._put, new))

    def _put(self, tier: Tier, suffix: str, data: bytes | Path) -> FileRef:
        check_tier(tier)
        name = file_name(self.task_id, suffix)
        content = _taken(data) if isinstance(data, Path) else bytes(data)
        file = describe(self.task_id, tier, name, content)
        with self.tables.lock:
            others = self.tables.staged.get(self.task_id, {}).items()
            kept = {old: held for old, held in others if (old.tier, old.name) != (tier, name)}
            self.tables.staged[self.task_id] = {**kept, file: content}
        return file

    def read(self, file: FileRef) -> bytes:
        with self.tables.lock:
            staged = self.tables.staged.get(self.task_id, {})
            for held, content in chain(staged.items(), self.tables.published.items()):
                if held.task_id == self.task_id and identical(held, file):
                    return content
        raise not_staged(self.task_id, file)

    def retain(self, files: Collection[FileRef]) -> None:
        wanted = {(file.tier, file.name) for file in files}
        with self.tables.lock:
            staged = self.tables.staged.get(self.task_id, {})
            for file in [held for held in staged if (held.tier, held.name) not in wanted]:
                del staged[file]

    def publish(self, result: JSON) -> Manifest:
        kept = copied(result)
        with self.tables.lock:
            staged = self.tables.staged.pop(self.task_id, {})
            published = self.tables.manifests.get(self.task_id)
            if published and not staged:
                return published
            files = tuple(sorted(staged, key=lambda file: (file.tier, file.name)))
            manifest = Manifest(self.task_id, self.clock(), files, kept)
            self.tables.publish(manifest, staged)
            return manifest

    def discard(self) -> None:
        with self.tables.lock:
            self.tables.staged.pop(self.task_id, None)


def _taken(path: Path) -> bytes:
    data = read_plain(path)
    path.unlink()
    return data
