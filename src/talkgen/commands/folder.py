"""The folder that a command works on: `--storage DIR`, else STORAGE_ROOT."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from talkgen.settings import Settings

if TYPE_CHECKING:
    import argparse

    from rich.table import Table

    from talkgen._types import JSON

__all__ = ["add_folder_options", "environment_of", "print_json", "print_table", "settings_of"]

ENDLESS = 10**6  # columns


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Which folder, and in which form the answer is printed."""
    parser.add_argument(
        "--storage", type=Path, metavar="DIR", help="the storage's folder (STORAGE_ROOT)"
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def environment_of(options: argparse.Namespace) -> Settings:
    """The settings of the environment, with the folder that the command was given."""
    given = {"STORAGE_ROOT": str(options.storage)} if options.storage else {}
    return Settings.from_env({**os.environ, **given})


def settings_of(options: argparse.Namespace, *, holding: str, what: str) -> Settings:
    """Those of the environment; the folder must be there, so that a slip makes no new one.

    Args:
        options: The command's.
        holding: What tells that the folder is the right one.
        what: What it holds then, in a word.

    Raises:
        ValueError: There is no such folder.
    """
    settings = environment_of(options)
    root = settings.storage_root
    if root is None:
        raise ValueError("no folder: give --storage DIR, or set STORAGE_ROOT")
    if not (root / holding).exists():
        raise ValueError(f"{root} holds no {what}: there is no {root / holding}")
    return settings


def print_table(table: Table) -> None:
    """As wide as it is, to standard output: a narrow terminal wraps it, and a pipe has no width."""
    Console(width=ENDLESS).print(table, highlight=False)


def print_json(document: JSON) -> None:
    """On one line, to standard output."""
    sys.stdout.write(json.dumps(document) + "\n")
