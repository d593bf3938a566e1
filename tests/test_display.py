"""Progress at a terminal, and where there is none."""

import gc
import io
import re
import weakref
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import anyio
import numpy as np
import pytest
from rich.console import Console

from talkgen import MemoryStorage, Pipeline, events
from talkgen.display import live, progress
from talkgen.progress import ProgressTracker

PICTURE = np.full((8, 8, 3), 128, np.uint8)


class Lesser:
    name = key = "lesser"
    weight = 1.0
    requires = provides = resets = frozenset()

    async def run(self, draft, context):
        context.degraded("[b]half[/b] as nice")
        return draft


class Told(ProgressTracker):
    """A run whose events a test tells; the last is a cancellation."""

    def __init__(self):
        super().__init__(heartbeat=0.001)
        self.history = self.begin("order-2026-0001")

    def tell(self, message, stage="s"):
        self.history.publish(events.StageUpdate, stage, 50, message)

    def __aiter__(self):
        return self.read(self.history)


def painted(file):
    """What was painted last, without the codes between."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue()).splitlines()


def on_a_terminal(width=80, height=24):
    file = io.StringIO()
    return file, Console(file=file, force_terminal=True, width=width, height=height)


async def shown(*, terminal):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=80)
    async with Pipeline([Lesser()], storage=MemoryStorage()) as pipeline:
        run = pipeline.start(PICTURE)
        await progress(run, console)
        assert (await run).success
    return file.getvalue()


async def test_lines_where_there_is_no_terminal(anyio_backend):
    lines = (await shown(terminal=False)).splitlines()
    assert lines[0] == "  0% Validating the inputs"
    assert " 20% [b]half[/b] as nice" in lines
    assert lines[-1] == "100% Completed"


async def test_a_bar_on_a_terminal(anyio_backend):
    text = await shown(terminal=True)
    assert "[b]half[/b] as nice" in text
    assert "100%" in text


async def test_a_dumb_terminal_gets_lines(anyio_backend, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    text = await shown(terminal=True)
    assert text.startswith("  0% Validating the inputs\n")


@pytest.mark.parametrize("width", [30, 40, 80, 120])
async def test_no_message_pushes_the_rest_off_the_line(anyio_backend, width):
    run, (file, console) = Told(), on_a_terminal(width)
    run.tell("A message " * 30, stage="detection_running")
    run.history.publish(events.Cancelled, "detection_running", 50, "Much more " * 30)
    await progress(run, console)
    (line,) = [line for line in painted(file) if "Much" in line][-1:]
    assert line.startswith(" 50% ")
    assert re.search(r"… 0:00:0\d -:--:--$", line)
    assert len(line) == width
    assert ("detection_running" in line) is (width >= 100)


async def test_a_heartbeat_leaves_the_message(anyio_backend):
    run, (file, console) = Told(), on_a_terminal()
    run.tell("Waiting for somebody")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(progress, run, console)
        async for event in run:
            if event.event_type == "heartbeat":
                break
        await anyio.sleep(0.2)  # bars are painted ten times a second
        run.history.publish(events.Cancelled, "cancelled", 0, "Cancelled")
    assert "Waiting" in file.getvalue()
    assert "keepalive" not in file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
async def test_live_shows_every_run_of_the_block_from_its_beginning_to_its_end(
    anyio_backend, terminal
):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    async with Pipeline([Lesser()], storage=MemoryStorage()) as pipeline:
        await pipeline.run(PICTURE, task_id="before")
        with live(pipeline, console):
            for number in range(3):
                await pipeline.run(PICTURE, task_id=f"task-{number}")
        await pipeline.run(PICTURE, task_id="after")
    text = file.getvalue()
    assert all(f"task-{number}" in text for number in range(3))
    assert text.count("as nice") >= 3
    assert "before" not in text
    assert "after" not in text
    if not terminal:
        lines = [line for line in text.splitlines() if line.startswith("task-1")]
        assert lines[0] == "task-1   0% Validating the inputs"
        assert lines[-1] == "task-1 100% Completed"


async def test_live_on_a_full_terminal_shows_those_that_are_under_way(anyio_backend):
    file, console = on_a_terminal(height=6)
    async with Pipeline([Lesser()], storage=MemoryStorage()) as pipeline:
        with live(pipeline, console):
            for number in range(20):
                await pipeline.run(PICTURE, task_id=f"photo-2026-{number:04d}")
    lines = painted(file)
    assert any(line.startswith("100% ") and "photo-2026-0019" in line for line in lines[-6:])
    assert "100% photo-2026-0000 Completed" in lines  # above the bars
    assert not any(line.strip() == "..." for line in lines)


async def test_a_bar_for_each_attempt_each_to_its_end(anyio_backend):
    file, console = on_a_terminal()
    first = (tracker := ProgressTracker()).begin("t")
    with live(SimpleNamespace(tracker=tracker), console), anyio.fail_after(30):
        first.publish(events.StageUpdate, "s", 50, "Half way")
        while "Half way" not in file.getvalue():  # noqa: ASYNC110 - nobody is told
            await anyio.sleep(0.01)
        first.publish(events.Cancelled, "cancelled", 0, "Torn")
        second = tracker.begin("t", 2)
        tracker.take_over(second)
        second.publish(events.Cancelled, "cancelled", 70, "Done")
    last = [re.sub(r"[^\w%]+", " ", line) for line in painted(file) if line.strip()][-2:]
    assert last[0].startswith(" 50% t Torn ")
    assert last[1].startswith(" 70% t Done ")


async def test_live_keeps_no_history_that_the_tracker_has_dropped(anyio_backend):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    tracker, file = ProgressTracker(clock=lambda: now), io.StringIO()
    async with Pipeline([Lesser()], storage=MemoryStorage(), tracker=tracker) as pipeline:
        with live(pipeline, Console(file=file)), anyio.fail_after(30):
            await pipeline.run(PICTURE)
            (history,) = map(weakref.ref, tracker.histories())
            while "Completed" not in file.getvalue():  # noqa: ASYNC110 - nobody is told
                await anyio.sleep(0.01)
            now += timedelta(hours=2)
            while history() is not None:
                await anyio.sleep(0.01)
                gc.collect()
