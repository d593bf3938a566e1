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
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

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
WIDE = 100  # columns from which on a bar has room for the stage's name, too
LONGEST = 16  # characters of a task's id that a bar shows in full


class Sink(Protocol):
    """Where events are shown."""

    def show(self, event: Event) -> None:
        """Show one event of any run, in the order of its history."""
        ...


async def progress(run: Run, console: Console | None = None) -> None:
    """Show a run until it has ended: a live bar on a terminal, a line per step elsewhere.

    The bar says the message, the time that has passed and the time that is expected; on 100 columns
    or more, the stage, too. Does not raise the run's error: await the run for its result.

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
    bars = console.is_terminal and not console.is_dumb_terminal
    return _Bars(console, named) if bars else _Lines(console, named)


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
        self._progress = Progress(*_columns(console.width), console=console, expand=True)
        self._named = named
        self._bars: dict[tuple[str, int], TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        if isinstance(event, Heartbeat):
            return
        if isinstance(event, Degraded):
            line, console = _line(event), self._progress.console
            console.print(line, style="yellow", markup=False, highlight=False)
        message = f"{_short(event.task_id)} {event.message}" if self._named else event.message
        bar = self._bar(event)
        self._progress.update(bar, completed=event.progress, description=message, stage=event.stage)
        if event.terminal:
            self._progress.stop_task(bar)

    def _bar(self, event: Event) -> TaskID:
        run = event.task_id, event.attempt
        if run not in self._bars:
            self._make_room()
            self._bars[run] = self._progress.add_task("", total=100, stage="")
        return self._bars[run]

    def _make_room(self) -> None:
        """Where the terminal is full, the oldest run that has ended becomes a line above."""
        bars, console = self._progress.tasks, self._progress.console
        over = next((bar for bar in bars if bar.stop_time is not None), None)
        if over is not None and len(bars) >= console.height - 1:
            line = f"{over.completed:3.0f}% {over.description}"
            console.print(line, markup=False, highlight=False)
            self._progress.remove_task(over.id)


def _columns(width: int) -> Iterator[ProgressColumn]:
    """Those with a ratio share what the others leave, so that no long message pushes them out."""
    yield TaskProgressColumn()
    yield BarColumn(None, table_column=Column(ratio=1))
    if width >= WIDE:
        yield TextColumn("{task.fields[stage]}", markup=False, table_column=_text(ratio=2))
    yield TextColumn("{task.description}", markup=False, table_column=_text(ratio=3))
    yield TimeElapsedColumn()
    yield TimeRemainingColumn()


def _text(ratio: int) -> Column:
    return Column(ratio=ratio, no_wrap=True, overflow="ellipsis")


class _Watcher:
    """Shows a tracker's histories from a thread: the runs' own loop may be busy or end."""

    def __init__(self, tracker: ProgressTracker, sink: Sink) -> None:
        self._tracker, self._sink = tracker, sink
        over = (history for history in tracker.histories() if history.ended)
        self._seen = {history: len(history.events) for history in over}
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
            self._look()

    def _look(self) -> None:
        histories = self._tracker.histories()
        for dropped in self._seen.keys() - set(histories):
            self._show(dropped)  # what it had still to tell
        self._seen = {history: self._show(history) for history in histories}

    def _show(self, history: History) -> int:
        """Show what is new; how many of its events have been seen."""
        seen = self._seen.get(history, 0)
        events = history.events[seen:]
        for event in events:
            self._sink.show(event)
        return seen + len(events)


def _line(event: Event) -> str:
    return f"{event.progress:3d}% {event.message}"


def _short(task_id: str) -> str:
    """Enough to know it by: ids that count up differ at their end."""
    return task_id if len(task_id) <= LONGEST else f"{task_id[:8]}…{task_id[-4:]}"
