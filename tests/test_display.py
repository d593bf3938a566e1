"""Progress at a terminal, and where there is none."""

import io

import numpy as np
import pytest
from rich.console import Console

from talkgen import MemoryStorage, Pipeline
from talkgen.display import live, progress

PICTURE = np.full((8, 8, 3), 128, np.uint8)


class Lesser:
    name = key = "lesser"
    weight = 1.0
    requires = provides = resets = frozenset()

    async def run(self, draft, context):
        context.degraded("[b]half[/b] as nice")
        return draft


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
