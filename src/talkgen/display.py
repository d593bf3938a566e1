"""Progress for people at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from talkgen.events import Degraded, Error, Heartbeat, Preview

if TYPE_CHECKING:
    from talkgen.events import Event
    from talkgen.runs import Run

__all__ = ["progress"]

# What has nothing to say on a line of its own; an error is told by whoever awaits the run.
UNSHOWN = (Degraded, Error, Heartbeat, Preview)


async def progress(run: Run, console: Console | None = None) -> None:
    """Show a run until it has ended: a live bar on a terminal, a line per step elsewhere.

    Does not raise the run's error: await the run for its result.

    Args:
        run: The run.
        console: Where to; by default standard error, which leaves standard output to results.
    """
    console = console or Console(stderr=True)
    if console.is_terminal:
        await _bar(run, console)
    else:
        await _lines(run, console)


async def _bar(run: Run, console: Console) -> None:
    columns = (
        TaskProgressColumn(),
        BarColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=100)
        async for event in run:
            bar.update(task, completed=event.progress, description=event.message)
            if isinstance(event, Degraded):
                console.print(_line(event), style="yellow", markup=False, highlight=False)


async def _lines(run: Run, console: Console) -> None:
    shown = ""
    async for event in run:
        if isinstance(event, Degraded):
            console.print(_line(event), markup=False, highlight=False, soft_wrap=True)
        if isinstance(event, UNSHOWN) or event.stage == shown:
            continue
        shown = event.stage
        console.print(_line(event), markup=False, highlight=False, soft_wrap=True)


def _line(event: Event) -> str:
    return f"{event.progress:3d}% {event.message}"
