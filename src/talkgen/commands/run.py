"""`python -m talkgen run`: a photo and a recording become a talking video."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from talkgen.choice import choose_backends
from talkgen.commands import DEFERRED, DONE
from talkgen.commands.folder import add_folder_options, environment_of, print_json
from talkgen.display import progress
from talkgen.events import Cancelled, Deferred
from talkgen.generators.local import LocalGenerator
from talkgen.media import check_target
from talkgen.pipeline import Pipeline
from talkgen.stages.background import RemoveBackground, ReplaceBackground
from talkgen.stages.detection import DetectPersons
from talkgen.stages.generation import GenerateVideo

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from talkgen._types import JSON
    from talkgen.commands import Commands
    from talkgen.draft import Result
    from talkgen.events import Event
    from talkgen.protocols import Stage, VideoGenerator
    from talkgen.settings import Settings

__all__ = ["add", "add_stage_options", "stages_of"]


def add(commands: Commands) -> None:
    """Describe the command."""
    run = commands.add_parser("run", help="make a video")
    run.set_defaults(command=_run)
    run.add_argument("image", type=Path, help="photo of a person")
    run.add_argument("audio", type=Path, help="recording of speech")
    run.add_argument("-o", "--output", type=Path, required=True, help="the video, MP4")
    add_stage_options(run)
    add_folder_options(run)


def add_stage_options(parser: argparse.ArgumentParser) -> None:
    """What decides the stages; a task is taken up by the same ones only."""
    parser.add_argument("--background", metavar="COLOUR|FILE|blur", help="put behind the person")
    parser.add_argument("--person", type=int, metavar="N", help="which person, 1 is the best")
    parser.add_argument(
        "--size", type=int, default=512, help="longest side in pixels (512), local only"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of blinks and small motion (0), local only"
    )


def _run(options: argparse.Namespace, console: Console) -> int:
    _check_output(options)  # before any work or money
    settings = environment_of(options)
    result = anyio.run(partial(_make, options, settings, console))
    if options.json:
        print_json(_told(result, options, settings))
    elif result.success:
        sys.stdout.write(f"{options.output}\n")
    return DONE if result.success else DEFERRED


def _check_output(options: argparse.Namespace) -> None:
    check_target(options.output)
    for given in (options.image, options.audio):
        if options.output.exists() and given.exists() and options.output.samefile(given):
            raise ValueError(f"the video would replace {given}: give it another name with --output")


def _told(result: Result, options: argparse.Namespace, settings: Settings) -> JSON:
    """The result; without a folder that stays, the video is where it was saved."""
    document = result.to_dict()
    if result.success and settings.storage_root is None:
        document["video_url"] = options.output.resolve().as_uri()
    return document


async def _make(options: argparse.Namespace, settings: Settings, console: Console) -> Result:
    stages = await anyio.to_thread.run_sync(stages_of, options, settings)
    await anyio.to_thread.run_sync(_name_backends, settings, console)
    pipeline = Pipeline(stages, settings=settings)
    try:
        async with pipeline:
            run = pipeline.start(options.image, options.audio)
            await progress(run, console)
            result = await run
            if result.success:
                await result.video.asave(options.output)
            return result
    finally:
        for history in pipeline.tracker.histories():
            _tell_what_is_left(history.latest, settings, console)


def _tell_what_is_left(last: Event | None, settings: Settings, console: Console) -> None:
    """Where a run has not come to its end, say why, and how to go on; also after Ctrl-C."""
    match last:
        case Deferred():
            line = f"Deferred: {last.error} {_later(settings)}"
        case Cancelled(recoverable=True):
            line = f"Something is paid for and not collected yet. {_later(settings)}"
        case _:
            return
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _later(settings: Settings) -> str:
    if settings.storage_root is None:
        return "Nothing is left to go on with: only with --storage DIR are files and tasks kept."
    root = shlex.quote(str(settings.storage_root))
    return f"Go on with it later: python -m talkgen recover --storage {root}"


def stages_of(options: argparse.Namespace, settings: Settings) -> tuple[Stage, ...]:
    """The whole job, as the options want it."""
    replace: tuple[Stage, ...] = ()
    if options.background is not None:
        replace = (_background(options.background),)
    return (
        DetectPersons(confidence=settings.confidence_threshold, select=_person(options)),
        RemoveBackground(),
        *replace,
        GenerateVideo(_generator(options, settings)),
    )


def _person(options: argparse.Namespace) -> Any:
    if options.person is None:
        return "best"
    if options.person < 1:
        raise ValueError(f"--person must be 1 or more, not {options.person}")
    return options.person


def _generator(options: argparse.Namespace, settings: Settings) -> VideoGenerator:
    """The one that the settings choose; size and seed are the local renderer's."""
    chosen = choose_backends(settings).backends.generator
    if isinstance(chosen, LocalGenerator):
        return LocalGenerator(size=options.size, seed=options.seed)
    return chosen


def _background(text: str) -> ReplaceBackground:
    from talkgen.media import Image

    if Path(text).is_file():
        return ReplaceBackground(Image.open(text))
    try:
        return ReplaceBackground(text)
    except ValueError:
        raise ValueError(
            f"--background {text!r} is no colour (teal, #2a6f97), not 'blur', and no file that is "
            "there"
        ) from None


def _name_backends(settings: Settings, console: Console) -> None:
    backends = choose_backends(settings).backends
    names = (type(backends.detector), type(backends.remover), type(backends.generator))
    console.print("Using " + ", ".join(kind.__name__ for kind in names), highlight=False)
