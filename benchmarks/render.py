"""Seconds of work per second of video, part by part, beside encoding the same frames only.

    python benchmarks/render.py [IMAGE AUDIO]

One process, parts in turns, the median of the turns. Encoding is the bound: nothing that makes
this file can take less.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyio

from talkgen import DetectPersons, Image, LocalScheduler, Pipeline, RemoveBackground, Speech
from talkgen.generators.local import LocalGenerator
from talkgen.generators.local.encoding import encode
from talkgen.generators.local.motion import move
from talkgen.generators.local.render import Scene, frame_count, prepare, render
from talkgen.generators.local.voice import articulate

DEMO = Path(__file__).parent.parent / "docs" / "assets" / "demo"
TURNS = 3
FPS = 25


async def scene_of(path: Path) -> Scene:
    """The portrait, cut out and rigged; beside it, what it takes where nobody has cut it out."""
    scheduler = LocalScheduler()
    for stages in ([DetectPersons()], [DetectPersons(), RemoveBackground()]):
        result = await Pipeline(stages, scheduler=scheduler).run(Image.open(path))
        portrait = result.draft.portrait
        await prepare(LocalGenerator(fps=FPS), portrait, scheduler)  # the networks are warm now
        begin = time.perf_counter()
        scene = await prepare(LocalGenerator(fps=FPS), portrait, scheduler)
        kind = "cut out" if portrait.has_alpha else "opaque"
        print(f"set-up, once, {kind}: {time.perf_counter() - begin:.2f} s")
    await scheduler.aclose()
    return scene


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _ignore(*_: object) -> None:
    pass


def main() -> None:
    """Measure, and print the table."""
    image, audio = map(Path, sys.argv[1:3] or (DEMO / "portrait.png", DEMO / "speech.wav"))
    speech = Speech.open(audio)
    count = frame_count(speech, FPS)
    scene = anyio.run(scene_of, image)
    mouth = articulate(speech.samples, speech.sample_rate, fps=FPS, frames=count)
    motion = move(mouth, FPS, 0)
    made = [scene.puppet.frame(motion.pose(index)) for index in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"

        def only_encode() -> None:
            encode(path, iter(made), speech, fps=FPS, size=scene.size)

        def whole() -> None:
            render(scene, speech, path, fps=FPS, seed=0, at_frame=_ignore, show=_ignore)

        parts: dict[str, Callable[[], object]] = {
            "sound to mouth": lambda: articulate(
                speech.samples, speech.sample_rate, fps=FPS, frames=count
            ),
            "frames": lambda: [scene.puppet.frame(motion.pose(i)) for i in range(count)],
            "encoding the same frames only": only_encode,
            "whole render": whole,
        }
        times: dict[str, list[float]] = {name: [] for name in parts}
        for _ in range(TURNS):
            for name, work in parts.items():
                times[name].append(seconds(work) / speech.duration)
    bound = statistics.median(times["encoding the same frames only"])
    print(
        f"{scene.size[0]}x{scene.size[1]}, {FPS} fps, {speech.duration:g} s, per second of video:"
    )
    for name, values in times.items():
        median = statistics.median(values)
        print(f"  {name:32} {median:.3f} s   {median / bound:5.2f} x encoding")


if __name__ == "__main__":
    main()
