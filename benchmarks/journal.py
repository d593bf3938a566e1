"""What a run pays for being durable: its journal and its transaction, without any encoding.

    python benchmarks/journal.py [FOLDER]

The calls that a run of the default stages makes, with files that are encoded beforehand: once of
their usual size, once of hardly any, which leaves the waits. Beside them, in turns in one process,
plain writes of the same bytes with one fsync for each file. `added` is what a run takes beyond
those, turn by turn. Medians; the spread is that of the middle half.
"""

import os
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

DEMO = Path(__file__).parent.parent / "docs" / "assets" / "demo"
TURNS = 100

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
    turns: list[dict[str, float]] = []
    plain: list[float] = []
    for _ in range(TURNS):
        turns.append({})
        await durable_run(storage, journal, media, turns[-1])
        plain.append(plain_run(folder, contents))
    await journal.aclose()
    whole = [sum(parts.values()) for parts in turns]
    print(f"  six files, {sum(map(len, contents)) / 1e6:.2f} MB, seven entries in the journal")
    for name in turns[0]:
        row(name, [parts[name] for parts in turns])
    row("in all", whole)
    row("plain files, an fsync each", plain)
    row("added", [one - other for one, other in zip(whole, plain, strict=True)])


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
