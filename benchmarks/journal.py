"""What a run pays for being durable: its journal and its transaction, without any encoding.

    python benchmarks/journal.py [FOLDER]

The calls that a run of the default stages makes, with files that are encoded beforehand: once of
their usual size, once of hardly any, which leaves the waits. Beside them, in turns in one process:

- the bound: the same changes to disk and database in the same order, one after another in one
  thread, and nothing else; what is promised cannot cost less on this disk;
- plain writes of the same bytes with one fsync for each file, which promise nothing.

Medians; the spread is that of the middle half.
"""

import hashlib
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import anyio
import attrs
import numpy as np

from talkgen import Image, LocalStorage, Speech, SQLiteJournal, Video
from talkgen.checkpoints import UPLOAD, DraftFiles
from talkgen.draft import Box, Draft, TaskState
from talkgen.protocols import TaskSpec
from talkgen.storage.filesystem import FileSystem

DEMO = Path(__file__).parent.parent / "docs" / "assets" / "demo"
TURNS = 100
ENTRY = 3000  # characters, as an entry in the journal has
TIERS = ("uploads", "uploads", "processed", "processed", "processed", "videos")  # of the six files

numbers = count()


@attrs.frozen
class Media:
    """What a run has to keep, encoded."""

    image: Image
    speech: Speech
    crop: Image
    cut: Image
    mask: bytes
    video: bytes

    def contents(self) -> tuple[bytes, ...]:
        """The bytes of the six files."""
        opened = (self.image, self.speech, self.crop, self.cut)
        return (*(one.original().data for one in opened), self.mask, self.video)


def media(photo: Image, speech: Speech, edge: int, video: int) -> Media:
    """Portraits of `edge` pixels a side, and a video of so many bytes."""
    crop = Image.open(photo.resized(edge, edge).encode("png"))
    cut = Image.open(Image(np.dstack([crop.pixels, crop.pixels[..., 0]])).encode("png"))
    mask = Image(np.repeat(crop.pixels[..., :1], 3, axis=2)).encode("png")
    return Media(photo, speech, crop, cut, mask, os.urandom(video))


async def durable_run(
    storage: LocalStorage, journal: SQLiteJournal, media: Media, parts: dict[str, float]
) -> None:
    """A run's calls, timed by part."""
    task_id = f"t{next(numbers)}"
    begin = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal begin
        now = time.perf_counter()
        parts[name] = parts.get(name, 0.0) + now - begin
        begin = now

    spec = TaskSpec(task_id, {"image": "0" * 64, "speech": "1" * 64}, ("a", "b", "c"))
    attempt = await journal.begin(spec)
    lap("journal")
    files = await storage.open(task_id)
    kept = DraftFiles(files)
    box = Box(0, 0, media.image.width, media.image.height)
    draft = Draft(
        task_id=task_id,
        image=media.image,
        portrait=media.image,
        portrait_box=box,
        speech=media.speech,
    )
    await kept.put_originals(draft)
    checkpoint = await kept.checkpoint(0, draft)
    lap("staging")
    await attempt.stage_done(UPLOAD, checkpoint)
    lap("journal")
    cropped = ("processed", "cropped.png", media.crop.original().data)
    transparent = ("processed", "transparent.png", media.cut.original().data)
    stages = (
        ("detection", media.crop, (cropped,)),
        ("removal", media.cut, (transparent, ("processed", "mask.png", media.mask))),
    )
    for number, (name, portrait, made) in enumerate(stages, start=1):
        await kept.put_all(*made)
        draft = attrs.evolve(draft, portrait=portrait)
        checkpoint = await kept.checkpoint(number, draft)
        lap("staging")
        await attempt.stage_done(name, checkpoint)
        lap("journal")
    file = await kept.put("videos", "final.mp4", media.video)
    draft = attrs.evolve(draft, video=Video(file, 1.0, 25.0, (512, 512)))
    checkpoint = await kept.checkpoint(3, draft)
    lap("staging")
    await attempt.stage_done("generation", checkpoint)
    await attempt.finish(TaskState.PUBLISHING, {"success": True})
    lap("journal")
    await files.publish({"success": True})
    lap("publishing")
    await attempt.finish(TaskState.COMPLETED, {"success": True})
    lap("journal")


class Bare:
    """The changes that a run makes to disk and database, and nothing else."""

    def __init__(self, folder: Path) -> None:
        """Make the folders and the database."""
        self._root, self._disk = folder, FileSystem()
        for name in ("staging", *set(TIERS)):
            (folder / name).mkdir(parents=True)
        self._database = sqlite3.connect(folder / "journal.db", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("CREATE TABLE tasks (id INTEGER PRIMARY KEY, entry TEXT)")

    def run(self, contents: tuple[bytes, ...]) -> float:
        """What one run does; seconds."""
        begin, number = time.perf_counter(), next(numbers)
        self._database.execute("INSERT INTO tasks VALUES (?, ?)", (number, entry()))
        stage = self._root / "staging" / str(number)
        self._disk.make_folder(stage)
        self._disk.sync_folder(stage.parent)
        files = [(stage / str(place), data) for place, data in enumerate(contents)]
        for first, last in ((0, 2), (2, 3), (3, 5), (5, 6)):
            self._put(dict(files[first:last]))
            self._entry(number)
        self._entry(number)
        self._put({stage / "plan": entry().encode()})
        for (path, _), tier in zip(files, TIERS, strict=True):
            self._disk.replace(path, self._root / tier / f"{number}-{path.name}")
        for tier in sorted(set(TIERS)):
            self._disk.sync_folder(self._root / tier)
        self._disk.sync_folder(stage)
        self._disk.replace(stage / "plan", self._root / "videos" / f"{number}.json")
        self._disk.sync_folder(self._root / "videos")
        self._disk.remove_folder(stage)
        self._disk.sync_folder(stage.parent)
        self._entry(number)
        return time.perf_counter() - begin

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _put(self, files: dict[Path, bytes]) -> None:
        parts = {path.with_suffix(".part"): path for path in files}
        for part, path in parts.items():
            self._disk.write(part, files[path])
        for data in files.values():
            hashlib.sha256(data).hexdigest()
        for part in parts:
            self._disk.sync_file(part)
        for part, path in parts.items():
            self._disk.replace(part, path)
        self._disk.sync_folder(path.parent)

    def _entry(self, number: int) -> None:
        self._database.execute("UPDATE tasks SET entry = ? WHERE id = ?", (entry(), number))


def entry() -> str:
    """Another one each time: SQLite does not write what has not changed."""
    return f"{next(numbers):{ENTRY}}"


def plain_run(folder: Path, contents: tuple[bytes, ...]) -> float:
    """The same files, and nothing that makes them one whole; seconds."""
    begin = time.perf_counter()
    for data in contents:
        with (folder / f"plain-{next(numbers)}").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - begin


async def measure(folder: Path, media: Media) -> None:
    """Print a table."""
    contents = media.contents()
    storage = LocalStorage(folder / "store", min_free_bytes=0)
    journal = SQLiteJournal(storage.root / "journal.db")
    await durable_run(storage, journal, media, {})
    bare = Bare(folder / "bare")
    turns: list[dict[str, float]] = []
    bound: list[float] = []
    plain: list[float] = []
    for _ in range(TURNS):
        turns.append({})
        await durable_run(storage, journal, media, turns[-1])
        bound.append(bare.run(contents))
        plain.append(plain_run(folder, contents))
    bare.close()
    await journal.aclose()
    whole = [sum(parts.values()) for parts in turns]
    print(f"  six files, {sum(map(len, contents)) / 1e6:.2f} MB, seven entries in the journal")
    for name in turns[0]:
        row(name, [parts[name] for parts in turns])
    row("in all", whole)
    row("the bound", bound)
    row("plain files, an fsync each", plain)
    row("added to the bound", [one - other for one, other in zip(whole, bound, strict=True)])
    row("added to the plain files", [one - other for one, other in zip(whole, plain, strict=True)])


def row(name: str, seconds: list[float]) -> None:
    """Print a line of the table."""
    low, middle, high = (1000 * one for one in statistics.quantiles(seconds, n=4))
    print(f"    {name:28} {middle:6.2f} ms   ({low:.2f}-{high:.2f})")


async def compare(folder: Path) -> None:
    """Measure with files as they are, and with small ones."""
    photo, speech = Image.open(DEMO / "portrait.png"), Speech.open(DEMO / "speech.wav")
    await measure(folder / "usual", media(photo, speech, 512, 500_000))
    small = Image.open(photo.resized(16, 16).encode("png"))
    short = Speech(speech.samples[:, :400], speech.sample_rate).original()
    await measure(folder / "small", media(small, Speech.open(short.data), 16, 1000))


def main() -> None:
    """Measure in a folder of its own."""
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        for name in ("usual", "small"):
            Path(folder, name).mkdir()
        anyio.run(compare, Path(folder))


if __name__ == "__main__":
    main()
