"""`python -m talkgen fetch`: weights that are not in the wheel, downloaded and checked."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from talkgen.commands import DONE
from talkgen.models.catalogue import AGPL, known_weights
from talkgen.models.weights import cached, download

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from rich.console import Console

    from talkgen.commands import Commands
    from talkgen.models.weights import OnProgress, Weights

__all__ = ["add"]

NOTICE = (
    "is AGPL-3.0, as Ultralytics is: a service that uses it has to offer its source, "
    "unless Ultralytics sold you another licence."
)


def add(commands: Commands) -> None:
    """Describe the command."""
    fetch = commands.add_parser("fetch", help="download weights of the full models")
    fetch.set_defaults(command=_fetch)
    fetch.add_argument("names", nargs="*", metavar="NAME", help="like yolov8n or birefnet-lite")
    fetch.add_argument("--list", action="store_true", help="which there are, and which are here")


def _fetch(options: argparse.Namespace, console: Console) -> int:
    if options.list or not options.names:
        _list()
    for weights in [_named(name) for name in options.names]:
        path = _downloaded(weights, console)
        sys.stdout.write(f"{path}\n")
    return DONE


def _named(name: str) -> Weights:
    try:
        return known_weights()[name]
    except KeyError:
        known = ", ".join(known_weights())
        raise ValueError(f"No weights are known as {name!r}; there are {known}") from None


def _list() -> None:
    for weights in known_weights().values():
        path = cached(weights)
        line = f"{weights.name:22}{_size(weights):>8}  {weights.licence:14}{path or 'not here'}"
        sys.stdout.write(line + "\n")


def _size(weights: Weights) -> str:
    return "?" if weights.size is None else f"{weights.size / 1e6:.0f} MB"


def _downloaded(weights: Weights, console: Console) -> str:
    with _progress(weights, console) as progress:
        path = download(weights, progress=progress)
    if weights.licence == AGPL:
        _say(console, f"{weights.name} {NOTICE}")
    return str(path)


@contextmanager
def _progress(weights: Weights, console: Console) -> Iterator[OnProgress | None]:
    """A bar on a terminal, a line elsewhere."""
    if cached(weights) is not None:
        _say(console, f"{weights.name} is here already.")
        yield None
    elif not console.is_terminal:
        _say(console, f"Fetching {weights.name}, {_size(weights)}, from {weights.repository}")
        yield None
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(weights.name, total=weights.size)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
