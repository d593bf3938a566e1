"""The whole job without a loop of one's own, and inside somebody else's."""

import signal
import sys
import threading
from contextvars import ContextVar
from types import SimpleNamespace

import anyio
import numpy as np
import pytest

import talkgen
from talkgen import MemoryStorage, Pipeline, errors

PICTURE = np.full((8, 8, 3), 128, np.uint8)


class Waiting:
    """A stage that waits to be let on."""

    name = key = "waiting"
    weight = 1.0
    requires = provides = resets = frozenset()

    def __init__(self):
        self.entered, self.go, self.left = (threading.Event() for _ in range(3))

    async def run(self, draft, context):
        self.entered.set()
        try:
            await anyio.to_thread.run_sync(self.go.wait, 30, abandon_on_cancel=True)
        finally:
            self.left.set()
        return draft


def pipeline(stage):
    return Pipeline([stage], storage=MemoryStorage())


def test_events_come_while_it_runs_and_the_result_after():
    stage = Waiting()
    run = talkgen.iter_sync(PICTURE, task_id="t", pipeline=pipeline(stage))
    stages = []
    for event in run:
        stages.append(event.stage)
        if event.stage == "waiting_running":
            stage.go.set()
    assert stages[0] == "initialized"
    assert stages[-1] == "completed"
    assert run.result().task_id == "t"
    assert [event.stage for event in run] == stages


async def test_it_works_inside_a_loop(anyio_backend):
    stage = Waiting()
    stage.go.set()
    assert talkgen.run_sync(PICTURE, pipeline=pipeline(stage)).success


async def test_the_callers_context_is_the_runs(anyio_backend):
    class Telling(Waiting):
        async def run(self, draft, context):
            seen.append(caller.get())
            return await super().run(draft, context)

    seen, caller = [], ContextVar("caller", default="nobody")
    stage = Telling()
    stage.go.set()
    caller.set("me")
    # Beside it, the caller's event loop, perhaps of another kind, is one of the variables.
    assert talkgen.run_sync(PICTURE, pipeline=pipeline(stage)).success
    assert seen == ["me"]


def test_leaving_the_events_does_not_cancel():
    stage = Waiting()
    run = talkgen.iter_sync(PICTURE, pipeline=pipeline(stage))
    for _ in run:
        break
    stage.go.set()
    assert run.result().success


def test_cancelling():
    stage = Waiting()
    run = talkgen.iter_sync(PICTURE, pipeline=pipeline(stage))
    stage.entered.wait(10)
    run.cancel()
    assert [event.event_type for event in run][-1] == "cancelled"
    with pytest.raises(errors.RunCancelled):
        run.result()
    stage.go.set()


def test_a_mistake_ends_the_events_and_is_raised_with_the_result():
    run = talkgen.iter_sync(PICTURE)
    assert list(run) == []
    with pytest.raises(TypeError, match="requires speech"):
        run.result()


def test_an_error_is_the_result_s():
    run = talkgen.iter_sync(b"no picture", pipeline=pipeline(Waiting()))
    assert [event.event_type for event in run][-1] == "error"
    with pytest.raises(errors.InvalidImage):
        run.result()


@pytest.mark.parametrize(
    "wait",
    [
        lambda **options: talkgen.run_sync(PICTURE, **options),
        lambda **options: talkgen.iter_sync(PICTURE, **options).result(),
        lambda **options: list(talkgen.iter_sync(PICTURE, **options)),
    ],
    ids=["run_sync", "result", "events"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="one thread cannot signal another")
def test_an_interrupt_of_who_waits_cancels(wait):
    stage, main = Waiting(), threading.main_thread().ident

    def interrupt():
        if stage.entered.wait(30):
            signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        wait(pipeline=pipeline(stage))
    assert stage.left.wait(30)
    stage.go.set()


def test_cancelling_while_it_starts(monkeypatch):
    stage = Waiting()

    class Slow(threading.Event):
        def set(self):
            called.set()
            stage.entered.wait(1)  # a thread may stop for as long as it likes, also here
            super().set()

    class Opening(Pipeline):
        async def __aenter__(self):
            await anyio.to_thread.run_sync(called.wait, 30)
            return await super().__aenter__()

    called = threading.Event()
    slow = SimpleNamespace(Condition=threading.Condition, Event=Slow)
    monkeypatch.setattr("talkgen.sync.threading", slow)
    run = talkgen.iter_sync(PICTURE, pipeline=Opening([stage], storage=MemoryStorage()))
    run.cancel()
    with pytest.raises(errors.RunCancelled):
        run.result()
    stage.go.set()


async def test_what_comes_aside_is_behind_its_event_and_never_behind_the_last(anyio_backend):
    class Busy(Waiting):
        async def run(self, draft, context):
            for step in range(5):
                context.report(step / 5, "m")
                context.preview(draft.image)
                await anyio.sleep(0.01)  # lets the preview come
            return draft

    shown = Pipeline([Busy()], storage=MemoryStorage(), previews=True)
    run = talkgen.iter_sync(PICTURE, pipeline=shown)
    slow = iter(run)
    seen = [next(slow)]
    run.result()
    seen += slow
    assert [event.cursor for event in seen] == [f"1-{number}" for number in range(len(seen))]
    assert seen[-1].terminal


def test_previews_come_as_they_are_made_and_are_not_kept():
    seen = threading.Event()

    class Showing(Waiting):
        async def run(self, draft, context):
            context.preview(draft.image)
            await anyio.to_thread.run_sync(seen.wait, 30)
            return draft

    shown = Pipeline([Showing()], storage=MemoryStorage(), previews=True)
    run = talkgen.iter_sync(PICTURE, pipeline=shown)
    kinds = []
    for event in run:
        kinds.append(event.event_type)
        if event.event_type == "preview":
            seen.set()
    assert kinds.count("preview") == 1
    assert [event.event_type for event in run] == [kind for kind in kinds if kind != "preview"]
