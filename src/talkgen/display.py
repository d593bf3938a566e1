"""Progress for people at a terminal."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, Self

import attrs
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from talkgen.events import Degraded, Error, Heartbeat, Preview

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from rich.progress import TaskID

    from talkgen.events import Event
    from talkgen.pipeline import Pipeline
    from talkgen.progress import History, ProgressTracker
    from talkgen.runs import Run

__all__ = ["live", "progress"]

# What has nothing to say on a line of its own; an error is told by whoever awaits the run.
UNSHOWN = (Degraded, Error, Heartbeat, Preview)

POLLING = 0.1  # seconds between two looks at the histories


class Sink(Protocol):
    """Where events are shown."""

    def show(self, event: Event) -> None:
        """Show one event of any run, in the order of its history."""
        ...


async def progress(run: Run, console: Console | None = None) -> None:
    """Show a run until it has ended: a live bar on a terminal, a line per step elsewhere.

    Does not raise the run's error: await the run for its result.

    Args:
        run: The run.
        console: Where to; by default standard error, which leaves standard output to results.
    """
    with _sink(console, named=False) as sink:
        async for event in run:
            sink.show(event)


@contextmanager
def live(pipeline: Pipeline, console: Console | None = None) -> Iterator[None]:
    """Show every run that a pipeline has under way inside the block, a bar each, or lines.

    Args:
        pipeline: The pipeline.
        console: Where to; by default standard error.
    """
    with _sink(console, named=True) as sink:
        watcher = _Watcher(pipeline.tracker, sink)
        try:
            yield
        finally:
            watcher.stop()


def _sink(console: Console | None, *, named: bool) -> AbstractContextManager[Sink]:
    console = console or Console(stderr=True)
    return _Bars(console, named) if console.is_terminal else _Lines(console, named)


@attrs.define(eq=False)
class _Lines:
    """A line for each step."""

    _console: Console
    _named: bool
    _stages: dict[str, str] = attrs.field(factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, event: Event) -> None:
        if isinstance(event, Degraded):
            self._print(event)
        if isinstance(event, UNSHOWN) or event.stage == self._stages.get(event.task_id):
            return
        self._stages[event.task_id] = event.stage
        self._print(event)

    def _print(self, event: Event) -> None:
        line = f"{event.task_id} {_line(event)}" if self._named else _line(event)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Bars:
    """A bar for each run."""

    def __init__(self, console: Console, named: bool) -> None:
        columns = (
            TaskProgressColumn(),
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console)
        self._named = named
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        if event.task_id not in self._bars:
            self._bars[event.task_id] = self._progress.add_task("", total=100)
        if isinstance(event, Degraded):
            line, console = _line(event), self._progress.console
            console.print(line, style="yellow", markup=False, highlight=False)
        message = f"{event.task_id[:8]} {event.message}" if self._named else event.message
        bar = self._bars[event.task_id]
        self._progress.update(bar, completed=event.progress, description=message)
        if event.terminal:
            self._progress.stop_task(bar)


class _Watcher:
    """Shows a tracker's histories from a thread: the runs' own loop may be busy or end."""

    def __init__(self, tracker: ProgressTracker, sink: Sink) -> None:
        self._tracker, self._sink = tracker, sink
        over = (history for history in tracker.histories() if history.ended)
        self._seen: dict[History, int] = {history: len(history.events) for history in over}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="talkgen-live", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Show what is still to be shown, then no more."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        last = False
        while not last:
            last = self._stopped.wait(POLLING)
            for history in self._tracker.histories():
                self._show(history)

    def _show(self, history: History) -> None:
        seen = self._seen.get(history, 0)
        events = history.events[seen:]
        self._seen[history] = seen + len(events)
        for event in events:
            self._sink.show(event)


def _line(event: Event) -> str:
    return f"{event.progress:3d}% {event.message}"
