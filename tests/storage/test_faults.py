"""A storage whose process dies, or whose disk fails, at any single call.

Each story is told once to count the calls by which it changes the disk, then once for each of
them with that call broken. A reader of the folder never sees a half file, and afterwards the
task is whole or gone, with nothing left over.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from talkgen.errors import InsufficientStorage, StorageError
from talkgen.storage import LocalStorage
from talkgen.storage.filesystem import VolatileFileSystem

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OLD = {("uploads", "original.png"): b"old photo", ("videos", "final.mp4"): b"old video"}
NEW = {("processed", "mask.png"): b"new mask", ("videos", "final.mp4"): b"new video"}


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: all of this happens in threads."""
    return "asyncio"


def storage(root: Path, disk=None) -> LocalStorage:
    disk = disk or VolatileFileSystem()  # nobody takes the power away
    return LocalStorage(root, min_free_bytes=0, disk=disk, clock=lambda: NOW)


async def stage(transaction, contents) -> None:
    for (tier, suffix), content in contents.items():
        await transaction.put(tier, suffix, content)


async def publish(store: LocalStorage) -> None:
    transaction = await store.open("task")
    await stage(transaction, NEW)
    await transaction.publish()


async def discard(store: LocalStorage) -> None:
    transaction = await store.open("task")
    await stage(transaction, NEW)
    await transaction.discard()


async def delete(store: LocalStorage) -> None:
    await store.delete_task("task")


async def clean_up_some(store: LocalStorage) -> None:
    await store.cleanup(NOW + timedelta(days=8))


async def clean_up_all(store: LocalStorage) -> None:
    await store.cleanup(NOW + timedelta(days=31))


STORIES = [publish, discard, delete, clean_up_some, clean_up_all]
FRESH = [publish, discard]


async def prepared(root: Path, *, old: bool) -> Path:
    """A storage's folder, with or without an older version of the task."""
    store = storage(root)
    if old:
        transaction = await store.open("task")
        await stage(transaction, OLD)
        await transaction.publish()
    await store.stats()
    return root


async def contents(store: LocalStorage) -> dict:
    return {
        (info.file.tier, info.file.name.removeprefix("task_")): await store.get(info.file)
        async for info in store.list()
    }


def cases(stories):
    return [pytest.param(story, old, id=f"{story.__name__}-{old}") for story, old in stories]


EVERY = cases([(story, True) for story in STORIES] + [(story, False) for story in FRESH])


async def breaking_points(story, root: Path, faulty_disk, *, old: bool):
    """A folder, a call and how it breaks, for all that the story can break at."""
    disk = faulty_disk()
    await story(storage(await prepared(root / "counted", old=old), disk))
    return [
        (root / f"{at}-{how}", at, how)
        for at, name in enumerate(disk.calls)
        for how in ("before", "after", *(["half"] if name == "write" else []))
    ]


@pytest.mark.parametrize(("story", "old"), EVERY)
@pytest.mark.parametrize("end", ["publish", "discard"])
async def test_a_process_may_die_anywhere(tmp_path, faulty_disk, died, leftovers, story, old, end):
    for root, at, how in await breaking_points(story, tmp_path, faulty_disk, old=old):
        disk = faulty_disk(at, how)
        store = storage(await prepared(root, old=old), disk)
        with pytest.raises(died):
            await story(store)
        for path in root.glob("[!.]*/task_*.*"):
            if path.suffix != ".json":
                assert path.read_bytes() in {*OLD.values(), *NEW.values()}, (at, how, path)

        again = storage(root)
        await getattr(await again.open("task"), end)()
        if story in {clean_up_all, clean_up_some}:
            await story(again)
            await again.cleanup(datetime.now(UTC) + timedelta(hours=2))  # what lies in temp/
        assert leftovers(root) == set(), (at, how, disk.calls[at])
        found = await contents(again)
        assert set(found.items()) <= {*OLD.items(), *NEW.items()}
        if story is publish and end == "publish":
            assert found in whole_versions(found, old=old), (at, how, found)


def whole_versions(found: dict, *, old: bool) -> list[dict]:
    """What may be published after a first attempt died: whatever it had staged by then."""
    staged = [dict(list(NEW.items())[:count]) for count in (1, 2)]
    return [OLD if old else {}, *staged]


@pytest.mark.parametrize(("story", "old"), EVERY)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_any_call_may_fail(tmp_path, faulty_disk, leftovers, story, old, number):
    """The process lives on: what failed is an error, and discarding leaves nothing over."""
    expected = InsufficientStorage if number == errno.ENOSPC else StorageError
    for root, at, how in await breaking_points(story, tmp_path, faulty_disk, old=old):
        disk = faulty_disk(at, how, number)
        store = storage(await prepared(root, old=old), disk)
        raised = False
        if story in FRESH:
            transaction = await store.open("task")
            try:
                await stage(transaction, NEW)
                await getattr(transaction, story.__name__)()
            except expected:
                raised = True
                await transaction.discard()
            assert raised or how == "after", (at, how)
        else:
            with suppress(expected):
                await story(store)
            await story(storage(root))
        assert leftovers(root) == set(), (at, how, disk.calls[at])
        found = await contents(storage(root))
        if story is publish:
            assert found in ([NEW] if not raised else [OLD, {}] if old else [{}]), (at, how)
        elif story is discard:
            assert found == (OLD if old else {}), (at, how)


@pytest.mark.parametrize("old", [True, False])
async def test_publishing_may_be_tried_again(tmp_path, faulty_disk, leftovers, old):
    """After a failed call the same transaction goes on where it was."""
    for root, at, how in await breaking_points(publish, tmp_path, faulty_disk, old=old):
        store = storage(await prepared(root, old=old), faulty_disk(at, how, errno.EIO))
        transaction = await store.open("task")
        for (tier, suffix), content in NEW.items():
            try:
                await transaction.put(tier, suffix, content)
            except StorageError:
                await transaction.put(tier, suffix, content)
        try:
            await transaction.publish()
        except StorageError:
            await transaction.publish()
        assert await contents(store) == NEW, (at, how)
        assert leftovers(root) == set(), (at, how)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_reading_needs_no_working_disk(tmp_path, faulty_disk, number):
    """What is asked for is told, whether or not it can be kept for the next time."""

    async def look(store: LocalStorage) -> None:
        assert await contents(store) == OLD
        assert (await store.stats()).total_files == len(OLD)

    points = await breaking_points(look, tmp_path, faulty_disk, old=True)
    assert points
    for root, at, how in points:
        await look(storage(await prepared(root, old=True), faulty_disk(at, how, number)))
