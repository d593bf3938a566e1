"""What a run pays for being durable: its journal and its transaction, without any encoding.

    python benchmarks/journal.py [FOLDER]

The calls that a run of the default stages makes, with files of their usual size that are encoded
beforehand, beside plain writes of the same bytes with one fsync for each file. One process, in
turns, medians.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
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
TURNS = 60
MEGABYTE = 1_000_000

image = Image.open(DEMO / "portrait.png")
speech = Speech.open(DEMO / "speech.wav")
box = Box(0, 0, 512, 512)
crop = Image.open(image.resized(512, 512).encode("png"))
cut = Image.open(Image(np.dstack([crop.pixels, crop.pixels[..., 0]])).encode("png"))
mask = Image(np.repeat(crop.pixels[..., :1], 3, axis=2)).encode("png")
video = os.urandom(MEGABYTE // 2)
numbers = count()


async def durable_run(
    storage: LocalStorage, journal: SQLiteJournal, parts: dict[str, float]
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
    draft = Draft(task_id=task_id, image=image, portrait=image, portrait_box=box, speech=speech)
    await kept.put_originals(draft)
    lap("staging")
    stages = (("detection", crop, "cropped.png"), ("removal", cut, "transparent.png"))
    await attempt.stage_done(UPLOAD, await kept.checkpoint(0, draft))
    lap("journal")
    for number, (name, portrait, suffix) in enumerate(stages, start=1):
        await kept.put("processed", suffix, portrait.original().data)
        if portrait is cut:
            await kept.put("processed", "mask.png", mask)
        lap("staging")
        draft = attrs.evolve(draft, portrait=portrait)
        await attempt.stage_done(name, await kept.checkpoint(number, draft))
        lap("journal")
    file = await kept.put("videos", "final.mp4", video)
    lap("staging")
    draft = attrs.evolve(draft, video=Video(file, 1.0, 25.0, (512, 512)))
    await attempt.stage_done("generation", await kept.checkpoint(3, draft))
    await attempt.finish(TaskState.PUBLISHING, {"success": True})
    lap("journal")
    await files.publish({"success": True})
    lap("publishing")
    await attempt.finish(TaskState.COMPLETED, {"success": True})
    lap("journal")


def plain_run(folder: Path) -> None:
    """The same files, and nothing that makes them one whole."""
    contents = (
        image.original().data,
        speech.original().data,
        crop.original().data,
        cut.original().data,
        mask,
        video,
    )
    for data in contents:
        with (folder / f"plain-{next(numbers)}").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


async def measure(folder: Path) -> None:
    """Print the table."""
    storage = LocalStorage(folder / "store", min_free_bytes=0)
    journal = SQLiteJournal(storage.root / "journal.db")
    await durable_run(storage, journal, {})
    turns: list[dict[str, float]] = []
    plain: list[float] = []
    for _ in range(TURNS):
        turns.append({})
        await durable_run(storage, journal, turns[-1])
        plain.append(seconds(lambda: plain_run(folder)))
    await journal.aclose()
    whole = statistics.median(sum(parts.values()) for parts in turns)
    bound = statistics.median(plain)
    for name in turns[0]:
        part = statistics.median(parts[name] for parts in turns)
        print(f"  {name:28} {part * 1000:6.2f} ms")
    print(f"  {'in all':28} {whole * 1000:6.2f} ms   {whole / bound:4.1f} x plain files")
    best = min(sum(parts.values()) for parts in turns)
    print(f"  {'best':28} {best * 1000:6.2f} ms")
    print(f"  {'plain files, an fsync each':28} {bound * 1000:6.2f} ms")


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    """Measure in a folder of its own."""
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        anyio.run(measure, Path(folder))


if __name__ == "__main__":
    main()
