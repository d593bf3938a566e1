"""The index says what the manifests say, whatever has become of it."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkgen.media import FileRef
from talkgen.protocols import Manifest
from talkgen.storage import LocalStorage, Retention
from talkgen.storage import index as index_module
from talkgen.storage.filesystem import FileSystem, VolatileFileSystem
from talkgen.storage.index import Index
from talkgen.storage.layout import Layout
from talkgen.storage.listing import in_order, sizes, visible
from talkgen.storage.manifests import decode, encode
from talkgen.storage.names import TIERS
from talkgen.storage.retention import remainder

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = 1_000_000_000


def manifest(task_id: str, *tiers: str, created: datetime = NOW, size: int = 1) -> Manifest:
    files = tuple(FileRef(task_id, tier, f"{task_id}_{tier}.bin", size, "0" * 64) for tier in tiers)
    return Manifest(task_id, created, files, {"success": True})


class Folder:
    """Manifests without files, and an index of them, that knows what it reads.

    Attributes:
        ahead: Seconds by which the index believes that the manifests are older.
    """

    def __init__(self, root: Path, disk: FileSystem | None = None) -> None:
        self.layout = Layout(root)
        for folder in self.layout.folders:
            folder.mkdir(parents=True, exist_ok=True)
        self.reads: list[str] = []
        self.ahead = 10
        self.index = Index(self.layout, disk or VolatileFileSystem(), self.read, clock=self.clock)

    def clock(self) -> int:
        return time.time_ns() + self.ahead * SECOND

    def read(self, task_id: str) -> Manifest | None:
        self.reads.append(task_id)
        try:
            data = self.layout.manifest(task_id).read_bytes()
        except FileNotFoundError:
            return None
        return decode(task_id, data, self.layout.url)

    def write(self, *manifests: Manifest) -> None:
        """As another hand might: a new file takes the old one's place."""
        for one in manifests:
            part = self.layout.root / "part"
            part.write_bytes(encode(one))
            part.replace(self.layout.manifest(one.task_id))

    def tasks(self) -> set[str]:
        found = self.index.page(Retention(), NOW, tier=None, after=None, limit=100)
        return {info.file.task_id for info in found}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_manifests_are_read_once(folder: Folder):
    folder.write(manifest("a", "videos"), manifest("b", "videos"))
    assert folder.tasks() == {"a", "b"}
    assert sorted(folder.reads) == ["a", "b"]
    folder.reads.clear()
    assert folder.tasks() == {"a", "b"}
    assert folder.index.sizes(Retention(), NOW) == {"videos": (2, 2)}
    assert folder.index.due(Retention(), NOW) == []
    assert folder.reads == []
    folder.write(manifest("c", "videos"))
    assert folder.tasks() == {"a", "b", "c"}
    assert folder.reads == ["c"]


def test_anothers_changes_are_seen(folder: Folder):
    """Come, replaced and gone, by a hand that knows of no index."""
    folder.write(manifest("a", "videos"), manifest("b", "videos"))
    assert folder.index.sizes(Retention(), NOW) == {"videos": (2, 2)}
    folder.write(manifest("a", "videos", "temp", size=7))
    assert folder.index.sizes(Retention(), NOW) == {"videos": (2, 8), "temp": (1, 7)}
    folder.layout.manifest("b").unlink()
    assert folder.tasks() == {"a"}


def test_changes_within_a_tick_of_the_clock_are_seen(folder: Folder, monkeypatch):
    """The states before and after are the same: they prove nothing as long as they are young."""
    monkeypatch.setattr(index_module, "_state", lambda seen: "the same")
    seen = {}
    for folder.ahead in (0, 10):
        for size in (1, 2):
            folder.write(manifest("a", "videos", size=size))
            ((_, seen[folder.ahead, size]),) = folder.index.sizes(Retention(), NOW).values()
    assert seen == {(0, 1): 1, (0, 2): 2, (10, 1): 1, (10, 2): 1}


@pytest.mark.parametrize("nanoseconds", [0, 1])
def test_how_young_depends_on_the_file_system(nanoseconds: int):
    """One that counts whole seconds may stand still for two of them."""
    touched = 10**18 + nanoseconds

    class Seen:
        st_dev = st_ino = st_size = 1
        st_mtime_ns = st_ctime_ns = touched

    kept = [
        index_module._kept_state(Seen, touched + after) is not None
        for after in (SECOND // 20, SECOND // 5, 3 * SECOND)
    ]
    assert kept == [False, bool(nanoseconds), True]


def damage_head(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


def damage_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [Path.unlink, damage_head, damage_middle, cut_off, empty])
def test_a_lost_or_damaged_index_is_made_anew(folder: Folder, harm, caplog):
    folder.write(*(manifest(f"task-{number}", *TIERS) for number in range(100)))
    before = folder.index.sizes(Retention(), NOW)
    harm(folder.layout.index)
    assert folder.index.sizes(Retention(), NOW) == before
    assert folder.index.due(Retention(), NOW) == []
    assert "There is no index" not in caplog.text
    folder.reads.clear()
    assert len(folder.tasks()) == 25
    assert folder.reads == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_folder_in_its_place_costs_time_only(folder: Folder, caplog):
    folder.layout.index.mkdir()
    folder.write(manifest("a", "videos"))
    assert folder.tasks() == {"a"}
    assert "There is no index" in caplog.text


def test_an_index_that_stays_locked_costs_time_only(folder: Folder, monkeypatch, caplog):
    monkeypatch.setattr(index_module, "PATIENCE", 0.01)
    folder.write(manifest("a", "videos"))
    folder.tasks()
    with closing(sqlite3.connect(folder.layout.index, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        folder.write(manifest("b", "videos"))
        assert folder.tasks() == {"a", "b"}
    assert "There is no index" in caplog.text
    caplog.clear()
    assert folder.tasks() == {"a", "b"}
    assert not caplog.records


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("how", ["before", "after"])
def test_an_index_that_cannot_be_written_costs_time_only(tmp_path, faulty_disk, number, how):
    for at in range(3):
        folder = Folder(tmp_path / str(at), faulty_disk(at, how, number))
        folder.write(manifest("a", "videos"))
        assert folder.tasks() == {"a"}
        damage_head(folder.layout.index)
        folder.write(manifest("b", "temp"))
        assert folder.tasks() == {"a", "b"}


def test_a_process_that_dies_while_writing_it_harms_nobody(tmp_path, faulty_disk, died):
    for at in range(2):
        root = tmp_path / str(at)
        folder = Folder(root, faulty_disk(0, ["before", "after"][at]))
        folder.write(manifest("a", "videos"))
        with pytest.raises(died):
            folder.tasks()
        assert Folder(root).tasks() == {"a"}


durations = st.timedeltas(timedelta(), timedelta(days=60)) | st.just(timedelta.max)
retentions = st.builds(Retention, *[durations] * 4)
times = st.datetimes(datetime(2029, 12, 1), datetime(2031, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
end_of_time = st.just(datetime.max.replace(tzinfo=UTC))
tasks = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.tuples(st.sets(st.sampled_from(TIERS)), times, st.integers(0, 2**40)),
)


@settings(deadline=None, max_examples=60)
@given(tasks, retentions, times | end_of_time, st.sampled_from([None, *TIERS]), st.integers(1, 3))
def test_it_says_what_the_manifests_say(tasks, retention, now, tier, limit):
    manifests = [
        manifest(task_id, *sorted(tiers), created=created, size=size)
        for task_id, (tiers, created, size) in tasks.items()
    ]
    root = Path(tempfile.mkdtemp(prefix="talkgen-index-"))
    try:
        folder = Folder(root)
        folder.write(*manifests)
        manifests = [folder.read(one.task_id) for one in manifests]
        seen = [info for one in manifests for info in visible(one, retention, now)]
        assert folder.index.sizes(retention, now) == sizes(seen)
        due = {one.task_id for one in manifests if remainder(one, retention, now) != one}
        assert set(folder.index.due(retention, now)) == due
        found, page = [], None
        while page is None or page:
            after = found[-1] if found else None
            page = folder.index.page(retention, now, tier=tier, after=after, limit=limit)
            assert len(page) <= limit
            found += page
        assert tuple(found) == in_order(seen, tier)
    finally:
        shutil.rmtree(root)


async def test_a_storage_lists_page_by_page(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("talkgen.storage.local.PAGE", 2)
    storage = LocalStorage(tmp_path, disk=VolatileFileSystem(), min_free_bytes=0)
    files = set()
    for number in range(5):
        transaction = await storage.open(f"task-{number}")
        files.add(await transaction.put("videos", "final.mp4", b"%d" % number))
        await transaction.publish()
    assert [info.file async for info in storage.list()] == sorted(files, key=lambda file: file.name)
    assert await anext(aiter(storage.list())) is not None


async def test_no_manifest_is_read_to_count(tmp_path: Path, monkeypatch):
    storage = LocalStorage(tmp_path, disk=VolatileFileSystem(), min_free_bytes=0)
    transaction = await storage.open("task")
    await transaction.put("videos", "final.mp4", b"video")
    await transaction.publish()
    storage._index._clock = lambda: time.time_ns() + 10 * SECOND
    await storage.stats()
    monkeypatch.setattr(storage._shelves, "manifest", None)
    assert (await storage.stats()).total_files == 1
    assert (await storage.cleanup()).files_deleted == 0
    assert len([info async for info in storage.list()]) == 1
