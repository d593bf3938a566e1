"""Files in an object store: S3, Google Cloud Storage, Azure."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CancelScope, create_task_group, to_thread
from anyio.lowlevel import checkpoint

from talkgen._clock import utc_now
from talkgen._iteration import Fetched
from talkgen.errors import TalkgenError
from talkgen.storage.bucket import Bucket
from talkgen.storage.cleanup import Tally, logged
from talkgen.storage.editions import STAGING, Edition, Editions
from talkgen.storage.filesystem import VolatileFileSystem
from talkgen.storage.listing import find, in_order, sizes, statistics, visible
from talkgen.storage.names import check_file, check_task_id, is_task_id
from talkgen.storage.retention import Retention, remainder
from talkgen.storage.scratch import Scratch
from talkgen.storage.staged_objects import StagedObjects, read_exactly
from talkgen.storage.streams import PieceStream
from talkgen.storage.transaction import StorageTransaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from datetime import datetime

    from anyio.abc import ByteReceiveStream

    from talkgen.media import FileRef, Tier
    from talkgen.protocols import CleanupReport, FileInfo, StorageStats

__all__ = ["ObjectStorage"]

T = TypeVar("T")

AT_ONCE = 16  # requests


class ObjectStorage:
    """Keeps files in an object store, published all at once and whole at any moment.

    Any number of processes and machines may share it; a task is to have one owner at a time, as
    everywhere. Of two that publish the same task nevertheless, one succeeds and the other is told.
    """

    def __init__(
        self,
        url: str,
        *,
        retention: Retention | None = None,
        clock: Callable[[], datetime] = utc_now,
        store: Any = None,
        **options: Any,
    ) -> None:
        """Contact nobody yet.

        Args:
            url: `s3://bucket/folder`, `gs://bucket/folder`, `az://container/folder` or
                `memory://`, which goes with this process.
            retention: How long published files are kept.
            clock: Gives the time, with its zone.
            store: An obstore store that has its own credentials, to use at this address.
            **options: Instead: what `obstore.store.from_url` takes, like `region`, `endpoint`,
                `client_options`, `retry_config`. By default the cloud's own environment
                variables and instance credentials are used.

        Raises:
            MissingDependency: obstore is not installed.
            ValueError: The address is of no object store, or an option is none of it.
        """
        self._bucket = Bucket(url, store, options)
        self._retention = retention or Retention()
        self._clock = clock
        self._editions = Editions(self._bucket)
        self._known: dict[tuple[str, str], Edition] = {}
        self._scratch = Scratch(Path(tempfile.gettempdir()), VolatileFileSystem())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._bucket.address!r})"

    @property
    def durable(self) -> bool:
        """Files outlive this process."""
        return self._bucket.durable

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
        pieces = self._bucket.pieces(await to_thread.run_sync(self._find, file))
        first = await to_thread.run_sync(next, pieces, None)
        rest = chain([] if first is None else [first], pieces)
        async with PieceStream(partial(to_thread.run_sync, next, rest, None)) as stream:
            yield stream

    def list(self, tier: Tier | None = None, task_id: str | None = None) -> AsyncIterator[FileInfo]:
        """Published files, oldest first.

        Args:
            tier: Only this tier's.
            task_id: Only this task's.
        """
        if task_id is not None:
            return Fetched(partial(to_thread.run_sync, self._listed, tier, task_id))
        return Fetched(partial(self._fetch, tier))

    async def delete_task(self, task_id: str) -> None:
        """Delete whatever is published under this id; what is staged stays."""
        check_task_id(task_id)
        with CancelScope(shield=True):
            await to_thread.run_sync(self._editions.delete, task_id)

    async def open(self, task_id: str) -> StorageTransaction:
        """A new transaction, or an unfinished one again.

        Raises:
            InvalidName: The id cannot be part of an object's name.
        """
        check_task_id(task_id)
        return await to_thread.run_sync(self._opened, task_id)

    async def staged(self) -> tuple[str, ...]:
        """Tasks with an unfinished transaction, by name."""
        names = await to_thread.run_sync(self._bucket.folders, STAGING)
        return tuple(filter(is_task_id, names))

    async def ensure_free(self, bytes: int) -> None:  # noqa: A002, ARG002 - the protocol's
        """There is always room."""
        await checkpoint()

    async def cleanup(self, now: datetime | None = None) -> CleanupReport:
        """Delete published files whose time is over; staged ones are never touched.

        Args:
            now: Another time than the clock's.
        """
        now = now or self._clock()
        tally = Tally(self._bucket.address)

        async def expire(task_id: str) -> None:
            work = partial(self._editions.expire, task_id, self._retention, now)
            with logged(f"task {task_id}"):
                expired, gone = await to_thread.run_sync(work)
                tally.count(file.size for file in expired)
                if gone:
                    tally.tasks.append(task_id)

        await each(expire, await self._due(now))
        return tally.report()

    async def stats(self) -> StorageStats:
        """Published files by tier."""
        infos = await self._fetch(None)
        return statistics(self._bucket.address, sizes(infos), self._retention, disk=None)

    async def aclose(self) -> None:
        """Nothing is held open. Published files can still be read."""

    async def _fetch(self, tier: Tier | None) -> tuple[FileInfo, ...]:
        now = self._clock()
        shown = (
            visible(edition.manifest, self._retention, now)
            for edition, _ in (await self._newest()).values()
        )
        return in_order(chain.from_iterable(shown), tier)

    async def _due(self, now: datetime) -> Sequence[str]:
        """Tasks of which something has expired, or is left over."""
        return [
            task_id
            for task_id, (edition, left_over) in (await self._newest()).items()
            if left_over
            or edition.manifest is None
            or remainder(edition.manifest, self._retention, now) != edition.manifest
        ]

    async def _newest(self) -> dict[str, tuple[Edition, bool]]:
        """Each task's newest edition, and whether older ones are left; reads those that are new."""
        objects = await to_thread.run_sync(self._editions.objects)
        newest = {task_id: list(editions.items())[-1] for task_id, editions in objects.items()}
        known = {place: self._known[place] for place in newest.values() if place in self._known}

        async def read(place: tuple[str, str]) -> None:
            if edition := await to_thread.run_sync(self._editions.readable, place[0]):
                known[place] = edition

        await each(read, set(newest.values()) - known.keys())
        self._known = known
        return {
            task_id: (known[place], len(objects[task_id]) > 1)
            for task_id, place in newest.items()
            if place in known
        }

    def _listed(self, tier: Tier | None, task_id: str) -> tuple[FileInfo, ...]:
        _, edition = self._editions.newest(check_task_id(task_id))
        return in_order(self._visible(edition), tier)

    def _visible(self, edition: Edition | None) -> tuple[FileInfo, ...]:
        manifest = edition.manifest if edition else None
        return visible(manifest, self._retention, self._clock())

    def _find(self, file: FileRef) -> str:
        """The object of a published file."""
        check_file(file)
        _, edition = self._editions.newest(file.task_id)
        found = find(file, self._visible(edition))
        assert edition is not None  # noqa: S101 - it names the file
        return edition.key(found)

    def _read(self, file: FileRef) -> bytes:
        return read_exactly(self._bucket, self._find(file), file)

    def _opened(self, task_id: str) -> StorageTransaction:
        unfinished = StagedObjects(task_id, self._bucket, self._editions, self._clock)
        return StorageTransaction(unfinished, self._scratch)


async def each(work: Callable[[T], Awaitable[object]], items: Iterable[T]) -> None:
    """Do the work for each item, some at once; the first error ends it all."""
    left = iter(items)
    errors: list[TalkgenError] = []

    async def some() -> None:
        try:
            for item in left:
                await work(item)
        except TalkgenError as error:
            errors.append(error)
            group.cancel_scope.cancel()

    async with create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(some)
    if errors:
        raise errors[0]
