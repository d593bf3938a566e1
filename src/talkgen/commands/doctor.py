"""`python -m talkgen doctor`: what is installed and usable here, and why not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from talkgen import doctor
from talkgen.commands import DONE, FAILED
from talkgen.settings import Settings

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from talkgen.commands import Commands

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Describe the command."""
    examine = commands.add_parser("doctor", help="what is installed and usable here, and why not")
    examine.add_argument(
        "--online", action="store_true", help="ask D-ID for the balance of D_ID_API_KEY, too"
    )
    examine.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace, console: Console) -> int:  # noqa: ARG001 - all commands alike
    report = doctor.examine(Settings.from_env(), online=options.online)
    for line in report.lines():
        sys.stdout.write(line + "\n")
    return DONE if report.usable else FAILED
