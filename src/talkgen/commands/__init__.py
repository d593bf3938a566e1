"""What `python -m talkgen` can do: a module for each command or pair of commands.

Each has `add(commands)`, which describes its command lines and names the functions that do them;
`folder` has what those share that work on a storage's folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import argparse

__all__ = ["BAD", "DEFERRED", "DONE", "FAILED", "Commands"]

# argparse gives the type no public name.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001

DONE, FAILED, BAD, DEFERRED = 0, 1, 2, 3
