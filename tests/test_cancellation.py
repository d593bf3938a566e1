"""A run is cancelled at each of its awaits in turn: nothing is left behind, whichever it is."""

import types

import anyio
import attrs
import numpy as np
import pytest

from talkgen import LocalStorage, MemoryStorage, Pipeline
from talkgen.errors import RunCancelled, TalkgenError
from talkgen.jobs import Job
from talkgen.runs import Run

PICTURE = np.full((8, 8, 3), 128, np.uint8)


class Writing:
    """A stage with awaits of every kind: files, scratch, a thread, the scheduler's loop."""

    name = key = "writing"
    weight = 1.0
    requires = provides = resets = frozenset()

    async def run(self, draft, context):
        async with context.files.scratch() as folder:
            file = anyio.Path(folder) / "made.bin"
            await file.write_bytes(b"made")
            ref = await context.files.put("processed", "made.bin", await file.read_bytes())
        context.report(0.5, "Half of it")
        assert await context.files.get(ref) == b"made"
        await anyio.lowlevel.checkpoint()
        return attrs.evolve(draft, metadata={"made": ref.name})


class Outage(TalkgenError):
    outage = True


@attrs.define(eq=False)
class Waiting(Writing):
    """A stage that an outside service keeps waiting, as long as it is down."""

    name = key = "waiting"
    down: bool = True

    async def run(self, draft, context):
        if self.down:
            raise Outage("down")
        return await super().run(draft, context)


@types.coroutine
def stepping(coroutine, at_await):
    """Drive a coroutine, and call `at_await` whenever it is about to wait."""
    send, argument = coroutine.send, None
    while True:
        try:
            waits_for = send(argument)
        except StopIteration as stop:
            return stop.value
        at_await()
        try:
            send, argument = coroutine.send, (yield waits_for)
        except BaseException as error:  # noqa: BLE001 - passed on into the coroutine
            send, argument = coroutine.throw, error


async def run_cancelled_at(pipeline, index):
    """Run once, cancelled at the given await; gives back the run and how many awaits it had."""
    session = pipeline._session
    history = pipeline._tracker.begin(f"t{index}")
    run = Run(Job(f"t{index}", PICTURE), session.workshop, history)
    count = 0

    def at_await():
        nonlocal count
        if count == index:
            run.cancel()
        count += 1

    async def drive():
        await stepping(run.execute(), at_await)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drive)
    return run, count


@pytest.mark.parametrize("kind", ["memory", "local"])
async def test_cancelled_at_each_await_nothing_is_left(anyio_backend, kind, tmp_path):
    storage = MemoryStorage() if kind == "memory" else LocalStorage(tmp_path)
    cancelled = 0
    async with Pipeline([Writing()], storage=storage) as pipeline:
        for index in range(1000):
            run, awaits = await run_cancelled_at(pipeline, index)
            published = [info async for info in storage.list(task_id=run.task_id)]
            assert await storage.staged() == ()
            assert [event.terminal for event in run.history.events].count(True) == 1
            assert run.history.events[-1].terminal
            try:
                await run
            except RunCancelled:
                cancelled += 1
                assert published == []
            else:
                assert published
            if awaits <= index:
                break
    assert cancelled > 10
    if kind == "local":
        assert [path for path in (tmp_path / "temp").rglob("*") if path.is_file()] == []


async def test_resumed_and_cancelled_at_each_await_nothing_is_left(anyio_backend, tmp_path):
    """What the attempt before has staged goes, too."""
    waiting, storage = Waiting(), LocalStorage(tmp_path)
    cancelled = 0
    async with Pipeline([Writing(), waiting], storage=storage) as pipeline:
        for index in range(1000):
            waiting.down = True
            await pipeline.run(PICTURE, task_id=f"t{index}")
            assert await storage.staged() == (f"t{index}",)
            waiting.down = False
            run, awaits = await run_cancelled_at(pipeline, index)
            record = await pipeline._journal.get(f"t{index}")
            # Cancelled before it had begun, it has changed nothing.
            left = (f"t{index}",) if record.attempt == 1 else ()
            assert await storage.staged() == left
            try:
                await run
            except RunCancelled:
                cancelled += 1
            await pipeline.forget(f"t{index}")
            if awaits <= index:
                break
    assert cancelled > 10
