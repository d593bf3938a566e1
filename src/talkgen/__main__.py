"""The command line: `python -m talkgen run`, `python -m talkgen doctor`.

Exit codes: 0 done, 1 failed, 2 bad usage or bad input, 3 deferred.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from rich.console import Console

from talkgen import doctor
from talkgen.defaults import choose_backends
from talkgen.display import progress
from talkgen.errors import InvalidInput, NoPersonDetected, PersonNotFound, TalkgenError
from talkgen.generators.local import LocalGenerator
from talkgen.pipeline import Pipeline
from talkgen.settings import Settings
from talkgen.stages.background import RemoveBackground, ReplaceBackground
from talkgen.stages.detection import DetectPersons
from talkgen.stages.generation import GenerateVideo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from talkgen.draft import Result
    from talkgen.protocols import Stage

__all__ = ["main"]

DONE, FAILED, BAD, DEFERRED = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Args:
        arguments: Instead of `sys.argv[1:]`.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        return int(options.command(options, console))
    except KeyboardInterrupt:
        console.print("Cancelled.")
        return FAILED
    except Exception as error:
        if options.debug:
            raise
        return _complain(error, console)


def _complain(error: Exception, console: Console) -> int:
    """One line and a hint."""
    console.print(f"talkgen: {error}", markup=False, highlight=False, soft_wrap=True)
    if hint := getattr(error, "hint", None):
        console.print(f"  {hint}", markup=False, highlight=False, soft_wrap=True)
    if not isinstance(error, (TalkgenError, ValueError, TypeError, OSError)):
        console.print("  --debug shows the traceback.", highlight=False)
    caller = (InvalidInput, NoPersonDetected, PersonNotFound)
    mistake = isinstance(error, (ValueError, TypeError)) and not isinstance(error, TalkgenError)
    return BAD if mistake or isinstance(error, caller) else FAILED


# --- run ---------------------------------------------------------------------------------------


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
    _name_backends(settings, console)
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
    backends = choose_backends(settings)
    names = (type(backends.detector), type(backends.remover), LocalGenerator)
    console.print("Using " + ", ".join(kind.__name__ for kind in names), highlight=False)


# --- doctor ------------------------------------------------------------------------------------


def _doctor(options: argparse.Namespace, console: Console) -> int:  # noqa: ARG001 - all commands alike
    report = doctor.examine()
    for line in report.lines():
        sys.stdout.write(line + "\n")
    return DONE if report.usable else FAILED


# --- usage -------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m talkgen", description="A photo and a recording become a talking video."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
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
    examine = commands.add_parser("doctor", help="what is installed and usable here, and why not")
    examine.set_defaults(command=_doctor)
    for command in (run, examine):
        command.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
