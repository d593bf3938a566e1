"""The command line: `python -m talkgen run`, `recover`, `stats` and so on; `--help` tells all.

Exit codes: 0 done, 1 failed, 2 bad usage or bad input, 3 deferred.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from talkgen.commands import BAD, FAILED, doctor, fetch, run, storage, tasks
from talkgen.errors import InvalidInput, NoPersonDetected, PersonNotFound, TalkgenError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

COMMANDS = (run, doctor, fetch, tasks, storage)

# Without a handler its warnings of another try would stand as bare words between the progress.
logging.getLogger("stamina").addHandler(logging.NullHandler())


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
        code = int(options.command(options, console))
        sys.stdout.flush()  # here, where it may fail
    except BrokenPipeError:  # whoever read has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        console.print("Cancelled.")
        return FAILED
    except Exception as error:
        if options.debug:
            raise
        return _complain(error, console)
    return code


def _complain(error: Exception, console: Console) -> int:
    """One line and a hint."""
    console.print(f"talkgen: {_in_words(error)}", markup=False, highlight=False, soft_wrap=True)
    if hint := getattr(error, "hint", None):
        console.print(f"  {hint}", markup=False, highlight=False, soft_wrap=True)
    if not isinstance(error, (TalkgenError, ValueError, TypeError, OSError)):
        console.print("  --debug shows the traceback.", highlight=False)
    caller = (InvalidInput, NoPersonDetected, PersonNotFound)
    mistake = isinstance(error, (ValueError, TypeError)) and not isinstance(error, TalkgenError)
    return BAD if mistake or isinstance(error, caller) else FAILED


def _in_words(error: Exception) -> str:
    """Its message; of the system's, without the number that it has for programs."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m talkgen", description="A photo and a recording become a talking video."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    for one in commands.choices.values():
        one.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
