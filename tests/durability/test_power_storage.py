"""The power fails at every point of what a storage does beside a first run.

Afterwards whoever opens the task, or cleans up, finishes what was broken off: a version is whole,
or gone with all its files, and nothing is left that nobody names.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from power import CachedDisk, Moment, contents

from talkgen.storage import LocalStorage
from talkgen.storage.filesystem import VolatileFileSystem

if TYPE_CHECKING:
    from pathlib import Path

    from talkgen.storage.filesystem import FileSystem

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OLD = {("uploads", "original.png"): b"old photo", ("videos", "final.mp4"): b"old video"}
NEW = {("processed", "mask.png"): b"new mask", ("videos", "final.mp4"): b"new video"}
LAST = {("videos", "final.mp4"): b"new video"}
HALF = {("processed", "half.png"): b"half done"}


async def stage(transaction, files):
    return [await transaction.put(tier, suffix, data) for (tier, suffix), data in files.items()]


async def publish(store, _):
    transaction = await store.open("task")
    await stage(transaction, NEW)
    await transaction.publish()


async def publish_what_is_retained(store, disk):
    transaction = await store.open("task")
    await stage(transaction, HALF)
    await transaction.retain(await stage(transaction, LAST))
    disk.note("retained")
    await transaction.publish()


async def discard(store, _):
    transaction = await store.open("task")
    await stage(transaction, NEW)
    await transaction.discard()


async def delete(store, _):
    await store.delete_task("task")


async def clean_up_some(store, _):
    await store.cleanup(NOW + timedelta(days=8))


async def clean_up_all(store, _):
    await store.cleanup(NOW + timedelta(days=31))


CLEANING = (clean_up_some, clean_up_all)
STORIES = (publish, publish_what_is_retained, discard, delete, *CLEANING)
# What may be found once a task that was cut off has been published to the end.
VERSIONS = {
    publish: [OLD, dict(list(NEW.items())[:1]), NEW],
    publish_what_is_retained: [OLD, HALF, {**HALF, **LAST}, LAST],
    discard: [OLD, dict(list(NEW.items())[:1]), NEW],
    delete: [OLD, {}],
    clean_up_some: [{("videos", "final.mp4"): b"old video"}],
    clean_up_all: [{}],
}
# What is found if the power fails after it has returned.
AFTERWARDS = {publish: NEW, publish_what_is_retained: LAST, delete: {}}


EVERY = [
    pytest.param(story, old, end, id=f"{story.__name__}-{'old' if old else 'new'}-{end}")
    for story in STORIES
    for old in ([True, False] if story in STORIES[:3] else [True])
    for end in (["publish", "discard"] if story not in CLEANING else ["publish"])
]


def storage(root: Path, disk: FileSystem) -> LocalStorage:
    return LocalStorage(root, min_free_bytes=0, disk=disk, clock=lambda: NOW)


async def found(store):
    return {
        (info.file.tier, info.file.name.removeprefix("task_")): await store.get(info.file)
        async for info in store.list()
    }


async def moments_of(story, base, *, old):
    """When the power may be cut; the task may be published already."""
    store = storage(base / "store", VolatileFileSystem())
    if old:
        transaction = await store.open("task")
        await stage(transaction, OLD)
        await transaction.publish()
    disk = CachedDisk(base, base / "store" / "journal.db")
    await story(storage(base / "store", disk), disk)
    disk.note("the end")
    return disk.moments


def half_seen(root):
    """Files that a manifest names, whose time is not over, and that are not whole."""
    for path in root.glob("videos/*_metadata.json"):
        for file in json.loads(path.read_bytes())["files"]:
            place = root / file["tier"] / file["name"]
            if not place.exists() or sha256(place.read_bytes()).hexdigest() != file["sha256"]:
                yield place.name


@pytest.fixture
def anyio_backend():
    """One loop is enough: all of this happens in threads."""
    return "asyncio"


@pytest.mark.parametrize(("story", "old", "end"), EVERY)
async def test_all_or_nothing_of_the_cache_is_kept(tmp_path, harness, story, old, end):
    await cut_and_finish(tmp_path, harness, story, Moment.extremes, old=old, end=end)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("story", "old", "end"), EVERY)
async def test_each_change_alone_is_kept_or_lost(tmp_path, harness, story, old, end):
    await cut_and_finish(tmp_path, harness, story, Moment.singled_out, old=old, end=end)


async def cut_and_finish(folder, harness, story, ways, *, old, end):
    """Cut the power at each moment, in each of these ways, and go on with what is left."""
    (folder / "whole").mkdir()
    moments = await moments_of(story, folder / "whole", old=old)
    versions = VERSIONS[story] if old else [{}, *VERSIONS[story][1:]]
    if end == "discard":  # the version before may have been taken down
        versions = [*versions, {}]
    retained, tried = False, set()
    for moment in moments:
        retained |= moment.before == "retained"
        ended = moment.before == "the end"
        for picks in ways(moment):
            base = folder / "left"
            shutil.rmtree(base, ignore_errors=True)
            moment.leave(base, picks)
            if (state := (retained, ended, contents(base))) in tried:
                continue
            tried.add(state)
            where = (moment.before, picks)
            again = storage(base / "store", VolatileFileSystem())
            if story not in CLEANING:
                assert not list(half_seen(base / "store")), where
                if ended:
                    assert await found(again) == AFTERWARDS.get(story, OLD if old else {}), where
                    assert await again.staged() == (), where
                await getattr(await again.open("task"), end)()
            else:
                await story(again, None)
            await again.cleanup(NOW)
            await again.cleanup(datetime.now(UTC) + timedelta(hours=2))
            assert harness.orphans(base / "store") == set(), where
            now = await found(again)
            assert now in versions, (where, now)
            assert not (retained and HALF.items() & now.items()), where
