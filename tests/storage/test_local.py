"""Files in a folder: what is on the disk, who may read it, and what goes wrong there."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import CancelScope, to_thread

from talkgen.errors import FileMissing, InsufficientStorage, StorageError
from talkgen.media import FileRef
from talkgen.storage import LocalStorage, Retention
from talkgen.storage.filesystem import FileSystem
from talkgen.storage.names import TIERS

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files here"


@pytest.fixture
def storage(root: Path) -> LocalStorage:
    return LocalStorage(root, min_free_bytes=0)


async def published(storage: LocalStorage, task_id: str = "task", data: bytes = b"video"):
    transaction = await storage.open(task_id)
    file = await transaction.put("videos", "final.mp4", data)
    await transaction.publish({"success": True})
    return file


# --- the folder --------------------------------------------------------------------------------


async def test_the_folder_reads_as_documented(storage: LocalStorage, root: Path):
    transaction = await storage.open("task")
    await transaction.put("uploads", "original.jpg", b"photo")
    await transaction.put("videos", "final.mp4", b"video")
    await transaction.publish({"task_id": "task", "success": True})
    assert (root / "uploads" / "task_original.jpg").read_bytes() == b"photo"
    assert (root / "videos" / "task_final.mp4").read_bytes() == b"video"
    manifest = json.loads((root / "videos" / "task_metadata.json").read_text())
    assert manifest["task_id"] == "task"
    assert manifest["result"] == {"task_id": "task", "success": True}
    assert datetime.fromisoformat(manifest["created"]).tzinfo is not None
    assert manifest["files"] == [
        {
            "name": name,
            "tier": tier,
            "size": 5,
            "sha256": sha256(data).hexdigest(),
        }
        for name, tier, data in [
            ("task_original.jpg", "uploads", b"photo"),
            ("task_final.mp4", "videos", b"video"),
        ]
    ]


async def test_published_files_have_addresses(storage: LocalStorage, root: Path):
    """A file's URL is known when it is staged, so that a result can name it."""
    file = await published(storage)
    assert file.url == (root / "videos" / "task_final.mp4").as_uri()
    (info,) = [info async for info in storage.list()]
    assert info.file == file


async def test_a_moved_folder_still_reads(storage: LocalStorage, root: Path):
    file = await published(storage)
    moved = LocalStorage(root.rename(root.with_name("elsewhere")))
    assert await moved.get(file) == b"video"
    (info,) = [info async for info in moved.list()]
    assert "elsewhere" in info.file.url


async def test_nothing_is_made_before_it_is_needed(root: Path):
    LocalStorage(root)
    assert not root.exists()


async def test_missing_parents_are_made(tmp_path: Path):
    storage = LocalStorage(tmp_path / "a" / "b" / "c")
    assert (await storage.stats()).total_files == 0
    assert str(storage.root) in repr(storage)


@pytest.mark.parametrize("below", [".", "below"])
async def test_the_folder_may_be_reached_through_a_link(tmp_path: Path, below: str):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk", target_is_directory=True)
    storage = LocalStorage(tmp_path / "link" / below, min_free_bytes=0)
    assert await storage.get(await published(storage)) == b"video"
    assert (tmp_path / "disk" / below / "videos" / "task_final.mp4").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
async def test_staged_files_are_private(storage: LocalStorage, root: Path):
    await (await storage.open("task")).put("temp", "a.bin", b"a")
    assert (root / ".staging").stat().st_mode & 0o077 == 0


async def test_a_file_in_the_way_is_an_error_that_names_it(root: Path):
    root.write_text("not a folder")
    with pytest.raises(StorageError, match=r"Could not make .*files here") as failed:
        await LocalStorage(root).stats()
    assert isinstance(failed.value.__cause__, OSError)


# --- nothing leaves it -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TIERS, ".staging", ".trash"])
async def test_a_link_for_a_folder_is_refused(root: Path, tmp_path: Path, name: str):
    root.mkdir()
    (root / name).symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(StorageError, match="is a link"):
        await LocalStorage(root).open("task")
    assert {path.name for path in tmp_path.iterdir()} == {root.name}


@pytest.mark.parametrize("name", [".lock", ".index-1.lock", ".index-1.sqlite"])
async def test_a_link_for_a_file_of_its_own_is_refused(root: Path, tmp_path: Path, name: str):
    secret = tmp_path / "secret"
    secret.write_bytes(b"mine")
    root.mkdir()
    (root / name).symlink_to(secret)
    with pytest.raises(StorageError, match="is a link"):
        await LocalStorage(root).stats()
    assert secret.read_bytes() == b"mine"


async def test_links_in_the_way_are_replaced(storage: LocalStorage, root: Path, tmp_path: Path):
    """What they lead to is neither written nor published."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"mine")
    await storage.stats()
    transaction = await storage.open("task")
    await transaction.put("temp", "a.bin", b"a")
    for path in (
        root / ".staging" / "task" / "videos~task_final.mp4",
        root / "videos" / "task_final.mp4",
        root / "temp" / "task_a.bin",
    ):
        path.symlink_to(secret)
    with pytest.raises(StorageError, match="Could not read"):
        await (await storage.open("task")).publish()
    await transaction.put("videos", "final.mp4", b"video")
    manifest = await transaction.publish()
    assert {await storage.get(file) for file in manifest.files} == {b"a", b"video"}
    assert secret.read_bytes() == b"mine"


async def test_a_link_for_a_manifest_publishes_nothing(
    storage: LocalStorage, root: Path, tmp_path: Path, caplog
):
    file = await published(storage)
    path = root / "videos" / "task_metadata.json"
    planted = path.rename(tmp_path / "manifest.json")
    path.symlink_to(planted)
    with pytest.raises(StorageError, match="Could not read"):
        await storage.get(file)
    assert [info async for info in storage.list()] == []
    assert "task is left out" in caplog.text


async def test_a_link_for_a_staging_folder_is_refused(
    storage: LocalStorage, root: Path, tmp_path: Path
):
    await storage.stats()
    (root / ".staging" / "task").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(StorageError, match="is a link"):
        await storage.open("task")


async def test_links_for_files_are_not_followed(storage: LocalStorage, root: Path, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"video")
    file = await published(storage)
    place = root / "videos" / file.name
    place.unlink()
    place.symlink_to(secret)
    with pytest.raises(StorageError, match="Could not read"):
        await storage.get(file)
    with pytest.raises(StorageError, match="Could not read"):
        await storage.stream(file).__aenter__()
    await storage.delete_task("task")
    assert secret.read_bytes() == b"video"
    assert not place.is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes in folders")
@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", None)])
async def test_only_plain_files_are_read(storage: LocalStorage, root: Path, make):
    file = await published(storage)
    (root / "videos" / file.name).unlink()
    make(root / "videos" / file.name)
    with pytest.raises(StorageError, match="not a plain file"):
        await storage.get(file)


async def test_a_manifest_that_names_other_places_is_damaged(storage: LocalStorage, root: Path):
    file = await published(storage)
    path = root / "videos" / "task_metadata.json"
    text = path.read_text()
    for good, bad in [
        ("task_final.mp4", "../../task_final.mp4"),
        ('"videos"', '".."'),
        ('"version": 1', '"version": 2'),
        ('"task_id": "task"', '"task_id": "other"'),
        ("+00:00", ""),
        ("{", "["),
    ]:
        path.write_text(text.replace(good, bad))
        with pytest.raises(StorageError, match="manifest of task task is damaged"):
            await storage.get(file)


async def test_only_scratch_files_are_moved(storage: LocalStorage, tmp_path: Path):
    """A caller's own file is not taken from its place."""
    mine = tmp_path / "mine.mp4"
    mine.write_bytes(b"mine")
    transaction = await storage.open("task")
    async with transaction.scratch() as folder:
        (folder / "link.mp4").symlink_to(mine)
        for path in (mine, folder / "link.mp4", folder / ".." / ".." / ".lock"):
            with pytest.raises(ValueError, match="pass its bytes"):
                await transaction.put("videos", "final.mp4", path)
    assert mine.read_bytes() == b"mine"


async def test_a_scratch_file_that_is_not_there(storage: LocalStorage):
    transaction = await storage.open("task")
    async with transaction.scratch() as folder:
        with pytest.raises(FileMissing, match=r"Could not read .*never\.mp4"):
            await transaction.put("videos", "final.mp4", folder / "never.mp4")
    assert await storage.staged() == ()


async def test_another_tasks_files_are_not_a_transactions(storage: LocalStorage):
    file = await published(storage, "other")
    with pytest.raises(FileMissing, match=r"Task task has staged no other_final\.mp4"):
        await (await storage.open("task")).get(file)


# --- reopened ----------------------------------------------------------------------------------


async def test_a_dead_processes_transaction_goes_on(storage: LocalStorage, root: Path):
    transaction = await storage.open("task")
    mask = await transaction.put("processed", "mask.png", b"mask")
    (root / ".staging" / "task" / "0b3ab8b6-6cd3-4c2c-a8bb-3a47a4c8a0a3_part").write_bytes(b"ha")
    (root / ".staging" / "task" / "notes").write_bytes(b"of somebody")

    again = LocalStorage(root)
    assert await again.staged() == ("task",)
    reopened = await again.open("task")
    assert await reopened.get(mask) == b"mask"
    video = await reopened.put("videos", "final.mp4", b"video")
    manifest = await reopened.publish()
    assert manifest.files == (mask, video)
    assert await again.get(mask) == b"mask"
    assert list((root / ".staging").iterdir()) == []


async def test_what_is_staged_and_published_is_on_the_disk(root: Path, faulty_disk):
    """Content first, then the name, then the folder that holds the name; the manifest last."""
    disk = faulty_disk()
    storage = LocalStorage(root, disk=disk)
    transaction = await storage.open("task")
    disk.calls.clear()
    await transaction.put("videos", "final.mp4", b"video")
    made, kept = ["make_folder", "sync_folder"], ["write", "sync_file", "replace", "sync_folder"]
    assert disk.calls == [*made, *kept]
    disk.calls.clear()
    await transaction.publish()
    placed, shown = ["replace", "sync_folder"], ["sync_folder", "replace", "sync_folder"]
    assert disk.calls == [*kept, *placed, *shown, "remove_folder", "sync_folder"]


async def test_a_failed_publication_takes_no_more_files(root: Path, faulty_disk):
    counted = faulty_disk()
    await published(LocalStorage(root.with_name("counted"), disk=counted))
    last_rename = max(i for i, name in enumerate(counted.calls) if name == "replace")
    storage = LocalStorage(root, disk=faulty_disk(last_rename, number=errno.EIO))
    transaction = await storage.open("task")
    file = await transaction.put("videos", "final.mp4", b"video")
    with pytest.raises(StorageError, match="Could not publish"):
        await transaction.publish()
    with pytest.raises(StorageError, match="is being published") as refused:
        await transaction.put("videos", "final.mp4", b"other")
    assert "discard" in refused.value.hint
    assert await transaction.get(file) == b"video"
    with pytest.raises(FileMissing):
        await storage.get(file)
    assert (await transaction.publish()).files == (file,)


async def test_planned_files_that_vanished_are_an_error(root: Path, faulty_disk):
    """Nothing is published that is not there."""
    counted = faulty_disk()
    await published(LocalStorage(root.with_name("counted"), disk=counted))
    renames = [i for i, name in enumerate(counted.calls) if name == "replace"]
    storage = LocalStorage(root, disk=faulty_disk(renames[-2], number=errno.EIO))
    with pytest.raises(StorageError):
        await published(storage)
    (root / ".staging" / "task" / "videos~task_final.mp4").unlink()
    with pytest.raises(FileMissing, match="Could not publish"):
        await (await storage.open("task")).publish()
    assert [info async for info in storage.list()] == []


async def test_a_result_that_is_not_json_publishes_nothing(storage: LocalStorage, root: Path):
    transaction = await storage.open("task")
    await transaction.put("videos", "final.mp4", b"video")
    with pytest.raises(TypeError):
        await transaction.publish({"pixels": b"bytes"})
    with pytest.raises(ValueError, match="Out of range float"):
        await transaction.publish({"score": float("inf")})
    assert not (root / "videos" / "task_final.mp4").exists()
    assert (await transaction.publish({"score": 1})).result == {"score": 1}


async def test_states_refuse_what_makes_no_sense(storage: LocalStorage):
    transaction = await storage.open("task")
    await transaction.put("videos", "final.mp4", b"video")
    await transaction.publish()
    await transaction.discard()
    await transaction.close()
    assert len([info async for info in storage.list()]) == 1
    closed = await storage.open("task")
    await closed.close()
    for refused in (closed.publish, closed.discard):
        with pytest.raises(RuntimeError, match="was closed"):
            await refused()


# --- damage ------------------------------------------------------------------------------------


async def test_a_damaged_file_is_not_returned(storage: LocalStorage, root: Path):
    file = await published(storage)
    (root / "videos" / file.name).write_bytes(b"vodei")
    with pytest.raises(FileMissing, match="other content"):
        await storage.get(file)


async def test_a_damaged_manifest_hides_its_task_alone(
    storage: LocalStorage, root: Path, leftovers, caplog
):
    damaged, whole = await published(storage, "task-a"), await published(storage, "task-b")
    (root / "videos" / "task-a_metadata.json").write_text("{")
    assert [info.file async for info in storage.list()] == [whole]
    assert "task-a is left out" in caplog.text
    with pytest.raises(StorageError, match="task-a is damaged") as failed:
        await storage.get(damaged)
    assert "delete the task" in failed.value.hint
    await storage.delete_task("task-a")
    assert leftovers(root) == set()
    assert await storage.get(whole) == b"video"


async def test_strangers_files_are_left_alone(storage: LocalStorage, root: Path):
    await published(storage)
    strangers = [
        root / "videos" / "holiday.mp4",
        root / "videos" / "Notes_metadata.json",
        root / "temp" / "readme.txt",
        root / ".trash" / ".DS_Store",
    ]
    for path in strangers:
        path.write_text("mine")
    (root / ".staging" / "Thumbs").mkdir()
    await storage.cleanup(datetime.now(UTC) + timedelta(days=400))
    assert [path.read_text() for path in strangers] == ["mine"] * 4
    assert [info async for info in storage.list()] == []
    assert await storage.staged() == ()


async def test_a_folder_that_was_removed_is_an_error_that_names_it(
    storage: LocalStorage, root: Path
):
    file = await published(storage)
    transaction = await storage.open("other")
    shutil.rmtree(root)
    with pytest.raises(FileMissing):
        await storage.get(file)
    for call in (storage.staged, storage.stats, storage.cleanup, transaction.discard):
        with pytest.raises(StorageError, match="files here"):
            await call()


# --- room --------------------------------------------------------------------------------------


async def test_a_full_disk_is_told_with_path_and_need(root: Path, faulty_disk):
    counted = faulty_disk()
    await (await LocalStorage(root.with_name("counted"), disk=counted).open("task")).put(
        "temp", "a.bin", b"a"
    )
    write = len(counted.calls) - 1 - counted.calls[::-1].index("write")
    storage = LocalStorage(root, disk=faulty_disk(write, number=errno.EDQUOT))
    transaction = await storage.open("task")
    with pytest.raises(InsufficientStorage, match=r"task_final\.mp4 needs 1,234 bytes") as full:
        await transaction.put("videos", "final.mp4", b"x" * 1234)
    assert full.value.retryable
    assert "Free disk space" in full.value.hint
    assert list((root / ".staging" / "task").iterdir()) == []


async def test_room_is_made_before_it_is_refused(root: Path):
    """What has expired goes first; the error says what was asked and what there is."""
    now = [NOW]
    storage = LocalStorage(root, min_free_bytes=2**60, clock=lambda: now[0])
    file = await published(storage)
    now[0] += timedelta(days=31)
    with pytest.raises(InsufficientStorage, match=r"needs 1,000 bytes while .* are to stay free"):
        await storage.ensure_free(1000)
    assert not (root / "videos" / file.name).exists()


async def test_room_that_is_there_is_enough(storage: LocalStorage):
    file = await published(storage)
    await storage.ensure_free(1)
    assert await storage.get(file) == b"video"


async def test_room_is_refused_for_more_than_the_disk_has(storage: LocalStorage):
    with pytest.raises(InsufficientStorage):
        await storage.ensure_free(2**62)


class SplitDisk(FileSystem):
    """As if the temporary tier were another disk."""

    def replace(self, source: Path, target: Path) -> None:
        if source.parent.parent.name == "temp":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        super().replace(source, target)


async def test_a_scratch_file_that_cannot_be_moved_stays(root: Path, faulty_disk):
    storage = LocalStorage(root, disk=(disk := faulty_disk(number=errno.EIO)))
    transaction = await storage.open("task")
    async with transaction.scratch() as folder:
        (folder / "a.mp4").write_bytes(b"frames")
        disk.at = len(disk.calls) + 2  # the staging folder is made first
        with pytest.raises(StorageError, match="Could not write"):
            await transaction.put("videos", "final.mp4", folder / "a.mp4")
        assert (folder / "a.mp4").read_bytes() == b"frames"
        await transaction.put("videos", "final.mp4", folder / "a.mp4")
    assert len((await transaction.publish()).files) == 1


async def test_a_temporary_tier_on_another_disk(root: Path):
    transaction = await LocalStorage(root, disk=SplitDisk()).open("task")
    async with transaction.scratch() as folder:
        (folder / "a.mp4").write_bytes(b"frames")
        file = await transaction.put("videos", "final.mp4", folder / "a.mp4")
        assert not (folder / "a.mp4").exists()
    assert await transaction.get(file) == b"frames"


# --- time --------------------------------------------------------------------------------------


async def test_what_has_expired_is_gone_before_it_is_deleted(root: Path):
    now = [NOW]
    retention = Retention(videos=timedelta(days=2))
    storage = LocalStorage(root, retention=retention, clock=lambda: now[0])
    file = await published(storage)
    now[0] += timedelta(days=2)
    with pytest.raises(FileMissing, match="not published"):
        await storage.get(file)
    assert [info async for info in storage.list()] == []
    assert (await storage.stats()).total_files == 0
    assert (root / "videos" / file.name).exists()


async def test_clean_up_tells_what_it_did(storage: LocalStorage, root: Path, caplog):
    caplog.set_level("INFO", "talkgen.storage")
    await published(storage, "task-a", b"12345")
    report = await storage.cleanup(datetime.now(UTC) + timedelta(days=31))
    assert (report.files_deleted, report.bytes_freed) == (1, 5)
    assert report.tasks_expired == ("task-a",)
    assert "deleted 1 files of 5 bytes; 1 tasks have expired" in caplog.text
    caplog.clear()
    await storage.cleanup()
    assert not caplog.records


async def test_clean_up_goes_on_after_a_failure(root: Path, faulty_disk, caplog):
    for task_id in ("task-a", "task-b"):
        await published(LocalStorage(root), task_id)
    disk = faulty_disk(1, number=errno.EIO)  # after the index
    report = await LocalStorage(root, disk=disk).cleanup(datetime.now(UTC) + timedelta(days=31))
    assert len(report.tasks_expired) == 1
    assert "for the next time" in caplog.text
    report = await LocalStorage(root).cleanup(datetime.now(UTC) + timedelta(days=31))
    assert len(report.tasks_expired) == 1


async def test_clean_up_finishes_what_a_dead_process_was_deleting(
    root: Path, faulty_disk, died, leftovers
):
    await published(LocalStorage(root))
    storage = LocalStorage(root, disk=faulty_disk(at=3))
    with pytest.raises(died):
        await storage.delete_task("task")
    assert leftovers(root) != set()
    await LocalStorage(root).cleanup()
    assert leftovers(root) == set()


async def test_clean_up_leaves_what_it_may_not_remove(storage: LocalStorage, root: Path, caplog):
    """What a dead process left in the trash, and cannot be removed, stops nobody else."""
    await storage.stats()
    entry = root / ".trash" / "task~1" / "folder"
    entry.mkdir(parents=True)
    await published(storage, "other")
    with pytest.raises(StorageError, match=r"Could not remove .*task~1"):
        await storage.open("task")
    await storage.cleanup()
    assert "leaves what is left of task task for the next time" in caplog.text


async def test_abandoned_scratch_goes_in_its_time(storage: LocalStorage, root: Path):
    """Another process's, when nothing was written there for an hour; never one in use."""
    other = LocalStorage(root)
    transaction = await storage.open("task")
    later = datetime.now(UTC) + timedelta(hours=1, minutes=1)
    async with transaction.scratch() as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "frames.bin").write_bytes(b"123")
        os.utime(folder / "sub", (0, 0))
        assert (await storage.cleanup(later)).files_deleted == 0
        assert (await other.cleanup()).files_deleted == 0
        assert folder.exists()
        report = await other.cleanup(later)
        assert (report.files_deleted, report.bytes_freed) == (1, 3)
        assert not folder.exists()


# --- together ----------------------------------------------------------------------------------


async def test_scratch_goes_when_its_user_fails(storage: LocalStorage):
    transaction = await storage.open("task")
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what fails
        async with transaction.scratch() as folder:
            (folder / "half.mp4").write_bytes(b"half")
            raise ZeroDivisionError
    assert not folder.exists()


async def test_scratch_goes_while_somebody_else_removes_it_too(storage: LocalStorage, monkeypatch):
    unlink, removed = os.unlink, []

    def outpaced(*args, **options):
        unlink(*args, **options)
        removed.append(args)
        if len(removed) == 1:
            raise FileNotFoundError

    transaction = await storage.open("task")
    async with transaction.scratch() as folder:
        for name in "abc":
            (folder / name).touch()
        monkeypatch.setattr(os, "unlink", outpaced)
    assert not folder.exists()
    assert len(removed) == 3


async def test_scratch_that_cannot_be_removed_goes_with_a_later_clean_up(root: Path):
    class Stuck(FileSystem):
        def remove_tree(self, path):
            if stuck:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            super().remove_tree(path)

    stuck = True
    storage = LocalStorage(root, disk=Stuck())
    transaction = await storage.open("task")
    with pytest.raises(StorageError, match="Could not remove"):
        async with transaction.scratch() as folder:
            pass
    stuck = False
    await storage.cleanup(datetime.now(UTC) + timedelta(hours=1, minutes=1))
    assert not folder.exists()


async def test_streams_come_in_pieces(storage: LocalStorage):
    data = os.urandom(200_000)
    file = await published(storage, data=data)
    async with storage.stream(file) as stream:
        pieces = [piece async for piece in stream]
    assert len(pieces) > 1
    assert b"".join(pieces) == data


async def test_a_reader_sees_whole_files_only(storage: LocalStorage, root: Path):
    """Somebody who polls the folder while a task is published again and again."""
    versions = [bytes([number]) * 50_000 for number in range(20)]
    seen, done = set(), threading.Event()

    def poll() -> None:
        while not done.is_set():
            for path in root.glob("videos/*.mp4"):
                try:
                    seen.add(sha256(path.read_bytes()).digest())
                except FileNotFoundError:
                    continue

    async with anyio.create_task_group() as group:
        group.start_soon(to_thread.run_sync, poll)
        for version in versions:
            await published(storage, data=version)
        done.set()
    assert seen <= {sha256(version).digest() for version in versions}


async def test_many_tasks_at_once(storage: LocalStorage):
    async with anyio.create_task_group() as group:
        for number in range(30):
            group.start_soon(published, storage, f"task-{number}", b"%d" % number)
    files = [info.file async for info in storage.list()]
    assert len(files) == 30
    assert {await storage.get(file) for file in files} == {b"%d" % n for n in range(30)}


async def test_several_files_of_one_task_at_once(storage: LocalStorage):
    transaction = await storage.open("task")
    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(transaction.put, "temp", f"part{number}.bin", b"%d" % number)
            group.start_soon(transaction.put, "temp", "same.bin", b"%d" % number)
    manifest = await transaction.publish()
    assert len(manifest.files) == 11
    for file in manifest.files:
        assert sha256(await storage.get(file)).hexdigest() == file.sha256


async def test_cancelled_calls_do_all_or_nothing(storage: LocalStorage):
    with CancelScope() as scope:
        scope.cancel()
        await published(storage)
    assert await storage.staged() == ()


def test_two_processes_publish_the_same_tasks(root: Path, leftovers):
    """Each change is made under a lock of the machine's."""
    program = """
import anyio, sys
from talkgen.storage import LocalStorage
async def main(root, mine, other):
    storage = LocalStorage(root, min_free_bytes=0)
    for number in range(15):
        transaction = await storage.open(f"task-{mine}")
        await transaction.put("videos", "final.mp4", b"%d" % number)
        await transaction.publish()
        await storage.cleanup()
        await storage.delete_task(f"task-{other}")
        await storage.stats()
        async for info in storage.list():
            pass
anyio.run(main, *sys.argv[1:])
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(root), *names])
        for names in (("a", "b"), ("b", "a"))
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert leftovers(root) == set()


# --- temporary ---------------------------------------------------------------------------------


async def test_a_temporary_storage_lives_as_long_as_it_is_referred_to():
    storage = LocalStorage.temporary()
    root, file = storage.root, await published(storage)
    assert not storage.durable
    assert os.name == "nt" or root.stat().st_mode & 0o077 == 0
    assert await storage.get(file) == b"video"
    transaction = await storage.open("other")
    del storage
    gc.collect()
    await transaction.put("temp", "a.bin", b"a")
    assert root.exists()
    await to_thread.run_sync(int)  # a worker thread may hold its last call until the next one
    del transaction
    gc.collect()
    assert not root.exists()


def test_a_storage_in_a_folder_is_durable(storage: LocalStorage):
    assert storage.durable


async def test_a_reference_to_nowhere_is_refused(storage: LocalStorage):
    with pytest.raises(ValueError, match="is no tier"):
        await storage.get(FileRef("task", "..", "task_final.mp4", 0, ""))
