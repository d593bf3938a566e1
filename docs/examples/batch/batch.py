"""Make a video of every photo in a folder that has a recording of the same name beside it.

    python batch.py FOLDER OUTPUT

Killed and started again it goes on: what is finished is skipped, what was under way is resumed.
"""

import signal
import sys
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import anyio

from talkgen import LocalStorage, Pipeline, Settings
from talkgen.errors import TalkgenError

AT_ONCE = 20
PHOTOS = {".jpg", ".jpeg", ".png", ".webp"}
RECORDINGS = {".wav", ".mp3", ".m4a", ".flac", ".ogg"}


def named(folder: Path) -> Iterator[tuple[str, list[Path], list[Path]]]:
    """The names that have both, with their photos and their recordings."""
    name = attrgetter("stem")
    for stem, same in groupby(sorted(folder.iterdir(), key=name), key=name):
        files = list(same)
        photos = [file for file in files if file.suffix.lower() in PHOTOS]
        recordings = [file for file in files if file.suffix.lower() in RECORDINGS]
        if photos and recordings:
            yield stem, photos, recordings


async def make(pipeline: Pipeline, photo: Path, recording: Path, video: Path) -> bool:
    """Make one video; True if it is there."""
    # The same name is the same task, in this process and in the next.
    task_id = str(uuid5(NAMESPACE_URL, photo.name))
    try:
        result = await pipeline.run(photo, recording, task_id=task_id)
        await result.video.asave(video)
    except (TalkgenError, OSError) as error:  # of one; the others go on
        print(f"{photo.name}: {error} {getattr(error, 'hint', None) or ''}", file=sys.stderr)
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
        for stem, photos, recordings in named(folder):
            video = output / f"{stem}.mp4"
            if len(photos) + len(recordings) > 2:  # noqa: PLR2004 - a pair
                print(f"{stem}: more than one photo or recording", file=sys.stderr)
                made.append(False)
            elif not video.exists():
                await room.acquire()
                tasks.start_soon(one, photos[0], recordings[0], video)
    return 0 if all(made) else 1


if __name__ == "__main__":
    if len(sys.argv) != 3 or not Path(sys.argv[1]).is_dir():  # noqa: PLR2004
        sys.exit(__doc__)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as a kill: cancelled, tasks would begin anew
    sys.exit(anyio.run(main, Path(sys.argv[1]), Path(sys.argv[2])))
