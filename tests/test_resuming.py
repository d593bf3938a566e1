"""Going on with a task: by its id, by recovery, in this process and in the next."""

import errno
import logging
import os
from datetime import UTC, datetime, timedelta

import anyio
import attrs
import numpy as np
import pytest

from talkgen import (
    GenerateVideo,
    Image,
    LocalStorage,
    MemoryJournal,
    MemoryStorage,
    Pipeline,
    ProgressTracker,
    Settings,
    Speech,
    SQLiteJournal,
    Text,
)
from talkgen.draft import TaskState
from talkgen.errors import (
    FileMissing,
    InsufficientStorage,
    OutOfMemory,
    RunCancelled,
    StageFailed,
    StorageError,
    TalkgenError,
    TaskBusy,
    TaskConflict,
    TaskNotFound,
)
from talkgen.protocols import TaskSpec
from talkgen.recovery import Recovery
from talkgen.storage.filesystem import FileSystem
from talkgen.testing import FakePaidGenerator, PaidServer

PICTURE = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
SPEECH = Speech(np.full((1, 800), 0.3, np.float32), 16_000)


class Outage(TalkgenError):
    outage = True


@attrs.define(eq=False)
class Step:
    """A stage that changes the portrait, notes that it ran, and may fail.

    Attributes:
        trouble: What it raises instead, as long as it is set.
    """

    name: str
    ran: list
    trouble: Exception | None = None
    optional: bool = False
    key: str = attrs.field(default=attrs.Factory(lambda self: self.name, takes_self=True))
    gate: anyio.Event | None = None
    weight = 1.0
    requires = provides = resets = frozenset()

    async def run(self, draft, context):
        self.ran.append(self.name)
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        portrait = Image(draft.portrait.pixels ^ 0xFF)
        return attrs.evolve(
            draft, portrait=portrait, metadata={**draft.metadata, self.name: context.attempt}
        )


@attrs.define(eq=False)
class Speak(Step):
    """A stage of one's own that turns text into sound."""

    async def run(self, draft, context):
        draft = await Step.run(self, draft, context)
        assert draft.speech == Text("Hello", "anna")
        return attrs.evolve(draft, speech=SPEECH)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def opened(tmp_path):
    """A pipeline on the same folder, as the next process would make it."""

    def make(*stages, **options):
        return Pipeline(stages, storage=LocalStorage(tmp_path, min_free_bytes=0), **options)

    return make


@pytest.fixture
def deferred(opened, ran):
    """Two stages, of which the second waits for an outside service; the task is `t`."""

    async def defer(*stages, speech=SPEECH):
        stages = stages or (Step("a", ran), Step("b", ran, Outage("down")))
        result = await opened(*stages).run(PICTURE, speech, task_id="t")
        assert result.status is TaskState.DEFERRED
        ran.clear()

    return defer


async def events_of(run):
    return [event async for event in run]


async def test_a_deferred_task_is_taken_up_by_its_id(anyio_backend, opened, deferred, ran):
    await deferred()
    async with opened(Step("a", ran), Step("b", ran)) as pipeline:
        run = pipeline.start(PICTURE, SPEECH, task_id="t")
        told = await events_of(run)
        result = await run
    assert ran == ["b"]
    assert result.metadata == {"a": 1, "b": 2}
    assert (result.draft.portrait.pixels == PICTURE).all()
    assert [(e.cursor, e.stage, e.progress) for e in told if e.metadata.get("restored")] == [
        ("2-2", "a_complete", 55)
    ]
    assert [event.sequence for event in told] == list(range(len(told)))
    assert result.stages_completed == ("upload_complete", "a_complete", "b_complete", "completed")
    assert set(result.timings) == {"a", "b"}


async def test_recovery_needs_no_inputs(anyio_backend, opened, deferred, ran):
    await deferred()
    async with opened(Step("a", ran), Step("b", ran)) as pipeline:
        recovery = await pipeline.recover()
        (run,) = recovery.runs
        told = await events_of(run)
        result = await run
        assert (await pipeline.recover()).runs == ()
    assert (recovery.discarded, recovery.skipped) == ((), {})
    assert ran == ["b"]
    assert {event.attempt for event in told} == {2}
    assert result.draft.speech.samples.tobytes() == SPEECH.samples.tobytes()
    assert result.draft.image.pixels.tobytes() == PICTURE.tobytes()


async def test_text_is_journaled_and_what_a_stage_makes_of_it_staged(
    anyio_backend, opened, deferred, ran
):
    await deferred(Step("a", ran, Outage("down")), Speak("b", ran), speech=Text("Hello", "anna"))
    stages = [Step("a", ran), Speak("b", ran), Step("c", ran, Outage("down"))]
    async with opened(*stages[:2]) as pipeline:
        (run,) = (await pipeline.recover()).runs
        assert (await run).draft.speech is SPEECH
    await opened(*stages).run(PICTURE, Text("Hello", "anna"), task_id="u")
    ran.clear()
    stages[2].trouble = None
    async with opened(*stages) as pipeline:
        (run,) = (await pipeline.recover()).runs
        assert (await run).draft.speech.samples.tobytes() == SPEECH.samples.tobytes()
    assert ran == ["c"]


async def test_a_completed_task_is_not_run_again(anyio_backend, opened, ran):
    first = await opened(Step("a", ran)).run(PICTURE, task_id="t")
    async with opened(Step("a", ran)) as pipeline:
        run = pipeline.start(PICTURE, task_id="t")
        told = await events_of(run)
        result = await run
    assert ran == ["a"]
    assert result.to_dict() == first.to_dict()
    assert (result.draft.portrait.pixels == first.draft.portrait.pixels).all()
    assert [(event.event_type, event.attempt) for event in told][-1] == ("complete", 1)


async def test_other_work_under_the_same_id_is_a_conflict(anyio_backend, opened, ran):
    await opened(Step("a", ran)).run(PICTURE, task_id="t")
    with pytest.raises(TaskConflict, match="other inputs"):
        await opened(Step("a", ran)).run(PICTURE[::-1], task_id="t")
    with pytest.raises(TaskConflict, match="other stages"):
        await opened(Step("b", ran)).run(PICTURE, task_id="t")


async def test_a_stored_video_can_be_read(anyio_backend, opened):
    with PaidServer() as server:
        stage = GenerateVideo(FakePaidGenerator(server.url))
        await opened(stage).run(PICTURE, SPEECH, task_id="t")
        result = await opened(stage).run(PICTURE, SPEECH, task_id="t")
        assert await result.video.aread() == server.video(server.ledger[0])
        assert result.video_url.endswith("videos/t_final.mp4")
        assert len(server.ledger) == 1


async def test_what_has_expired_is_left_out_of_a_stored_result(anyio_backend, opened):
    with PaidServer() as server:
        pipeline = opened(GenerateVideo(FakePaidGenerator(server.url)))
        await pipeline.run(PICTURE, SPEECH, task_id="t")
        storage = pipeline._storage
        await storage.cleanup(datetime.now(UTC) + timedelta(days=8))
        result = await pipeline.run(PICTURE, SPEECH, task_id="t")
        assert (result.draft.image, result.draft.speech) == (None, None)
        assert await result.video.aread() == server.video(server.ledger[0])
        await storage.cleanup(datetime.now(UTC) + timedelta(days=31))
        pipeline._tracker.forget("t")
        assert (await pipeline.status("t")).state is TaskState.EXPIRED
        again = await pipeline.run(PICTURE, SPEECH, task_id="t")
        assert await again.video.aread() == server.video(server.ledger[1])


async def test_a_failed_task_begins_anew(anyio_backend, opened, ran):
    stages = Step("a", ran), Step("b", ran, KeyError("bug"))
    with pytest.raises(StageFailed):
        await opened(*stages).run(PICTURE, task_id="t")
    stages[1].trouble = None
    async with opened(*stages) as pipeline:
        run = pipeline.start(PICTURE, task_id="t")
        assert {event.attempt for event in await events_of(run)} == {2}
        assert (await run).metadata == {"a": 2, "b": 2}
    assert ran == ["a", "b", "a", "b"]


async def test_a_cancelled_task_begins_anew(anyio_backend, opened, ran):
    step = Step("a", ran, gate=anyio.Event())
    async with opened(step) as pipeline:
        run = pipeline.start(PICTURE, task_id="t")
        await wait_until(lambda: ran)
        run.cancel()
        with pytest.raises(RunCancelled):
            await run
        pipeline._tracker.forget("t")
        assert (await pipeline.status("t")).state is TaskState.CANCELLED
        step.gate.set()
        assert (await pipeline.run(PICTURE, task_id="t")).metadata == {"a": 2}


async def wait_until(condition):
    with anyio.fail_after(20):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_cancelling_at_once_leaves_nothing_of_the_attempt_before(
    anyio_backend, opened, deferred, ran
):
    await deferred()
    async with opened(Step("a", ran), Step("b", ran)) as pipeline:
        (run,) = (await pipeline.recover()).runs
        run.cancel()
        with pytest.raises(RunCancelled):
            await run
        assert await pipeline._storage.staged() == ()
        assert (await pipeline._journal.get("t")).state is TaskState.CANCELLED
    assert ran == []


class Stuck(FileSystem):
    """A disk on which nothing goes into the trash."""

    def replace(self, source, target):
        if target.parent.name == ".trash":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().replace(source, target)


async def test_what_was_cancelled_is_not_gone_on_with_although_the_disk_kept_it(
    anyio_backend, tmp_path, opened, ran
):
    step = Step("a", ran, gate=anyio.Event())
    stuck = LocalStorage(tmp_path, min_free_bytes=0, disk=Stuck())
    async with Pipeline([step], storage=stuck) as pipeline:
        run = pipeline.start(PICTURE, task_id="t")
        await wait_until(lambda: ran)
        run.cancel()
        with pytest.raises(StorageError, match="Could not discard"):
            await run
    step.gate.set()
    async with opened(step) as pipeline:
        recovery = await pipeline.recover()
        assert (recovery.runs, recovery.discarded) == ((), ("t",))
        assert await pipeline._storage.staged() == ()
        assert (await pipeline._journal.get("t")).state is not TaskState.COMPLETED
    assert ran == ["a"]


async def test_a_task_that_runs_elsewhere_is_busy(anyio_backend, opened, ran):
    step = Step("a", ran, gate=anyio.Event())
    async with opened(step) as here, opened(Step("a", ran)) as elsewhere:
        run = here.start(PICTURE, task_id="t")
        await wait_until(lambda: ran)
        assert here.start(PICTURE, task_id="t") is run
        with pytest.raises(TaskBusy):
            await elsewhere.run(PICTURE, task_id="t")
        with pytest.raises(TaskBusy):
            await elsewhere.forget("t")
        assert (await elsewhere.recover()).skipped == {"t": "somebody works on it"}
        step.gate.set()
        assert (await run).success


async def test_an_attempt_that_is_refused_is_not_the_tasks_latest(anyio_backend, opened, ran):
    step, tracker = Step("a", ran, gate=anyio.Event()), ProgressTracker()
    async with (
        opened(step, tracker=tracker) as here,
        opened(Step("b", ran), tracker=tracker) as elsewhere,
    ):
        run = here.start(PICTURE, task_id="t")
        await wait_until(lambda: ran)
        refused = elsewhere.start(PICTURE, task_id="t")
        assert (await events_of(refused))[-1].error_type == "TaskConflict"
        assert tracker.latest("t") is run.history.latest
        step.gate.set()
        assert (await events_of(tracker.subscribe("t"))) == run.history.events
    again = opened(step, tracker=tracker)
    assert (await again.run(PICTURE, task_id="t")).success
    assert tracker.latest("t") is not run.history.latest


async def test_a_task_of_other_stages_is_left_alone(anyio_backend, opened, deferred, ran):
    await deferred()
    async with opened(Step("a", ran)) as pipeline:
        recovery = await pipeline.recover()
        assert (recovery.runs, recovery.discarded) == ((), ())
        assert recovery.skipped == {"t": "it was begun by other stages: a, b"}
        assert await pipeline._storage.staged() == ("t",)


async def test_recovery_of_some_tasks_only(anyio_backend, opened, deferred, ran):
    await deferred()
    async with opened(Step("a", ran), Step("b", ran)) as pipeline:
        assert (await pipeline.recover([])).runs == ()
        (run,) = (await pipeline.recover(["t", "unknown"])).runs
        assert (await run).success


async def test_recovery_wants_ids_not_one(anyio_backend, opened, deferred, ran):
    await deferred()
    async with opened(Step("a", ran), Step("b", ran)) as pipeline:
        with pytest.raises(TypeError, match=r"\['tt'\]"):
            await pipeline.recover("tt")


async def test_recovery_leaves_alone_what_has_just_been_started(
    anyio_backend, opened, deferred, ran
):
    await deferred()
    async with opened(Step("a", ran), Step("b", ran)) as pipeline:
        run = pipeline.start(PICTURE, SPEECH, task_id="t")
        recovery = await pipeline.recover()
        assert (recovery.runs, recovery.skipped) == ((), {"t": "it runs in this pipeline"})
        assert (await run).success


async def test_recovery_discards_nothing_of_another_pipeline_on_the_same_memory(anyio_backend, ran):
    storage, gate = MemoryStorage(), anyio.Event()
    step = Step("a", ran, gate=gate)
    one, other = (Pipeline([step], storage=storage) for _ in range(2))
    async with one, other:
        run = one.start(PICTURE, task_id="t")
        async for event in run:
            if event.stage == "a_running":
                break
        assert await other.recover() == Recovery((), (), {})
        gate.set()
        await run
    assert [info async for info in storage.list("uploads", "t")]


async def test_recovery_needs_an_open_pipeline(anyio_backend, opened):
    with pytest.raises(RuntimeError, match="open pipeline"):
        await opened().recover()


async def test_what_nobody_knows_is_discarded(anyio_backend, opened, ran):
    async with opened(Step("a", ran)) as pipeline:
        left = await pipeline._storage.open("stranger")
        await left.put("processed", "a.bin", b"a")
        assert (await pipeline.recover(["t"])).discarded == ()
        assert (await pipeline.recover()).discarded == ("stranger",)
        assert await pipeline._storage.staged() == ()
        assert await pipeline._journal.get("stranger") is None


async def test_a_journal_in_memory_judges_nobody_elses_files(anyio_backend, opened, ran):
    async with opened(Step("a", ran), journal=MemoryJournal()) as pipeline:
        left = await pipeline._storage.open("stranger")
        await left.put("processed", "a.bin", b"a")
        assert (await pipeline.recover()).discarded == ()
        assert await pipeline._storage.staged() == ("stranger",)


async def test_what_cannot_be_discarded_keeps_nothing_else_from_going_on(
    anyio_backend, opened, deferred, ran, tmp_path
):
    await deferred()
    plan = tmp_path / ".staging" / "stranger" / "metadata.json"
    plan.parent.mkdir()
    plan.write_text("damaged")
    async with opened(Step("a", ran), Step("b", ran)) as pipeline:
        for _ in range(2):
            recovery = await pipeline.recover()
            assert "it cannot be discarded: The manifest" in recovery.skipped["stranger"]
            for run in recovery.runs:
                assert (await run).success
        assert ran == ["b"]
        plan.unlink()
        assert (await pipeline.recover()).discarded == ("stranger",)
        assert await pipeline._storage.staged() == ()
        assert await pipeline._journal.get("stranger") is None


async def test_a_discarded_task_is_finished_although_the_recovery_is_cancelled(
    anyio_backend, opened, ran, tmp_path, monkeypatch
):
    dead = SQLiteJournal(tmp_path / "journal.db")
    await dead.begin(TaskSpec("t", {}, ("a",)))
    await dead.aclose()
    async with opened(Step("a", ran)) as pipeline:
        open_files = pipeline._storage.open
        with anyio.CancelScope() as scope:

            async def open_cancelled(task_id):
                scope.cancel()
                return await open_files(task_id)

            monkeypatch.setattr(pipeline._storage, "open", open_cancelled)
            await pipeline.recover()
        assert (await pipeline.status("t")).state is TaskState.FAILED


async def test_what_was_broken_off_at_once_is_discarded(anyio_backend, opened, ran, tmp_path):
    dead = SQLiteJournal(tmp_path / "journal.db")
    await dead.begin(TaskSpec("t", {}, ("a",)))
    await dead.aclose()
    async with opened(Step("a", ran)) as pipeline:
        left = await pipeline._storage.open("t")
        await left.put("uploads", "original.png", b"a")
        assert (await pipeline.recover()).discarded == ("t",)
        assert await pipeline._storage.staged() == ()
        assert (await pipeline.status("t")).state is TaskState.FAILED


async def test_failed_leftovers_are_discarded(anyio_backend, opened, ran):
    async with opened(Step("a", ran, KeyError("bug"))) as pipeline:
        with pytest.raises(StageFailed):
            await pipeline.run(PICTURE, task_id="t")
        left = await pipeline._storage.open("t")
        await left.put("processed", "a.bin", b"a")
        assert (await pipeline.recover()).discarded == ("t",)
        assert await pipeline._storage.staged() == ()


class Slow(SQLiteJournal):
    """Somebody else does something just after a record was read."""

    meanwhile = None

    async def get(self, task_id):
        record = await super().get(task_id)
        then, self.meanwhile = self.meanwhile, None
        if then is not None:
            await then()
        return record


async def test_what_somebody_begins_while_leftovers_are_looked_at_is_not_discarded(
    anyio_backend, opened, tmp_path
):
    spec = TaskSpec("t", {"image": "0" * 64}, ("a",))
    other, journal = SQLiteJournal(tmp_path / "journal.db"), Slow(tmp_path / "journal.db")
    await (await other.begin(spec)).finish(TaskState.FAILED, None)
    async with opened(journal=journal) as pipeline:
        await (await pipeline._storage.open("t")).put("temp", "a.bin", b"left over")

        async def pay():
            attempt = await other.begin(spec)
            await attempt.intend("talk")
            await attempt.finish(TaskState.DEFERRED, None)

        journal.meanwhile = pay
        recovery = await pipeline.recover()
        assert (recovery.discarded, recovery.skipped) == ((), {"t": "somebody works on it"})
        assert await pipeline._storage.staged() == ("t",)
        assert "talk" in (await other.get("t")).operations
    await journal.aclose()
    await other.aclose()


async def test_what_an_attempt_left_half_done_is_removed(anyio_backend, opened, deferred, ran):
    await deferred()
    pipeline = opened(Step("a", ran), Step("b", ran))
    left = await pipeline._storage.open("t")
    await left.put("processed", "stale.bin", b"stale")
    await left.close()
    await pipeline.run(PICTURE, SPEECH, task_id="t")
    names = {info.file.name async for info in pipeline._storage.list(task_id="t")}
    assert "t_original.png" in names
    assert "t_stale.bin" not in names


async def test_a_stage_whose_files_are_lost_runs_again(
    anyio_backend, opened, deferred, ran, tmp_path, caplog
):
    await deferred()
    (tmp_path / ".staging" / "t" / "temp~t_1-portrait.png").unlink()
    async with opened(Step("a", ran), Step("b", ran)) as pipeline:
        (run,) = (await pipeline.recover()).runs
        assert (await run).metadata == {"a": 2, "b": 2}
    assert "a stage is run again" in caplog.text


async def test_lost_inputs_are_told(anyio_backend, opened, deferred, ran, tmp_path):
    await deferred()
    for path in (tmp_path / ".staging" / "t").iterdir():
        path.unlink()
    async with opened(Step("a", ran), Step("b", ran)) as pipeline:
        (run,) = (await pipeline.recover()).runs
        with pytest.raises(FileMissing, match="inputs of task t are gone") as e:
            await run
        assert "Run it again" in e.value.hint
        assert (await pipeline.run(PICTURE, SPEECH, task_id="t")).success


async def test_a_stage_that_was_left_out_stays_so(anyio_backend, opened, deferred, ran):
    left_out = Step("a", ran, OutOfMemory("no room"), optional=True)
    await deferred(left_out, Step("b", ran, Outage("down")))
    left_out.trouble = None
    async with opened(left_out, Step("b", ran)) as pipeline:
        (run,) = (await pipeline.recover()).runs
        told = await events_of(run)
        assert (await run).metadata == {"b": 2}
    assert ran == ["b"]
    (degraded,) = [event for event in told if event.event_type == "degraded"]
    assert degraded.metadata == {"restored": True}
    assert "was left out: no room" in degraded.message


async def test_publishing_is_rolled_forward(anyio_backend, opened, ran, monkeypatch):
    """The process dies between the journal's `publishing` and the first file in its place."""

    class Death(BaseException):
        pass

    async def die(self, result=None):
        raise Death

    pipeline = opened(Step("a", ran))
    transaction = type(await pipeline._storage.open("t"))
    with monkeypatch.context() as patch:
        patch.setattr(transaction, "publish", die)
        with pytest.raises(BaseException):  # noqa: B017 - the loops wrap it, each in its own way
            await pipeline.run(PICTURE, task_id="t")
    async with opened(Step("other", ran)) as other:
        (run,) = (await other.recover()).runs
        run.cancel()  # too late
        told = await events_of(run)
        result = await run
        assert (await other._journal.get("t")).state is TaskState.COMPLETED
    assert ran == ["a"]
    assert result.metadata == {"a": 1}
    assert told[-1].event_type == "complete"


# --- what is paid for --------------------------------------------------------------------------


async def test_cancelling_what_is_paid_for_keeps_it(anyio_backend, opened):
    with PaidServer(polls=10_000) as server:
        stage = GenerateVideo(FakePaidGenerator(server.url))
        async with opened(stage) as pipeline:
            run = pipeline.start(PICTURE, SPEECH, task_id="t")
            await wait_until(server.asked.is_set)
            run.cancel()
            last = (await events_of(run))[-1]
            assert (last.event_type, last.recoverable) == ("cancelled", True)
            with pytest.raises(RunCancelled) as e:
                await run
            assert "recover()" in e.value.hint
        server.polls = 0
        async with opened(stage) as pipeline:
            (run,) = (await pipeline.recover()).runs
            assert await (await run).video.aread() == server.video(server.ledger[0])
        assert len(server.ledger) == 1


async def test_what_is_collected_is_kept_until_it_is_published(anyio_backend, opened, ran):
    """A later stage fails for good: the video is not lost."""
    with PaidServer() as server:
        bad = Step("bad", ran, KeyError("bug"))
        stages = [GenerateVideo(FakePaidGenerator(server.url)), bad]
        result = await opened(*stages).run(PICTURE, SPEECH, task_id="t")
        assert result.status is TaskState.DEFERRED
        bad.trouble = None
        async with opened(*stages) as pipeline:
            (run,) = (await pipeline.recover()).runs
            assert (await run).success
        assert len(server.ledger) == 1


async def test_an_outage_is_waited_out(anyio_backend, opened):
    with PaidServer() as server:
        server.down = True
        stage = GenerateVideo(FakePaidGenerator(server.url))
        result = await opened(stage).run(PICTURE, SPEECH, task_id="t")
        assert result.status is TaskState.DEFERRED
        server.down = False
        async with opened(stage) as pipeline:
            assert (await (await pipeline.recover()).runs[0]).success
        assert len(server.ledger) == 1


async def test_what_the_settings_chose_to_pay_is_not_taken_up_by_another_generator(
    anyio_backend, opened, ran
):
    bad, with_key = Step("a", ran, Outage("down")), Settings(d_id_api_key="user:password")
    await opened(bad, GenerateVideo(), settings=with_key).run(PICTURE, SPEECH, task_id="t")
    bad.trouble = None
    async with opened(bad, GenerateVideo()) as pipeline:
        skipped = (await pipeline.recover()).skipped["t"]
        assert skipped.startswith("it was begun by other stages: a, video_generation(d-id")
        with pytest.raises(TaskConflict):
            await pipeline.run(PICTURE, SPEECH, task_id="t")


async def test_forgetting_leaves_nothing_even_of_a_deferred_task(
    anyio_backend, opened, deferred, ran
):
    await deferred()
    pipeline = opened(Step("a", ran), Step("b", ran))
    await pipeline.forget("t")
    assert await pipeline._storage.staged() == ()
    with pytest.raises(TaskNotFound):
        await pipeline.status("t")
    assert (await pipeline.run(PICTURE, SPEECH, task_id="t")).metadata == {"a": 1, "b": 1}


@pytest.mark.parametrize("durable", [True, False])
async def test_paying_without_a_journal_that_stays_is_warned_of_once(
    anyio_backend, opened, durable, caplog
):
    with PaidServer() as server:
        stage = GenerateVideo(FakePaidGenerator(server.url))
        pipeline = opened(stage) if durable else Pipeline([stage], storage=MemoryStorage())
        async with pipeline:
            for _ in range(2):
                await pipeline.run(PICTURE, SPEECH)
    warnings = [record for record in caplog.records if "about to be paid" in record.message]
    assert len(warnings) == (0 if durable else 1)


@attrs.define(eq=False)
class Paying(Step):
    """A stage that pays, fails while it waits, and collects the next time."""

    async def run(self, draft, context):
        await context.operations.intend("job")
        draft = await Step.run(self, draft, context)
        await context.operations.settle("job", "collected")
        return draft


async def test_a_stage_that_may_be_left_out_is_not_while_something_of_it_is_paid_for(
    anyio_backend, opened, ran
):
    stage = Paying("a", ran, KeyError("bug"), optional=True)
    assert (await opened(stage).run(PICTURE, task_id="t")).status is TaskState.DEFERRED
    stage.trouble = None
    after = Step("b", ran, KeyError("bug"), optional=True)
    assert (await opened(stage).run(PICTURE, task_id="t")).metadata == {"a": 2}
    # What is collected is published without the stage that failed.
    assert (await opened(stage, after).run(PICTURE, task_id="u")).metadata == {"a": 1}


# --- room --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OutOfMemory("no memory"), InsufficientStorage("no disk")])
async def test_shortage_is_parked_told_once_and_taken_up(anyio_backend, opened, ran, error, caplog):
    alerts = []
    caplog.set_level(logging.WARNING, "talkgen")
    full = Step("a", ran, error)
    pipeline = opened(full, defer=("external", "resource"), on_alert=alerts.append)
    result = await pipeline.run(PICTURE, task_id="t")
    assert result.status is TaskState.DEFERRED
    assert alerts == [error]
    assert [record for record in caplog.records if str(error) in record.message] != []
    assert len([r for r in caplog.records if "is deferred" in r.message]) == 1
    full.trouble = None
    async with opened(full) as again:
        assert (await (await again.recover()).runs[0]).success


async def test_an_alert_that_fails_harms_nobody(anyio_backend, opened, ran, caplog):
    def broken(error):
        raise KeyError("mail server")

    step = Step("a", ran, OutOfMemory("no memory"))
    result = await opened(step, defer=("resource",), on_alert=broken).run(PICTURE, task_id="t")
    assert result.status is TaskState.DEFERRED
    assert "on_alert failed for task t" in caplog.text


async def test_a_disk_that_is_full_before_the_inputs_are_kept(anyio_backend, tmp_path, ran):
    """There is nothing to go on with, and nothing is discarded: the caller runs it again."""
    full = LocalStorage(tmp_path, min_free_bytes=1 << 60)
    pipeline = Pipeline([Step("a", ran)], storage=full, defer=("resource",))
    assert (await pipeline.run(PICTURE, task_id="t")).status is TaskState.DEFERRED
    storage = LocalStorage(tmp_path, min_free_bytes=0)
    async with Pipeline([Step("a", ran)], storage=storage) as roomy:
        recovery = await roomy.recover()
        assert (recovery.runs, recovery.discarded) == ((), ())
        assert "run it again with them" in recovery.skipped["t"]
        assert (await roomy.run(PICTURE, task_id="t")).metadata == {"a": 2}


async def test_expired_files_are_deleted_while_a_pipeline_is_open(anyio_backend, caplog):
    class Storage(MemoryStorage):
        calls = 0

        async def cleanup(self, now=None):
            self.calls += 1
            if self.calls == 1:
                raise OSError("for once")
            return await super().cleanup(now)

    storage = Storage()
    async with Pipeline([], storage=storage, cleanup_interval=timedelta(milliseconds=1)):
        await wait_until(lambda: storage.calls > 2)
    assert "the next one tries again" in caplog.text


async def test_the_journal_holds_neither_media_nor_text_of_requests(
    anyio_backend, opened, tmp_path
):
    with PaidServer() as server:
        stage = GenerateVideo(FakePaidGenerator(server.url))
        result = await opened(stage).run(PICTURE, SPEECH, task_id="t")
    data = (tmp_path / "journal.db").read_bytes()
    media = (
        PICTURE.tobytes(),
        result.draft.image.encode("png"),
        SPEECH.samples.tobytes(),
        SPEECH.original().data,
    )
    assert result.draft.image.digest.encode() in data
    assert not any(content[:64] in data for content in media)
    assert b"PNG" not in data
    assert b"127.0.0.1" not in data


def test_the_journal_belongs_to_the_storage(tmp_path):
    journal = Pipeline([], storage=LocalStorage(tmp_path))._journal
    assert journal.path == tmp_path / "journal.db"
    for storage in (MemoryStorage(), LocalStorage.temporary()):
        assert isinstance(Pipeline([], storage=storage)._journal, MemoryJournal)
    mine = MemoryJournal()
    assert Pipeline([], storage=LocalStorage(tmp_path), journal=mine)._journal is mine
