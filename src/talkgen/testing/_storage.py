"""What every storage must do."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, get_args

import attrs
from anyio import CancelScope, create_task_group, to_thread

from talkgen.errors import FileMissing, InvalidName
from talkgen.media import Tier
from talkgen.testing._expect import expect_raises

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from talkgen.media import FileRef
    from talkgen.protocols import FileInfo, NewFile, Storage, Transaction

__all__ = ["check_storage"]

TASK = "check-1"
RESULT = {"task_id": TASK, "success": True, "numbers": [1, 2.5, None]}
BAD_IDS = ("", "..", ".hidden", "a/b", "a\\b", "/etc", "a\0b", "a b", "con", "x" * 300)
BAD_SUFFIXES = ("", "..", "a/b.png", "a\0.png", "../x.png", "metadata.json", "x" * 300 + ".png")


async def check_storage(make_storage: Callable[[], Storage]) -> None:
    """Check a storage against the contract of `talkgen.protocols.Storage`.

    Args:
        make_storage: Makes a new, empty storage; called once for each check.

    Raises:
        AssertionError: It does not keep the contract; the message says where.
    """
    for check in CHECKS:
        storage = make_storage()
        try:
            await check(storage)
        finally:
            await storage.aclose()


async def _staged_files_are_private(storage: Storage) -> None:
    transaction = await storage.open(TASK)
    file = await transaction.put("processed", "cropped.png", b"pixels")
    assert file.name == f"{TASK}_cropped.png", f"the file is named {file.name}"
    assert (file.task_id, file.tier) == (TASK, "processed"), f"it is another's: {file}"
    assert file.size == len(b"pixels"), f"{file.size} is not the size"
    assert file.sha256 == hashlib.sha256(b"pixels").hexdigest(), "the digest is wrong"
    assert await transaction.get(file) == b"pixels", "the transaction reads other bytes"
    assert await storage.staged() == (TASK,), "a task with staged files is not in staged()"
    assert await _listed(storage) == (), "a staged file is listed"
    await expect_raises(FileMissing, storage.get, file)
    await transaction.discard()


async def _putting_again_replaces(storage: Storage) -> None:
    transaction = await storage.open(TASK)
    old = await transaction.put("videos", "final.mp4", b"a longer first version")
    new = await transaction.put("videos", "final.mp4", b"second")
    assert await transaction.get(new) == b"second", "the old content is still there"
    await expect_raises(FileMissing, transaction.get, old)
    manifest = await transaction.publish()
    assert [file.name for file in manifest.files] == [new.name], "the replaced file is published"


async def _several_are_put_together(storage: Storage) -> None:
    transaction = await storage.open(TASK)
    assert await transaction.put_all() == (), "nothing was put, and something is there"
    assert await storage.staged() == (), "putting nothing has staged something"
    new: list[NewFile] = [("videos", "final.mp4", b"video"), ("processed", "mask.png", b"mask")]
    files = await transaction.put_all(*new)
    assert [file.tier for file in files] == ["videos", "processed"], "they are in another order"
    assert [await transaction.get(file) for file in files] == [b"video", b"mask"]
    manifest = await transaction.publish()
    assert set(manifest.files) == set(files), "other files are published than were put"


async def _scratch_files_are_moved(storage: Storage) -> None:
    transaction = await storage.open(TASK)
    async with transaction.scratch() as folder:
        path = folder / "encoded.mp4"
        await to_thread.run_sync(path.write_bytes, b"frames")
        file = await transaction.put("videos", "final.mp4", path)
        assert not await _exists(path), "put() left the file in scratch()"
        assert await transaction.get(file) == b"frames", "put() changed the bytes"
    assert not await _exists(folder), "scratch() is still there after its end"
    await transaction.discard()


async def _scratch_goes_under_cancellation(storage: Storage) -> None:
    transaction = await storage.open(TASK)
    with CancelScope() as scope:
        async with transaction.scratch() as folder:
            await to_thread.run_sync((folder / "half.mp4").write_bytes, b"fra")
            scope.cancel()
    assert not await _exists(folder), "a cancelled scratch() is still there"
    await transaction.discard()


async def _publishing_shows_everything(storage: Storage) -> None:
    transaction, files = await _published(storage)
    manifest = await transaction.publish()
    assert manifest.result == RESULT, f"the result became {manifest.result}"
    assert set(manifest.files) == set(files.values()), "the manifest names other files"
    for content, file in files.items():
        assert await storage.get(file) == content, f"{file.name} has other bytes"
        assert await _streamed(storage, file) == content, f"{file.name} streams other bytes"
        assert await transaction.get(file) == content, "the transaction cannot read it now"
    assert await storage.staged() == (), "a published task is still staged"


async def _streams_come_in_pieces(storage: Storage) -> None:
    _, files = await _published(storage)
    content, file = max(files.items())
    async with storage.stream(file) as stream:
        piece = await stream.receive(7)
        assert 0 < len(piece) <= 7, f"receive(7) gave {len(piece)} bytes"  # and the rest is left
    missing = attrs.evolve(file, sha256="0" * 64)
    await expect_raises(FileMissing, storage.stream(missing).__aenter__)
    assert await _streamed(storage, file) == content, "a stream that was left spoils the next"


async def _publishing_is_shielded(storage: Storage) -> None:
    transaction = await storage.open(TASK)
    file = await transaction.put("videos", "final.mp4", b"video")
    with CancelScope() as scope:
        scope.cancel()
        await transaction.publish()
    assert await storage.get(file) == b"video", "a cancelled publish() did nothing"


async def _publishing_nothing_changes_nothing(storage: Storage) -> None:
    transaction, _ = await _published(storage)
    manifest = await transaction.publish()
    assert await transaction.publish() == manifest, "publishing twice gave two manifests"
    again = await storage.open(TASK)
    assert await again.publish() == manifest, "publishing without files changed the task"


async def _a_new_attempt_replaces(storage: Storage) -> None:
    _, old = await _published(storage)
    transaction = await storage.open(TASK)
    new = await transaction.put("videos", "final.mp4", b"new")
    await transaction.publish()
    assert await _listed(storage) == (new,), "files of the older attempt are still listed"
    for file in old.values():
        await expect_raises(FileMissing, storage.get, file)


async def _giving_up_keeps_the_older_attempt(storage: Storage) -> None:
    _, files = await _published(storage)
    transaction = await storage.open(TASK)
    await transaction.put("videos", "videos.bin", b"new")
    await transaction.discard()
    for content, file in files.items():
        assert await storage.get(file) == content, "discard() took what was published before"


async def _results_are_json(storage: Storage) -> None:
    transaction = await storage.open(TASK)
    file = await transaction.put("videos", "final.mp4", b"video")
    await expect_raises(TypeError, transaction.publish, {"pixels": b""})
    await expect_raises(ValueError, transaction.publish, {"score": float("nan")})
    assert await _listed(storage) == (), "a refused result was published"
    assert (await transaction.publish(RESULT)).files == (file,), "the refusal broke it"


async def _many_work_at_once(storage: Storage) -> None:
    async with create_task_group() as group:
        for number in range(8):
            group.start_soon(_one_file, storage, f"check-{number}")
    files = await _listed(storage)
    assert len(files) == 8, f"of 8 tasks at once {len(files)} were published"
    for file in files:
        assert await storage.get(file) == file.task_id.encode(), "tasks at once are mixed up"


async def _tasks_are_apart(storage: Storage) -> None:
    other = await _one_file(storage, "check-2")
    transaction = await storage.open(TASK)
    await expect_raises(FileMissing, transaction.get, other)
    await transaction.put("videos", "final.mp4", b"mine")
    await transaction.discard()
    assert await storage.get(other) == b"check-2", "discard() took another task's file"


async def _discarding_leaves_nothing(storage: Storage) -> None:
    transaction = await storage.open(TASK)
    file = await transaction.put("temp", "notes.json", b"{}")
    with CancelScope() as scope:
        scope.cancel()
        await transaction.discard()
    await transaction.discard()
    assert await storage.staged() == (), "a discarded task is still staged"
    await expect_raises(FileMissing, transaction.get, file)
    await expect_raises(RuntimeError, transaction.put, "temp", "notes.json", b"{}")
    again = await storage.open(TASK)
    assert (await again.publish()).files == (), "a discarded file came back"


async def _closing_keeps(storage: Storage) -> None:
    transaction = await storage.open(TASK)
    file = await transaction.put("processed", "mask.png", b"alpha")
    await transaction.close()
    await expect_raises(RuntimeError, transaction.put, "processed", "mask.png", b"beta")
    assert await storage.staged() == (TASK,), "a kept task is not staged"
    again = await storage.open(TASK)
    assert await again.get(file) == b"alpha", "a kept file is lost"
    assert (await again.publish()).files == (file,), "a kept file is not published"


async def _unfinished_transactions_are_reopened(storage: Storage) -> None:
    """As after the death of the process that opened them."""
    dead = await storage.open(TASK)
    kept = await dead.put("processed", "mask.png", b"alpha")
    old = await dead.put("videos", "final.mp4", b"half")
    again = await storage.open(TASK)
    assert await again.get(kept) == b"alpha", "a staged file is lost"
    assert await again.get(old) == b"half", "a staged file is lost"
    new = await again.put("videos", "final.mp4", b"whole")
    manifest = await again.publish()
    assert set(manifest.files) == {kept, new}, f"{manifest.files} are published"
    assert await storage.staged() == (), "a reopened and published task is still staged"


async def _retaining_drops_the_rest(storage: Storage) -> None:
    first = await storage.open(TASK)
    kept = await first.put("videos", "final.mp4", b"kept")
    stale = await first.put("temp", "stale.bin", b"stale")
    await first.close()
    transaction = await storage.open(TASK)
    await transaction.retain([kept])
    await transaction.retain([kept])
    assert await transaction.get(kept) == b"kept", "retain() took a file that was to stay"
    await expect_raises(FileMissing, transaction.get, stale)
    await transaction.publish(RESULT)
    assert await _listed(storage) == (kept,), "a file that was not retained is published"


async def _names_are_checked(storage: Storage) -> None:
    for task_id in BAD_IDS:
        await expect_raises(InvalidName, storage.open, task_id)
        await expect_raises(InvalidName, storage.delete_task, task_id)
    transaction = await storage.open(TASK)
    for suffix in BAD_SUFFIXES:
        await expect_raises(InvalidName, transaction.put, "temp", suffix, b"")
    assert await storage.staged() == (), "a refused file is staged"


async def _deleting_takes_what_is_published(storage: Storage) -> None:
    _, files = await _published(storage)
    other = await _one_file(storage, "check-2")
    unfinished = await storage.open(TASK)
    staged = await unfinished.put("temp", "notes.json", b"{}")
    await storage.delete_task(TASK)
    await storage.delete_task(TASK)
    assert await _listed(storage) == (other,), "delete_task() took too much or too little"
    for file in files.values():
        await expect_raises(FileMissing, storage.get, file)
    assert await unfinished.get(staged) == b"{}", "delete_task() took a staged file"
    await unfinished.discard()


async def _lists_are_filtered_and_in_order(storage: Storage) -> None:
    names = [await _one_file(storage, task_id) for task_id in ("check-b", "check-a")]
    assert await _listed(storage) == tuple(names), "list() is not oldest first"
    assert await _listed(storage, task_id="check-a") == (names[1],), "list(task_id=) is wrong"
    assert await _listed(storage, task_id="check-c") == (), "an unknown task has files"
    assert await _listed(storage, "videos") == tuple(names), "list(tier) left some out"
    assert await _listed(storage, "temp") == (), "list(tier) took another tier"


async def _cleaning_up_takes_what_has_expired(storage: Storage) -> None:
    _, files = await _published(storage)
    staged = await (transaction := await storage.open("check-2")).put("temp", "a.bin", b"a")
    infos = sorted(await _infos(storage), key=lambda info: info.expires)
    first, last = infos[0], infos[-1]
    report = await storage.cleanup(first.expires)
    gone = [info.file for info in infos if info.expires <= first.expires]
    assert report.files_deleted == len(gone), f"{report} is not about {len(gone)} files"
    assert report.bytes_freed == sum(file.size for file in gone), f"{report} counts wrongly"
    assert not set(gone) & set(await _listed(storage)), "an expired file is listed"
    await expect_raises(FileMissing, storage.get, first.file)
    if first.expires < last.expires:
        assert await storage.get(last.file), "cleanup() took a file before its time"
    again = await storage.cleanup(first.expires)
    assert (again.files_deleted, again.tasks_expired) == (0, ()), f"{again} the second time"
    report = await storage.cleanup(last.expires)
    assert report.tasks_expired == (TASK,), f"{report} does not name the task"
    assert await _listed(storage) == (), f"something outlived {len(files)} files' time"
    assert await transaction.get(staged) == b"a", "cleanup() took a staged file"
    await transaction.discard()


async def _stats_count_published_files(storage: Storage) -> None:
    empty = await storage.stats()
    assert set(empty.tiers) == set(get_args(Tier)), f"the tiers are {set(empty.tiers)}"
    assert empty.total_files == 0, "an empty storage has files"
    _, files = await _published(storage)
    stats = await storage.stats()
    assert stats.total_files == len(files), f"{stats.total_files} is not {len(files)}"
    size = sum(map(len, files)) / 2**20
    assert abs(stats.total_size_mb - size) < 1e-9, f"{stats.total_size_mb} is not {size} MB"
    assert stats.tiers["videos"].file_count == 1, "the video is not counted in its tier"


async def _published_files_outlive_aclose(storage: Storage) -> None:
    _, files = await _published(storage)
    await storage.aclose()
    for content, file in files.items():
        assert await storage.get(file) == content, "a file cannot be read after aclose()"


CHECKS = (
    _staged_files_are_private,
    _putting_again_replaces,
    _several_are_put_together,
    _scratch_files_are_moved,
    _scratch_goes_under_cancellation,
    _publishing_shows_everything,
    _streams_come_in_pieces,
    _publishing_is_shielded,
    _publishing_nothing_changes_nothing,
    _a_new_attempt_replaces,
    _giving_up_keeps_the_older_attempt,
    _results_are_json,
    _many_work_at_once,
    _tasks_are_apart,
    _discarding_leaves_nothing,
    _closing_keeps,
    _unfinished_transactions_are_reopened,
    _retaining_drops_the_rest,
    _names_are_checked,
    _deleting_takes_what_is_published,
    _lists_are_filtered_and_in_order,
    _cleaning_up_takes_what_has_expired,
    _stats_count_published_files,
    _published_files_outlive_aclose,
)


async def _published(storage: Storage) -> tuple[Transaction, dict[bytes, FileRef]]:
    """A task with a file in every tier, by content."""
    transaction = await storage.open(TASK)
    contents: dict[Tier, bytes] = {
        "uploads": b"photo",
        "processed": b"cut-out" * 1000,
        "videos": bytes(range(256)) * 1024,
        "temp": b"",
    }
    files = {
        content: await transaction.put(tier, f"{tier}.bin", content)
        for tier, content in contents.items()
    }
    await transaction.publish(RESULT)
    return transaction, files


async def _one_file(storage: Storage, task_id: str) -> FileRef:
    transaction = await storage.open(task_id)
    file = await transaction.put("videos", "final.mp4", task_id.encode())
    await transaction.publish()
    return file


async def _infos(
    storage: Storage, tier: Tier | None = None, task_id: str | None = None
) -> list[FileInfo]:
    return [info async for info in storage.list(tier, task_id)]


async def _listed(
    storage: Storage, tier: Tier | None = None, task_id: str | None = None
) -> tuple[FileRef, ...]:
    return tuple(info.file for info in await _infos(storage, tier, task_id))


async def _streamed(storage: Storage, file: FileRef) -> bytes:
    async with storage.stream(file) as stream:
        return b"".join([piece async for piece in stream])


async def _exists(path: Path) -> bool:
    return await to_thread.run_sync(path.exists)
