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

import attrs
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
# What may be found once a task that was cut off has been published to the end, beside what was
# there before; of what is cleaned up nothing but this.
VERSIONS = {
    publish: [dict(list(NEW.items())[:1]), NEW],
    publish_what_is_retained: [HALF, {**HALF, **LAST}, LAST],
    discard: [dict(list(NEW.items())[:1]), NEW],
    delete: [{}],
    clean_up_some: [{("videos", "final.mp4"): b"old video"}],
    clean_up_all: [{}],
}
# What is found if the power fails after it has returned.
AFTERWARDS = {publish: NEW, publish_what_is_retained: LAST, delete: {}}


def storage(root: Path, disk: FileSystem) -> LocalStorage:
    return LocalStorage(root, min_free_bytes=0, disk=disk, clock=lambda: NOW)


async def found(store):
    return {
        (info.file.tier, info.file.name.removeprefix("task_")): await store.get(info.file)
        async for info in store.list()
    }


def half_seen(root):
    """Files that a manifest names, whose time is not over, and that are not whole."""
    for path in root.glob("videos/*_metadata.json"):
        for file in json.loads(path.read_bytes())["files"]:
            place = root / file["tier"] / file["name"]
            if not place.exists() or sha256(place.read_bytes()).hexdigest() != file["sha256"]:
                yield place.name


@attrs.frozen
class Cut:
    """What was found after a cut.

    Attributes:
        where: What was about to be changed, and what is found.
        passed: The moments before, of those that have a name of their own.
    """

    where: object
    passed: frozenset[str]


def cuts(moments, ways, base):
    """Leave in a folder what each cut leaves there, once."""
    passed, tried = frozenset(), set()
    for moment in moments:
        passed |= {moment.before} & {"retained", "the end"}
        for picks in ways(moment):
            shutil.rmtree(base, ignore_errors=True)
            moment.leave(base, picks)
            if (state := (passed, contents(base))) not in tried:
                tried.add(state)
                yield Cut((moment.before, picks), passed)


async def moments_of(work, base, **options):
    """When the power may be cut while something is done with the storage in a folder."""
    disk = CachedDisk(base, base / "store" / "journal.db", **options)
    await work(storage(base / "store", disk), disk)
    disk.note("the end")
    return disk.moments


@attrs.frozen
class Case:
    """What is broken off.

    Attributes:
        story: What is done.
        old: The task is published already.
        end: How a transaction that was broken off is ended.
    """

    story: object
    old: bool
    end: str

    async def moments(self, base):
        """When the power may be cut."""
        base.mkdir()
        if self.old:
            transaction = await storage(base / "store", VolatileFileSystem()).open("task")
            await stage(transaction, OLD)
            await transaction.publish()
        return await moments_of(self.story, base)

    async def finish(self, store, disk):
        """Go on with what is left, as the next process does."""
        if self.story in CLEANING:
            await self.story(store, disk)
        else:
            await getattr(await store.open("task"), self.end)()
        await store.cleanup(NOW)
        await store.cleanup(datetime.now(UTC) + timedelta(hours=2))

    async def check(self, root, cut, harness):
        """Go on, and look at what there is before and afterwards."""
        store = storage(root, VolatileFileSystem())
        if self.story not in CLEANING:
            assert not list(half_seen(root)), cut
            if "the end" in cut.passed:
                assert await found(store) == AFTERWARDS.get(self.story, self.before), cut
                assert await store.staged() == (), cut
        await self.finish(store, None)
        assert harness.orphans(root) == set(), cut
        now = await found(store)
        assert now in self.versions, (cut, now)
        assert not ("retained" in cut.passed and HALF.items() & now.items()), cut

    async def check_again(self, folder, first, harness, **options):
        """Go on in what is `left`, and cut the power meanwhile, and once that has ended."""
        moments = await moments_of(self.finish, folder / "left", **options)
        ended = await found(storage(folder / "left" / "store", VolatileFileSystem()))
        for cut in cuts(moments, Moment.extremes, folder / "found"):
            both = Cut((first.where, cut.where), first.passed - {"the end"})
            root = folder / "found" / "store"
            if "the end" in cut.passed and self.story not in CLEANING:  # which may be done twice
                store = storage(root, VolatileFileSystem())
                assert (await found(store), await store.staged()) == (ended, ()), both
            await self.check(root, both, harness)

    @property
    def before(self):
        return OLD if self.old else {}

    @property
    def versions(self):
        taken_down = [{}] if self.end == "discard" else []
        before = [] if self.story in CLEANING else [self.before]
        return [*before, *taken_down, *VERSIONS[self.story]]


EVERY = [
    pytest.param(Case(story, old, end), id=f"{story.__name__}-{'old' if old else 'new'}-{end}")
    for story in STORIES
    for old in ([True, False] if story in STORIES[:3] else [True])
    for end in (["publish", "discard"] if story not in CLEANING else ["publish"])
]


@pytest.fixture
def anyio_backend():
    """One loop is enough: all of this happens in threads."""
    return "asyncio"


@pytest.mark.parametrize("case", EVERY)
async def test_all_or_nothing_of_the_cache_is_kept(tmp_path, harness, case):
    for cut in cuts(await case.moments(tmp_path / "whole"), Moment.extremes, tmp_path / "left"):
        await case.check(tmp_path / "left" / "store", cut, harness)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", EVERY)
async def test_each_change_alone_is_kept_or_lost(tmp_path, harness, case):
    for cut in cuts(await case.moments(tmp_path / "whole"), Moment.singled_out, tmp_path / "left"):
        await case.check(tmp_path / "left" / "store", cut, harness)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", EVERY)
async def test_the_power_fails_again_during_recovery(tmp_path, harness, case):
    for first in cuts(await case.moments(tmp_path / "whole"), Moment.extremes, tmp_path / "left"):
        await case.check_again(tmp_path, first, harness)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", EVERY)
async def test_the_power_fails_after_the_death_of_a_process(tmp_path, harness, case):
    for killed in await case.moments(tmp_path / "whole"):
        shutil.rmtree(tmp_path / "left", ignore_errors=True)
        killed.leave(tmp_path / "left", killed.extremes()[1])
        first = Cut(killed.before, frozenset())
        await case.check_again(tmp_path, first, harness, killed=killed)


async def test_what_is_put_beside_what_a_dead_process_has_left_is_on_the_disk(tmp_path):
    async def put(store, _):
        await (await store.open("task")).put("temp", "a.bin", b"content")

    whole, left, found_again = (tmp_path / name for name in ("whole", "left", "found"))
    whole.mkdir()
    await storage(whole / "store", VolatileFileSystem()).stats()
    for killed in await moments_of(put, whole):
        shutil.rmtree(left, ignore_errors=True)
        killed.leave(left, killed.extremes()[1])
        end = (await moments_of(put, left, killed=killed))[-1]
        for _ in cuts([end], Moment.extremes, found_again):
            again = await storage(found_again / "store", VolatileFileSystem()).open("task")
            manifest = await again.publish()
            assert [file.name for file in manifest.files] == ["task_a.bin"], killed.before
