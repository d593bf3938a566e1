"""`python -m talkgen run`: a photo and a recording become a talking video."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from talkgen.choice import choose_backends
from talkgen.commands import DEFERRED, DONE
from talkgen.display import progress
from talkgen.generators.local import LocalGenerator
from talkgen.pipeline import Pipeline
from talkgen.settings import Settings
from talkgen.stages.background import RemoveBackground, ReplaceBackground
from talkgen.stages.detection import DetectPersons
from talkgen.stages.generation import GenerateVideo

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from talkgen.commands import Commands
    from talkgen.draft import Result
    from talkgen.protocols import Stage

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Describe the command."""
    run = commands.add_parser("run", help="make a video")
    run.set_defaults(command=_run)
    run.add_argument("image", type=Path, help="photo of a person")
    run.add_argument("audio", type=Path, help="recording of speech")
    run.add_argument("-o", "--output", type=Path, required=True, help="the video, MP4")
    run.add_argument("--background", metavar="COLOUR|FILE|blur", help="put behind the person")
    run.add_argument("--person", type=int, metavar="N", help="which person, 1 is the best")
    run.add_argument("--size", type=int, default=512, help="longest side in pixels (512)")
    run.add_argument("--seed", type=int, default=0, help="of blinks and small motion (0)")
    run.add_argument("--json", action="store_true", help="print the result as JSON")


def _run(options: argparse.Namespace, console: Console) -> int:
    settings = Settings.from_env()
    result = anyio.run(partial(_make, options, settings, console))
    if options.json:
        sys.stdout.write(json.dumps(result.to_dict()) + "\n")
    if not result.success:
        console.print("Deferred: an outside service is down. Run it again later.")
        return DEFERRED
    if not options.json:
        sys.stdout.write(f"{options.output}\n")
    return DONE


async def _make(options: argparse.Namespace, settings: Settings, console: Console) -> Result:
    stages = _stages(options, settings)
    await anyio.to_thread.run_sync(_name_backends, settings, console)
    async with Pipeline(stages, settings=settings) as pipeline:
        run = pipeline.start(options.image, options.audio)
        await progress(run, console)
        result = await run
        if result.success:
            await result.video.asave(options.output)
        return result


def _stages(options: argparse.Namespace, settings: Settings) -> tuple[Stage, ...]:
    replace: tuple[Stage, ...] = ()
    if options.background is not None:
        replace = (ReplaceBackground(_background(options.background)),)
    return (
        DetectPersons(confidence=settings.confidence_threshold, select=options.person or "best"),
        RemoveBackground(),
        *replace,
        GenerateVideo(LocalGenerator(size=options.size, seed=options.seed)),
    )


def _background(text: str) -> Any:
    from talkgen.media import Image

    return Image.open(text) if Path(text).is_file() else text


def _name_backends(settings: Settings, console: Console) -> None:
    choice = choose_backends(settings)
    names = (type(choice.backends.detector), type(choice.backends.remover), LocalGenerator)
    console.print("Using " + ", ".join(kind.__name__ for kind in names), highlight=False)
