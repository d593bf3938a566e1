"""What keeping files costs, and how long the loop waits for it, beside the targets.

    python benchmarks/storage.py [FOLDER] [FILES]

FOLDER is on the disk to measure, the temporary one by default; FILES (100,000) are published in
tasks of six, as a whole run leaves them. The bounds are the plain calls without which the work
cannot be done: writing, syncing and renaming the same files; deleting as many.
"""

import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import anyio

from talkgen.media import FileRef, Tier
from talkgen.protocols import Manifest
from talkgen.storage import LocalStorage
from talkgen.storage.layout import Layout
from talkgen.storage.manifests import encode

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TURNS = 30
CONTENT = b"x" * 1000
FILES: list[tuple[Tier, str]] = [
    ("uploads", "original.jpg"),
    ("uploads", "audio.wav"),
    ("processed", "cropped.png"),
    ("processed", "transparent.png"),
    ("processed", "mask.png"),
    ("videos", "final.mp4"),
]


def row(name: str, value: str, target: str = "") -> None:
    """Print a line of the table."""
    print(f"  {name:58} {value:>12}   {target}", flush=True)


def milliseconds(seconds: float) -> str:
    """As the table shows it."""
    return f"{seconds * 1e3:.2f} ms"


# --- one task ----------------------------------------------------------------------------------


def plain(folder: Path, number: int) -> None:
    """What durable files cost at least: write, sync and rename each, and a manifest."""
    for _, suffix in [*FILES, ("videos", "metadata.json")]:
        part = folder / f"part-{number}"
        with part.open("wb") as file:
            file.write(CONTENT)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / f"{number}_{suffix}")
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


async def publish(storage: LocalStorage, task_id: str, files: list[tuple[Tier, str]]) -> FileRef:
    """A whole transaction."""
    transaction = await storage.open(task_id)
    for tier, suffix in files:
        file = await transaction.put(tier, suffix, CONTENT)
    await transaction.publish({"success": True})
    return file


async def median(work: Callable[[int], Awaitable[object]]) -> float:
    """Seconds of one call."""
    times = []
    for turn in range(TURNS):
        begin = time.perf_counter()
        await work(turn)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


async def one_task(folder: Path) -> None:
    """Print what a task costs."""
    storage = LocalStorage(folder / "tasks", min_free_bytes=0)
    await storage.stats()
    (folder / "plain").mkdir()
    cached: list[FileRef] = []

    async def keep(turn: int) -> None:
        cached.append(await publish(storage, f"cache-{turn}", [("processed", "mask.png")]))

    async def lookup(turn: int) -> None:
        await storage.get(cached[turn])

    bound = await median(lambda turn: anyio.to_thread.run_sync(plain, folder / "plain", turn))
    row("write, sync, rename 6 files and a manifest", milliseconds(bound))
    whole = await median(lambda turn: publish(storage, f"task-{turn}", FILES))
    row("open, put 6 files, publish", milliseconds(whole), f"{whole / bound:.2f} x the plain calls")
    row("open, put 1 file, publish", milliseconds(await median(keep)), "target: under 5 ms")
    row("get", milliseconds(await median(lookup)))
    deleted = await median(lambda turn: storage.delete_task(f"cache-{turn}"))
    row("delete_task", milliseconds(deleted))


# --- many --------------------------------------------------------------------------------------


def fill(root: Path, count: int) -> None:
    """Lay out published tasks, without waiting for the disk."""
    layout, digest = Layout(root), hashlib.sha256(CONTENT).hexdigest()
    for number in range(count // len(FILES)):
        task_id = f"task-{number}"
        files = tuple(
            FileRef(task_id, tier, f"{task_id}_{suffix}", len(CONTENT), digest)
            for tier, suffix in FILES
        )
        for file in files:
            layout.place(file).write_bytes(CONTENT)
        manifest = Manifest(task_id, NOW + timedelta(seconds=number), files, {"success": True})
        layout.manifest(task_id).write_bytes(encode(manifest))


async def longest_wait(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Seconds that the work takes, and by how much it made a loop late that wakes each 1 ms."""
    late = [0.0]

    async def watch() -> None:
        while True:
            begin = time.perf_counter()
            await anyio.sleep(0.001)
            late.append(time.perf_counter() - begin - 0.001)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        begin = time.perf_counter()
        await work()
        seconds = time.perf_counter() - begin
        group.cancel_scope.cancel()
    return seconds, max(late)


def fill_plainly(folder: Path, count: int) -> None:
    """As many files, and whatever was written on the disk."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.bin").write_bytes(CONTENT)
    os.sync()


def delete_plainly(folder: Path) -> None:
    """What deleting costs at least."""
    for path in folder.iterdir():
        path.unlink()


async def measured(
    name: str, work: Callable[[], Awaitable[object]], target: str = "", *, late: str = ""
) -> float:
    """Print what the work takes; gives its seconds."""
    seconds, longest = await longest_wait(work)
    row(name, f"{seconds:.3f} s", target)
    row("  the loop waited at most", milliseconds(longest), late)
    return seconds


async def many(folder: Path, count: int) -> None:
    """Print what a full storage costs."""
    storage = LocalStorage(folder / "many", min_free_bytes=0, clock=lambda: NOW)
    await storage.stats()
    await anyio.to_thread.run_sync(fill, folder / "many", count)
    await anyio.to_thread.run_sync(fill_plainly, folder / "plainly", count)
    await anyio.sleep(1)  # what is younger is looked at again

    async def go_through() -> None:
        async for _ in storage.list():
            pass

    async def clean_up(days: int, expected: int) -> None:
        report = await storage.cleanup(NOW + timedelta(days=days))
        if report.files_deleted != expected:
            raise RuntimeError(f"{report.files_deleted} files deleted, not {expected}")

    await measured("nothing, for comparison", partial(anyio.sleep, 3))
    await measured("stats, index to be made", storage.stats)
    await measured("stats", storage.stats, "target: under 0.2 s")
    await publish(storage, "another", FILES)
    await measured("stats after another task", storage.stats, "target: under 0.2 s")
    await measured("list", go_through)
    await measured("clean-up, nothing to do", partial(clean_up, 0, 0))
    whole = len(FILES) * (count // len(FILES) + 1)
    await measured(
        f"clean-up of {whole:,} files",
        partial(clean_up, 400, whole),
        "target: under 10 s",
        late="target: under 20 ms",
    )
    await measured(
        f"deleting {count:,} plain files",
        partial(anyio.to_thread.run_sync, delete_plainly, folder / "plainly"),
    )


async def main() -> None:
    """Measure, and print the table."""
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    with tempfile.TemporaryDirectory(dir=parent, prefix="talkgen-benchmark-") as folder:
        print("one task, median:")
        await one_task(Path(folder))
        print(f"{count:,} files:")
        await many(Path(folder), count)


if __name__ == "__main__":
    anyio.run(main)
