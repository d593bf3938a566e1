"""What models said before, by what they were shown: kept in the storage, as any other files.

An entry is a published task of its own with one file in the `processed` tier, so that it appears
whole or not at all, expires with that tier, and works wherever the storage does. Its name begins
with the digest of the photo that it was made of, so that forgetting the photo forgets the entry.

A cache never fails a run: what cannot be read is made again, what cannot be kept is left out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from talkgen.draft import Person
from talkgen.media import Encoded, Image
from talkgen.protocols import Codec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from talkgen.protocols import FileInfo, StageContext, Storage

__all__ = ["IMAGE", "PERSONS", "VERSION", "ResultCache", "recalled"]

logger = logging.getLogger("talkgen.cache")

T = TypeVar("T")

VERSION = 2
"""Part of every entry's name; raised whenever a backend of the same key gives another result."""

MAX_BYTES = 2**30
SUFFIX = "cached.bin"
ENTRY = re.compile(r"cache-(?P<origin>[0-9a-f]{32})-[0-9a-f]{32}")
PUTS_BETWEEN_TRIMS = 64


class ResultCache:
    """Results by key, in a storage; for the tasks of one event loop."""

    def __init__(self, storage: Storage, *, max_bytes: int = MAX_BYTES) -> None:
        """Read and write nothing yet.

        Args:
            storage: Where entries are kept.
            max_bytes: The oldest entries go when all of them are larger than this.
        """
        self._storage = storage
        self._max_bytes = max_bytes
        self._locks: dict[str, anyio.Lock] = {}

    async def remember(
        self,
        origin: str,
        key: str,
        make: Callable[[], Awaitable[T]],
        codec: Codec[T],
        *,
        worth_keeping: Callable[[], bool] = lambda: True,
    ) -> T:
        """The result of an earlier call with the same origin and key, or a new one.

        Whoever asks for what is just being made waits for it.

        Args:
            origin: SHA-256 of the photo, hexadecimal.
            key: Everything else that the result depends on.
            make: Makes the result.
            codec: Its kind.
            worth_keeping: Asked after `make`: False for a result that fell short.
        """
        entry = _entry(origin, key)
        async with self._alone(entry):
            if (known := await self._get(entry, codec)) is not None:
                return known
            made = await make()
            if worth_keeping():
                await self._put(entry, made, codec)
            return made

    async def forget(self, origin: str) -> None:
        """Delete every entry of a photo."""
        for info in await self._entries():
            if (match := ENTRY.fullmatch(info.file.task_id)) and match["origin"] == origin[:32]:
                await self._storage.delete_task(info.file.task_id)

    async def trim(self) -> None:
        """Delete the oldest entries until the rest is small enough."""
        entries = await self._entries()
        excess = sum(info.file.size for info in entries) - self._max_bytes
        for info in entries:
            if excess <= 0:
                break
            await self._storage.delete_task(info.file.task_id)
            excess -= info.file.size

    async def _entries(self) -> list[FileInfo]:
        """All of them, oldest first."""
        return [
            info
            async for info in self._storage.list(tier="processed")
            if ENTRY.fullmatch(info.file.task_id) and info.file.name.endswith(f"_{SUFFIX}")
        ]

    @asynccontextmanager
    async def _alone(self, entry: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(entry, anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._locks.pop(entry, None)

    async def _get(self, entry: str, codec: Codec[T]) -> T | None:
        try:
            async for info in self._storage.list(task_id=entry):
                data = await self._storage.get(info.file)
                return await anyio.to_thread.run_sync(codec.load, data)
        except Exception as error:  # noqa: BLE001 - a codec may raise anything
            logger.warning("%s cannot be used and is made again: %s", entry, error)
        return None

    async def _put(self, entry: str, result: T, codec: Codec[T]) -> None:
        try:
            data = await anyio.to_thread.run_sync(codec.dump, result)
            files = await self._storage.open(entry)
            try:
                await files.put("processed", SUFFIX, data)
                await files.publish()
            finally:
                await files.discard()  # nothing once it is published
            await self._trim_now_and_then()
        except Exception as error:  # noqa: BLE001 - the result is there, whatever became of this
            logger.warning("%s is not cached: %s", entry, error)

    async def _trim_now_and_then(self) -> None:
        # By chance, not by counting: there may be many caches of one storage, each for a moment.
        if random.randrange(PUTS_BETWEEN_TRIMS) == 0:  # noqa: S311 - nothing is secret about it
            await self.trim()


async def recalled(
    context: StageContext,
    backend: object,
    image: Image,
    make: Callable[[], Awaitable[T]],
    codec: Codec[T],
    *settings: object,
) -> T:
    """What a backend gave for this picture before, or gives now.

    Args:
        context: The stage's.
        backend: One without a `key` is asked anew each time: nobody knows what it depends on.
        image: What it is shown.
        make: Asks it.
        codec: The kind of its result.
        settings: What it is told beside the picture.
    """
    key = await anyio.to_thread.run_sync(_asked, backend, image, settings)
    return await make() if key is None else await context.remember(key, make, codec)


def _asked(backend: object, image: Image, settings: tuple[object, ...]) -> str | None:
    """What a backend is asked; None where it has no key. Blocks: it may read its weights for it."""
    key = getattr(backend, "key", None)
    return None if key is None else f"{key}|{image.digest}|{settings}"


def _entry(origin: str, key: str) -> str:
    digest = hashlib.sha256(f"{VERSION}|{key}".encode()).hexdigest()
    return f"cache-{origin[:32]}-{digest[:32]}"


# --- kinds of results ---------------------------------------------------------------------------


def _dump_image(image: Image) -> bytes:
    return image.original().data


def _dump_persons(persons: tuple[Person, ...]) -> bytes:
    return json.dumps([person.lossless() for person in persons]).encode()


def _load_persons(data: bytes) -> tuple[Person, ...]:
    return tuple(map(Person.restored, json.loads(data)))


def _load_image(data: bytes) -> Image:
    return Image.restored(Encoded(data, "png"))


IMAGE: Codec[Image] = Codec(_dump_image, _load_image)
"""For `context.remember`: a picture, RGB or RGBA, to the last bit."""

PERSONS: Codec[tuple[Person, ...]] = Codec(_dump_persons, _load_persons)
"""For `context.remember`: persons with their landmarks, to the last bit."""
