"""Runs, their life cycle and their endings, with stages that need no model."""

import asyncio
from datetime import timedelta
from functools import partial

import anyio
import attrs
import pytest
import trio

import talkgen
from talkgen import Image, MemoryStorage, Pipeline, Settings, Speech, runs
from talkgen.draft import TaskState
from talkgen.errors import (
    Degraded,
    InvalidImage,
    InvalidInput,
    OutOfMemory,
    RunCancelled,
    ServiceUnavailable,
    StageFailed,
    TaskBusy,
    TaskConflict,
    TaskNotFound,
)
from talkgen.generators.local import LocalGenerator
from talkgen.pipeline import TICK
from talkgen.progress import History

from .scripted import PICTURE, Step, forever, pipeline, raising


async def test_run_opens_and_closes_by_itself(anyio_backend):
    result = await pipeline(Step("a"), Step("b")).run(PICTURE)
    assert result.success
    assert result.metadata == {"a": True, "b": True}
    assert result.stages_completed == (
        "upload_complete",
        "a_complete",
        "b_complete",
        "completed",
    )
    assert set(result.timings) == {"a", "b"}
    with pytest.raises(talkgen.errors.NotReady, match="No stage"):
        _ = result.video


async def test_start_needs_an_open_pipeline(anyio_backend):
    with pytest.raises(RuntimeError, match="async with Pipeline"):
        pipeline().start(PICTURE)
    async with pipeline() as opened:
        with pytest.raises(RuntimeError, match="open already"):
            await opened.__aenter__()


async def test_events_of_a_run(anyio_backend):
    async with pipeline(Step("a"), Step("b")) as opened:
        run = opened.start(PICTURE)
        told = [(event.stage, event.progress) async for event in run]
        result = await run
    assert told == [
        ("initialized", 0),
        ("upload_complete", 20),
        ("a_running", 20),
        ("a_complete", 55),
        ("b_running", 55),
        ("b_complete", 90),
        ("finalizing", 90),
        ("completed", 100),
    ]
    assert (await opened.status(result.task_id)).event_type == "complete"


async def test_failure_is_this_runs_alone(anyio_backend):
    async with pipeline(Step()) as opened:
        bad, good = opened.start(b"no picture"), opened.start(PICTURE)
        last = [event async for event in bad][-1]
        assert (last.event_type, last.error_type) == ("error", "InvalidImage")
        assert (await good).success
        with pytest.raises(InvalidImage):
            await bad


async def test_strangers_errors_are_wrapped(anyio_backend):
    with pytest.raises(StageFailed, match="stage 'step' raised KeyError") as caught:
        await pipeline(Step(script=raising(KeyError("k")))).run(PICTURE)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.stage == "step"


async def test_those_who_await_a_failed_run_do_not_add_to_its_traceback(anyio_backend):
    async with pipeline(Step(script=raising(KeyError("k")))) as opened:
        run = opened.start(PICTURE)
        depths = []
        for _ in range(3):
            with pytest.raises(StageFailed) as caught:
                await run
            depths.append(len(caught.traceback))
    assert len(set(depths)) == 1


def test_a_callers_mistake_is_refused_when_the_pipeline_is_made(tmp_path):
    with pytest.raises(TypeError, match=r"put Step\(\)"):
        pipeline(Step)
    with pytest.raises(TypeError, match="LocalStorage"):
        Pipeline([Step()], storage=tmp_path)
    with pytest.raises(ValueError, match="'external': must be some of"):
        pipeline(defer="external")


async def test_optional_stage_may_fail_unless_strict(anyio_backend):
    stages = [Step("a", raising(OutOfMemory("no room")), optional=True), Step("b")]
    async with pipeline(*stages) as opened:
        run = opened.start(PICTURE)
        kinds = [event.event_type async for event in run]
        assert kinds.count("degraded") == 1
        assert (await run).metadata == {"b": True}
    with pytest.raises(OutOfMemory):
        await pipeline(*stages, strict=True).run(PICTURE)


async def test_degraded_is_an_error_under_strict(anyio_backend):
    async def lesser(context):
        context.degraded("half as nice", reason="r")

    assert (await pipeline(Step(script=lesser)).run(PICTURE)).success
    with pytest.raises(Degraded, match="half as nice"):
        await pipeline(Step(script=lesser), strict=True).run(PICTURE)


async def test_shortage_is_deferred_when_asked(anyio_backend):
    stages = [Step(script=raising(OutOfMemory("no room")))]
    result = await pipeline(*stages, defer=("resource",)).run(PICTURE)
    assert (result.status, result.success) == (talkgen.draft.TaskState.DEFERRED, False)
    with pytest.raises(talkgen.errors.NotReady, match="deferred"):
        _ = result.video
    with pytest.raises(ValueError, match="tomorrow"):
        pipeline(defer=("tomorrow",))


async def test_cancelled_run_tells_those_who_wait(anyio_backend):
    step = Step(script=forever)
    async with pipeline(step) as opened:
        run = opened.start(PICTURE)
        await step.entered.wait()
        run.cancel()
        assert [event.event_type async for event in run][-1] == "cancelled"
        with pytest.raises(RunCancelled):
            await run
    assert await opened._storage.staged() == ()


async def test_cancelling_who_awaits_does_not_cancel_the_run(anyio_backend):
    gate = anyio.Event()

    async def wait(context):
        await gate.wait()

    step = Step(script=wait)
    async with pipeline(step) as opened:
        run = opened.start(PICTURE)
        await step.entered.wait()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await run
        async for _event in run:
            break
        gate.set()
        assert (await run).success


async def test_cancelling_pipeline_run_cancels_the_run(anyio_backend):
    step = Step(script=forever)
    async with pipeline(step) as opened:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(opened.run, PICTURE)
            await step.entered.wait()
            tasks.cancel_scope.cancel()
        assert opened._session.runs == {}
        assert await opened._storage.staged() == ()


async def test_leaving_by_an_exception_cancels_and_keeps_the_exception(anyio_backend):
    step = Step(script=forever)
    with pytest.raises(KeyError, match="mine"):  # noqa: PT012 - it is raised inside on purpose
        async with pipeline(step) as opened:
            run = opened.start(PICTURE)
            await step.entered.wait()
            raise KeyError("mine")
    with pytest.raises(RunCancelled):
        await run


async def test_leaving_waits_for_runs(anyio_backend):
    async with pipeline(Step()) as opened:
        run = opened.start(PICTURE)
    assert run.done
    assert (await run).success


async def test_same_task_id_joins(anyio_backend):
    step = Step(script=forever)
    async with pipeline(step) as opened:
        run = opened.start(PICTURE, task_id="t")
        assert opened.start(PICTURE, task_id="t") is run
        run.cancel()


@pytest.mark.parametrize(
    ("given", "error"), [(255 - PICTURE, TaskConflict), (b"no picture", InvalidImage)]
)
async def test_who_joins_with_something_else_is_refused_and_harms_nobody(
    anyio_backend, given, error
):
    gate = anyio.Event()

    async def script(context):
        await gate.wait()

    async with pipeline(Step(script=script)) as opened:
        run = opened.start(PICTURE, task_id="t")
        with pytest.raises(error) as raised:
            await opened.run(given, task_id="t")
        assert raised.value.__cause__ is not raised.value
        gate.set()
        same = await opened.run(PICTURE.copy(), task_id="t")
        assert same is await run


async def test_who_joins_what_cannot_be_read_hears_why(anyio_backend):
    async with pipeline(Step()) as opened:
        run = opened.start(b"no picture", task_id="t")
        with pytest.raises(InvalidImage):
            await opened.run(PICTURE, task_id="t")
        with pytest.raises(InvalidImage):
            await run


async def test_map_yields_each_key_once(anyio_backend):
    pictures = {"a": PICTURE, "bad": b"no picture", "c": PICTURE}
    async with pipeline(Step()) as opened, opened.map(pictures, limit=2) as results:
        outcomes = {key: outcome async for key, outcome in results}
    assert set(outcomes) == set(pictures)
    assert isinstance(outcomes["bad"], InvalidImage)
    async with pipeline(Step()).map([(PICTURE, None)] * 5, limit=2) as results:
        assert sorted([key async for key, _ in results]) == [0, 1, 2, 3, 4]


async def test_leaving_map_cancels_the_rest(anyio_backend):
    step = Step(script=forever)
    async with pipeline(step) as opened:
        with pytest.raises(KeyError):  # noqa: PT012 - as above
            async with opened.map([PICTURE] * 3):
                await step.entered.wait()
                raise KeyError
        assert opened._session.runs == {}


async def test_speech_is_asked_for_at_once(anyio_backend):
    with pytest.raises(TypeError, match="'s' requires speech"):
        await pipeline(Step("s", requires=frozenset({"speech"}))).run(PICTURE)


async def test_forget_leaves_nothing(anyio_backend):
    opened = pipeline(Step())
    result = await opened.run(PICTURE)
    assert [info async for info in opened._storage.list(task_id=result.task_id)]
    await opened.forget(result.task_id)
    assert [info async for info in opened._storage.list(task_id=result.task_id)] == []
    with pytest.raises(TaskNotFound):
        await opened.status(result.task_id)


async def test_decoded_image_is_taken_as_it_is(anyio_backend):
    image = Image.open(PICTURE)
    assert (await pipeline(Step()).run(image)).draft.image is image


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_open_serves_until_aclose(anyio_backend):
    opened = await Pipeline.open([Step()], storage=MemoryStorage())
    run = opened.start(PICTURE)
    await opened.aclose()
    assert (await run).success
    with pytest.raises(RuntimeError, match="async with"):
        opened.start(PICTURE)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_cannot_be_opened_says_so(anyio_backend):
    with anyio.fail_after(30), pytest.raises(ValueError, match="D-ID API key"):
        await Pipeline.open(settings=Settings(d_id_api_key="a slip"))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_does_not_wait_for_it_to_open_leaves_nothing_open(anyio_backend):
    before = asyncio.all_tasks()
    with anyio.move_on_after(0) as left:
        await Pipeline.open([Step()])
    assert left.cancelled_caught
    if hosts := asyncio.all_tasks() - before:
        await asyncio.wait(hosts, timeout=30)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_open_is_for_asyncio(anyio_backend):
    with pytest.raises(RuntimeError, match="asyncio"):
        await Pipeline.open([Step()])


async def test_a_failing_journal_ends_the_run_and_nothing_else(anyio_backend):
    class Broken(talkgen.MemoryJournal):
        async def get(self, task_id):
            raise OSError("the disk is gone")

    failing = Step(script=raising(KeyError("k")))
    async with pipeline(failing, journal=Broken()) as opened:
        run = opened.start(PICTURE)
        with pytest.raises(StageFailed, match="disk is gone"):
            await run
        assert run.history.ended


async def test_what_is_published_has_succeeded_whatever_the_journal_says(anyio_backend):
    class Attempt:
        def __init__(self, attempt):
            self._attempt = attempt

        def __getattr__(self, name):
            return getattr(self._attempt, name)

        async def finish(self, state, summary):
            if state is TaskState.COMPLETED:
                raise OSError("the disk is gone")
            await self._attempt.finish(state, summary)

    class Forgetful(talkgen.MemoryJournal):
        async def begin(self, task):
            return Attempt(await super().begin(task))

    opened = pipeline(Step(), journal=Forgetful())
    assert (await opened.run(PICTURE, task_id="t")).success
    assert [info async for info in opened._storage.list(task_id="t")]


def test_no_silence_is_longer_than_promised():
    late = 0.5  # seconds by which a busy loop may look too late
    assert runs.SILENCE + TICK + late <= 5.0


async def test_a_silent_stage_repeats_its_last_word(anyio_backend):
    step = Step(script=forever)
    async with pipeline(step) as opened:
        run = opened.start(PICTURE)
        await step.entered.wait()
        told = len(run.history.events)
        run.keep_alive()
        assert len(run.history.events) == told
        late = run.history.clock() + timedelta(seconds=4)
        run.history.clock = lambda: late
        run.keep_alive()
        last = run.history.events[-1]
        assert (last.event_type, last.message) == ("progress_update", "Step is running.")
        run.cancel()
        await run.wait_ended()
        run.keep_alive()
        assert run.history.events[-1].event_type == "cancelled"


async def test_reports_are_thinned_at_the_source(anyio_backend):
    async def chatty(context):
        for i in range(1000):
            context.report(i / 1000, "at it")
        context.preview(Image.open(PICTURE))

    async with pipeline(Step(script=chatty)) as opened:
        run = opened.start(PICTURE)
        await run
    told = [event for event in run.history.events if event.message == "at it"]
    assert len(told) <= 71
    assert repr(run).startswith(f"<Run {run.task_id}: 100 % Completed")


@attrs.define(eq=False)
class Mirror(Step):
    """A stage that makes another portrait."""

    async def run(self, draft, context):
        for _ in range(1000):
            context.preview(draft.image)
        portrait = Image(draft.portrait.pixels[:, ::-1])
        return attrs.evolve(await Step.run(self, draft, context), portrait=portrait)


@pytest.mark.parametrize("previews", [True, False])
async def test_previews_are_told_when_asked_for(anyio_backend, monkeypatch, previews):
    shown = []
    monkeypatch.setattr(History, "show", lambda _, image: shown.append(image))
    result = await pipeline(Mirror(), Step("s"), previews=previews).run(PICTURE)
    draft = result.draft
    assert shown == ([draft.image, draft.portrait] if previews else [])


@pytest.mark.integration
async def test_previews_show_the_portrait_and_then_the_video(
    anyio_backend, portrait_path, speech_path
):
    stages = [
        talkgen.DetectPersons(),
        talkgen.RemoveBackground(),
        talkgen.GenerateVideo(LocalGenerator(size=64)),
    ]
    sound = Speech.open(speech_path)
    speech = Speech(sound.samples[:, : 2 * sound.sample_rate], sound.sample_rate)
    async with Pipeline(stages, storage=MemoryStorage(), previews=True) as opened:
        run = opened.start(portrait_path, speech)
        shown = [event async for event in run if event.event_type == "preview"]
        result = await run
    kinds = {preview.stage: preview.image for preview in shown}
    assert kinds["background_removal_complete"] is result.draft.portrait
    assert max(kinds["render_running"].width, kinds["render_running"].height) == 64
    assert not [event for event in run.history.events if event.event_type == "preview"]


async def test_a_task_id_that_could_leave_its_folder_is_refused_at_once(anyio_backend):
    with pytest.raises(talkgen.errors.InvalidName):
        await pipeline(Step()).run(PICTURE, task_id="../up")


async def test_what_a_dead_attempt_left_is_not_published(anyio_backend, tmp_path):
    storage = talkgen.LocalStorage(tmp_path)
    left = await storage.open("t")
    await left.put("processed", "stale.bin", b"stale")
    await left.close()
    await Pipeline([Step()], storage=storage).run(PICTURE, task_id="t")
    names = {info.file.name async for info in storage.list(task_id="t")}
    assert "t_original.png" in names
    assert "t_stale.bin" not in names


async def test_a_callers_mistake_in_map_is_raised_bare(anyio_backend):
    step = Step("s", requires=frozenset({"speech"}))
    with pytest.raises(TypeError, match="'s' requires speech"):  # noqa: PT012 - while iterating
        async with pipeline(step).map([PICTURE]) as results:
            async for _outcome in results:
                pass


# --- what stages may do that they should not -----------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancelled_future_that_a_stage_awaits_ends_its_run_alone(anyio_backend):
    gate = anyio.Event()

    async def script(context):
        if context.task_id == "bad":
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        await gate.wait()

    async with pipeline(Step(script=script)) as opened:
        good, bad = (opened.start(PICTURE, task_id=name) for name in ("good", "bad"))
        with pytest.raises(StageFailed, match="something that it awaited was cancelled"):
            await bad
        gate.set()
        assert (await good).success
        assert await opened._storage.staged() == ()


def test_a_loop_that_ends_cancels_what_runs_in_it():
    async def leave():
        step = Step(script=forever)
        opened = await Pipeline.open([step], storage=MemoryStorage())
        run = opened.start(PICTURE)
        await step.entered.wait()
        return run

    assert asyncio.run(leave()).history.latest.event_type == "cancelled"


@pytest.mark.parametrize("failing", [True, False])
async def test_a_stage_whose_tasks_are_cancelled_leaves_nothing(anyio_backend, failing):
    waiting = anyio.Event()

    async def child():
        try:
            waiting.set()
            await anyio.sleep_forever()
        finally:
            if failing:
                raise ValueError("on leaving")

    async def script(context):
        if anyio_backend == "trio":  # whose own groups do not take cancellations out
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
                nursery.start_soon(trio.sleep_forever)
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child)

    async with pipeline(Step(script=script)) as opened:
        run = opened.start(PICTURE, task_id="t")
        await waiting.wait()
        run.cancel()
        with pytest.raises(StageFailed if failing else RunCancelled):
            await run
        assert await opened._storage.staged() == ()
        state = (await opened._journal.get("t")).state
    assert state is (TaskState.FAILED if failing else TaskState.CANCELLED)


async def test_an_error_alone_in_a_task_group_is_that_error(anyio_backend):
    async def script(context):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(raising(ServiceUnavailable("down")), context)

    assert (await pipeline(Step(script=script)).run(PICTURE)).status is TaskState.DEFERRED


@pytest.mark.parametrize("given", [None, 3])
async def test_what_is_no_draft_is_refused_by_name(anyio_backend, given):
    class Forgetful(Step):
        async def run(self, draft, context):
            return given

    with pytest.raises(StageFailed, match=f"'step' gave back {type(given).__name__}") as caught:
        await pipeline(Forgetful()).run(PICTURE)
    assert "attrs.evolve" in caught.value.hint


@pytest.mark.parametrize("field", ["image", "portrait", "speech", "video"])
async def test_a_field_of_another_kind_is_refused_by_name(anyio_backend, field):
    class Raw(Step):
        async def run(self, draft, context):
            return attrs.evolve(draft, **{field: PICTURE})

    with pytest.raises(StageFailed, match=f"'step' made ndarray of the draft's {field}"):
        await pipeline(Raw()).run(PICTURE)


async def test_a_refusal_of_a_check_is_about_the_inputs(anyio_backend):
    class Picky(Step):
        def check(self, draft, context):
            raise ValueError("The recording is longer than a minute.")

    with pytest.raises(InvalidInput, match="longer than a minute") as caught:
        await pipeline(Picky()).run(PICTURE)
    assert isinstance(caught.value.__cause__, ValueError)


# --- several at a time ---------------------------------------------------------------------------


async def test_runs_of_a_pipeline_that_is_not_open_share_its_journal(anyio_backend, tmp_path):
    gate = anyio.Event()

    async def script(context):
        if context.task_id == "slow":
            await gate.wait()

    step = Step(script=script)
    lone = Pipeline([step], storage=talkgen.LocalStorage(tmp_path))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(lone.run, PICTURE, task_id="slow"))
        await step.entered.wait()
        await lone.run(PICTURE, task_id="quick")
        gate.set()
    assert (await lone.status("slow")).event_type == "complete"


@pytest.mark.parametrize("started", [True, False])
async def test_cancelling_one_who_joined_harms_nobody_else(anyio_backend, started):
    gate = anyio.Event()

    async def script(context):
        await gate.wait()

    step = Step(script=script)
    results = []
    async with pipeline(step) as opened, anyio.create_task_group() as tasks:

        async def first():
            wait = opened.start if started else opened.run
            results.append(await wait(PICTURE, task_id="t"))

        tasks.start_soon(first)
        await step.entered.wait()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await opened.run(PICTURE, task_id="t")
        gate.set()
    assert results[0].success


async def test_leaving_waits_for_what_is_started_meanwhile(anyio_backend):
    gate = anyio.Event()
    later = []

    async def script(context):
        if context.task_id == "first":
            later.append(opened.start(PICTURE, task_id="second"))
        await gate.wait()

    step = Step(script=script)
    opened = pipeline(step)
    async with anyio.create_task_group() as tasks:

        async def whole():
            async with opened:
                opened.start(PICTURE, task_id="first")

        tasks.start_soon(whole)
        await step.entered.wait()
        gate.set()
    assert (await later[0]).success


async def test_nothing_is_started_in_a_pipeline_that_is_cancelled(anyio_backend):
    with pytest.raises(KeyError):  # noqa: PT012 - as above
        async with pipeline(Step()) as opened:
            opened._session.tasks.cancel_scope.cancel()
            with pytest.raises(RuntimeError, match="open pipeline"):
                opened.start(PICTURE)
            with pytest.raises(RuntimeError, match="open pipeline"):
                await opened.recover()
            raise KeyError


async def test_forgetting_what_is_just_begun_is_refused(anyio_backend):
    async with pipeline(Step()) as opened:
        run = opened.start(PICTURE, task_id="t")
        with pytest.raises(TaskBusy):
            await opened.forget("t")
        assert (await run).success


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_opening_can_be_cancelled(anyio_backend):
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Pipeline.open([Step()], storage=MemoryStorage())
    await anyio.wait_all_tasks_blocked()
    left = {task.get_name() for task in asyncio.all_tasks()}
    assert "talkgen pipeline" not in left


async def test_map_takes_no_more_than_are_wanted(anyio_backend):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield PICTURE

    async with pipeline(Step()).map(endless(), limit=2) as results:
        async for _outcome in results:
            await anyio.wait_all_tasks_blocked()
            break
    # Two are under way or wait to be taken beside the one that was, and the next is at hand.
    assert len(taken) <= 4


async def test_map_needs_room_for_one(anyio_backend):
    with pytest.raises(ValueError, match="limit=0"):
        async with pipeline(Step()).map([PICTURE], limit=0):
            pass


async def test_map_takes_pairs(anyio_backend):
    with pytest.raises(TypeError, match="0 has 3 parts"):  # noqa: PT012 - while iterating
        async with pipeline(Step()).map([(PICTURE, None, "t")]) as results:
            async for _outcome in results:
                pass


async def test_map_goes_on_where_it_was_broken_off(anyio_backend):
    names = []

    async def script(context):
        names.append(context.task_id)

    opened = pipeline(Step(script=script))
    for _ in range(2):
        async with opened.map({"a": PICTURE, "b": PICTURE}, task_id="batch.{}".format) as results:
            outcomes = {key: outcome.task_id async for key, outcome in results}
        assert outcomes == {"a": "batch.a", "b": "batch.b"}
    assert sorted(names) == ["batch.a", "batch.b"]


async def test_closing_the_stream_of_a_map_cancels_the_rest_and_nothing_else(anyio_backend):
    async with pipeline(Step()) as opened:
        async with opened.map([PICTURE] * 10, limit=4) as results:
            async with results:
                await results.receive()
            with anyio.fail_after(10):
                while opened._session.runs:  # noqa: ASYNC110 - nobody tells
                    await anyio.sleep(0.01)
        assert (await opened.run(PICTURE)).success


async def test_a_storage_that_is_false_while_it_is_empty_is_used(anyio_backend):
    class Mapping(MemoryStorage):
        def __len__(self):
            return 0

    storage = Mapping()
    await Pipeline([Step()], storage=storage).run(PICTURE, task_id="t")
    assert [info.file.task_id async for info in storage.list()]
