"""Make a video of every photo in a folder that has a recording of the same name beside it.

    python batch.py FOLDER OUTPUT

Killed and started again it goes on: what is finished is skipped, what was under way is resumed.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import anyio

from talkgen import LocalStorage, Pipeline, Settings
from talkgen.errors import TalkgenError

AT_ONCE = 20
PHOTOS = {".jpg", ".jpeg", ".png", ".webp"}
RECORDINGS = (".wav", ".mp3", ".m4a", ".flac", ".ogg")


def pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Photos and their recordings, by name."""
    for photo in sorted(folder.iterdir()):
        if photo.suffix.lower() in PHOTOS:
            recordings = map(photo.with_suffix, RECORDINGS)
            if recording := next(filter(Path.is_file, recordings), None):
                yield photo, recording


async def make(pipeline: Pipeline, photo: Path, recording: Path, video: Path) -> bool:
    """Make one video; True if it is there."""
    # The same name is the same task, in this process and in the next.
    task_id = str(uuid5(NAMESPACE_URL, photo.name))
    try:
        result = await pipeline.run(photo, recording, task_id=task_id)
        await result.video.asave(video)
    except TalkgenError as error:
        print(f"{photo.name}: {error} {error.hint or ''}", file=sys.stderr)
        return False
    await pipeline.forget(task_id)  # its files have done their duty
    print(video)
    return True


async def main(folder: Path, output: Path) -> int:
    """Make all videos that are not there yet; 1 where one is missing in the end."""
    await anyio.Path(output).mkdir(parents=True, exist_ok=True)
    storage = LocalStorage(output / ".talkgen")
    room = anyio.Semaphore(AT_ONCE)
    made: list[bool] = []

    async def one(photo: Path, recording: Path, video: Path) -> None:
        try:
            made.append(await make(pipeline, photo, recording, video))
        finally:
            room.release()

    async with (
        Pipeline(settings=Settings.from_env(), storage=storage) as pipeline,
        anyio.create_task_group() as tasks,
    ):
        for photo, recording in pairs(folder):
            video = output / f"{photo.stem}.mp4"
            if not video.exists():
                await room.acquire()
                tasks.start_soon(one, photo, recording, video)
    return 0 if all(made) else 1


if __name__ == "__main__":
    sys.exit(anyio.run(main, Path(sys.argv[1]), Path(sys.argv[2])))
