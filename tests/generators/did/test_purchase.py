"""Paying once, wherever an attempt ends."""

import gc
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta

import anyio
import attrs
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkgen import LocalScheduler, MemoryStorage, Settings
from talkgen._clock import utc_now
from talkgen.draft import TaskState
from talkgen.errors import OutcomeUnknown, ResultExpired, TalkgenError, TaskBusy
from talkgen.generators.did import RetryPolicy, job
from talkgen.journal import MemoryJournal
from talkgen.protocols import TaskSpec
from talkgen.testing import FakeDId
from talkgen.testing.fake_did import Fault

from .conftest import SPEED, Bench, face, tone

POST, LIST = "POST /talks", "GET /talks"
LOST = Fault(status=504, body={"message": "Endpoint request timed out"}, work=True)
NOT_MADE = Fault(status=504, body={"message": "Endpoint request timed out"})


# --- a process that dies -----------------------------------------------------------------------


class Killed(BaseException):
    """What no code of the library may survive."""


@attrs.define
class Countdown:
    """Does something at the moment whose number it was given."""

    left: int | None = None
    act: object = None

    def tick(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                self.act()

    async def atick(self, _message):
        self.tick()


def die():
    raise Killed


@attrs.define
class Fragile:
    """Calls through to the journal or the files, and counts."""

    inner: object
    countdown: Countdown
    names = frozenset({"intend", "record", "settle", "put"})

    def __getattr__(self, name):
        method = getattr(self.inner, name)
        if name not in self.names:
            return method

        async def call(*args, **facts):
            self.countdown.tick()
            result = await method(*args, **facts)
            self.countdown.tick()
            return result

        return call


@attrs.define(eq=False)
class Context:
    """What a stage may touch, without a pipeline."""

    operations: object
    files: object
    scheduler: LocalScheduler
    told: list = attrs.field(factory=list)
    task_id: str = "task"
    attempt: int = 1
    settings: Settings = attrs.field(factory=Settings)

    def report(self, fraction, message, *, stage=None, **metadata):
        self.told.append((stage, fraction))


async def attempt(bench, generator, countdown=None):
    """One attempt at the task, by the journal and the files that earlier ones left."""
    spec = TaskSpec(task_id="task", inputs={}, stages=())
    try:
        journal = await bench.journal.begin(spec)
    except TaskBusy:
        gc.collect()  # now the dead attempt owns the task no longer
        journal = await bench.journal.begin(spec)
    files = await bench.storage.open("task")
    countdown = countdown or Countdown()
    async with AsyncExitStack() as stack:
        scheduler = LocalScheduler()
        stack.push_async_callback(scheduler.aclose)
        context = Context(Fragile(journal, countdown), Fragile(files, countdown), scheduler)
        try:
            return await generator.generate(face(), tone(), context)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await journal.finish(TaskState.DEFERRED, None)  # as a run does
            raise
        finally:
            await files.close()


@pytest.mark.parametrize("fault", [None, LOST], ids=["none", "lost"])
@pytest.mark.parametrize(
    ("anyio_backend", "moment"), [(("asyncio", "trio")[moment % 2], moment) for moment in range(14)]
)
async def test_killed_at_any_moment_the_next_attempt_ends_with_one_talk(
    anyio_backend, bench, moment, fault
):
    if fault is not None:
        bench.service.fail(POST, fault)
    generator = bench.generator()
    with suppress(Killed, BaseExceptionGroup):
        await attempt(bench, generator, Countdown(moment, die))
    video = await attempt(bench, bench.generator())
    assert video.duration == pytest.approx(1.0, abs=0.3)
    ledger = bench.service.ledger
    assert len(ledger.talks) == ledger.charged == 1
    (operation,) = await bench.operations()
    assert operation.settled == "collected"
    assert operation.facts["talk_id"] == ledger.talks[0]
    assert len(await (await bench.storage.open("task")).get(video.file)) == video.file.size


async def test_a_video_that_was_collected_is_not_fetched_again(anyio_backend, bench):
    first = await attempt(bench, bench.generator())
    again = await attempt(bench, bench.generator())
    assert (again.file, again.metadata) == (first.file, first.metadata)
    assert bench.service.ledger.downloads == 1


async def test_a_collected_video_whose_file_is_lost_is_fetched_again(anyio_backend, bench):
    await attempt(bench, bench.generator())
    bench.storage = MemoryStorage()
    again = await attempt(bench, bench.generator())
    assert bench.service.ledger.downloads == 2
    assert len(bench.service.ledger.talks) == 1
    assert again.file.size > 0


# --- answers that are lost ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "hidden",
    [
        {"list_user_data": False},
        {"list_source_url": False},
        {"list_user_data": False, "list_source_url": False},
        {"list_delay": 15.0},
        {"page_size": 1},
    ],
    ids="+".join,
)
async def test_a_lost_talk_is_found_however_little_the_list_shows(anyio_backend, bench, hidden):
    others = [await bench.run(task_id=f"other-{number}") for number in range(3)]
    for name, value in hidden.items():
        setattr(bench.service.behaviour, name, value)
    bench.service.fail(POST, LOST)
    result = await bench.run()
    assert result.success
    ledger = bench.service.ledger
    assert len(ledger.talks) == 4
    assert result.metadata["d_id"]["talk_id"] == ledger.talks[3]
    assert len({each.metadata["d_id"]["talk_id"] for each in others}) == 3


async def test_a_look_that_takes_long_does_not_use_the_window_up(anyio_backend, bench):
    """What it shows is older than its arrival."""
    bench.service.behaviour.list_delay = 15.0
    bench.service.fail(POST, LOST)
    bench.service.fail(LIST, Fault(delay=40.0))
    assert (await bench.run()).success
    assert len(bench.service.ledger.talks) == bench.service.ledger.requests[POST] == 1
    assert bench.service.ledger.requests[LIST] == 2


async def test_a_talk_that_is_listed_before_it_can_be_looked_at_is_waited_for(anyio_backend, bench):
    bench.service.behaviour.list_user_data = bench.service.behaviour.list_source_url = False
    bench.service.fail(POST, LOST)
    gone = Fault(status=404, body={"kind": "NotFoundError", "description": "talk not found"})
    bench.service.fail("GET /talks/{id}", gone, times=2)
    assert (await bench.run()).success
    assert len(bench.service.ledger.talks) == bench.service.ledger.requests[POST] == 1


async def test_an_answer_with_nothing_but_an_id_is_taken(anyio_backend, bench):
    """Whatever else it lacks: whoever has the id need not search."""
    said = {"id": f"tlk_{1:021d}"}
    bench.service.fail(POST, Fault(status=200, body=said, work=True))
    assert (await bench.run()).success
    assert bench.service.ledger.requests[LIST] == 0


async def unknown(bench):
    """A task whose talk was made, and is listed only after it was given up; its generator."""
    bench.service.behaviour.list_delay = 1e6
    bench.service.fail(POST, LOST)
    generator = bench.generator(repost=False)
    with pytest.raises(OutcomeUnknown):
        await bench.run(generator)
    bench.service.behaviour.list_delay = 0.0
    return generator


async def test_running_an_unknown_task_again_finds_the_talk(anyio_backend, bench):
    assert (await bench.run(await unknown(bench))).success
    assert bench.service.ledger.requests[POST] == len(bench.service.ledger.talks) == 1


async def test_a_talk_that_is_found_late_is_paid_for_like_any_other(anyio_backend, bench):
    generator = await unknown(bench)
    bench.service.fail("GET result", Fault(status=200, body=b"<html>"), times=1000)
    assert (await bench.run(generator)).status is TaskState.DEFERRED


async def test_an_unknown_task_asks_anew_only_when_it_was_forgotten(anyio_backend, bench):
    bench.service.fail(POST, NOT_MADE)
    generator = bench.generator(repost=False)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown) as caught:
            await bench.run(generator)
        assert bench.service.ledger.requests[POST] == 1
    assert "forget()" in caught.value.hint
    await bench.pipeline(generator).forget("task")
    assert (await bench.run(generator)).success
    assert len(bench.service.ledger.talks) == 1


async def test_an_unknown_task_is_not_asked_for_anew_by_a_generator_that_would(
    anyio_backend, bench
):
    await unknown(bench)
    bench.service.behaviour.list_delay = 1e6
    with pytest.raises(OutcomeUnknown):
        await bench.run(bench.generator(repost=True))
    assert bench.service.ledger.requests[POST] == len(bench.service.ledger.talks) == 1


async def test_what_was_cancelled_in_the_line_was_not_asked_for(
    anyio_backend, bench, client_of, monkeypatch
):
    """It is neither searched for nor unknown."""
    async with client_of(bench.service) as client:
        waiting = anyio.Event()

        @asynccontextmanager
        async def never(**_options):
            waiting.set()
            await anyio.sleep_forever()
            yield

        async def then_wait(request, **options):
            monkeypatch.setattr(client._session.traffic, "turn", never)
            return await ask(request, **options)

        ask = client.create_talk
        monkeypatch.setattr(client, "create_talk", then_wait)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(attempt, bench, bench.generator(client=client))
            with anyio.fail_after(30):
                await waiting.wait()
            tasks.cancel_scope.cancel()
    await attempt(bench, bench.generator(repost=False))
    assert bench.service.ledger.requests[LIST] == 0
    assert bench.service.ledger.requests[POST] == 1


async def test_a_talk_that_is_gone_is_settled_although_its_attempt_died_before(
    anyio_backend, bench
):
    """An open operation would have every later failure deferred."""
    bench.service.fail("GET result", Fault(status=503), times=1000)
    assert (await bench.run()).status is TaskState.DEFERRED
    bench.service.heal()
    journal = await bench.journal.claim("task")
    await journal.record("d_id_talk_1", gone=True)
    await journal.finish(TaskState.DEFERRED, None)
    assert (await bench.run()).success
    assert [each.settled for each in await bench.operations()] == ["unknown", "collected"]


async def test_nothing_is_kept_there_also_if_the_process_died_after_collecting(
    anyio_backend, bench
):
    await attempt(bench, bench.generator())  # that it did not delete stands for the death
    await attempt(bench, bench.generator(keep_remote=False))
    state = bench.service._state
    assert (list(state.images), list(state.audios), list(state.there())) == ([], [], [])
    assert bench.service.ledger.downloads == 1


async def collected_and_deleted_there(bench, monkeypatch):
    """A run that fails just after it has deleted at D-ID what it has collected."""
    tidied = job.Job._tidy

    async def then_fails(self):
        await tidied(self)
        raise OSError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(job.Job, "_tidy", then_fails)
        result = await bench.run(bench.generator(keep_remote=False))
    assert result.status is TaskState.DEFERRED


async def test_what_was_collected_and_deleted_there_outlives_a_run_that_fails_afterwards(
    anyio_backend, bench, monkeypatch
):
    """No checkpoint names the video yet, and D-ID has it no more."""
    await collected_and_deleted_there(bench, monkeypatch)
    assert (await bench.run(bench.generator(keep_remote=False))).success
    ledger = bench.service.ledger
    assert (len(ledger.talks), ledger.charged, ledger.downloads) == (1, 1, 1)


async def test_a_video_that_is_lost_here_and_there_ends_the_task_and_is_not_paid_for_by_recovery(
    anyio_backend, bench, monkeypatch
):
    await collected_and_deleted_there(bench, monkeypatch)
    await (await bench.storage.open("task")).retain([])
    later = utc_now() + timedelta(hours=26)
    monkeypatch.setattr(job, "utc_now", lambda: later)
    generator = bench.generator(keep_remote=False, timeout=60.0)
    with pytest.raises(ResultExpired):
        await bench.run(generator)
    assert [each.settled for each in await bench.operations()] == ["unknown"]
    async with bench.pipeline(generator) as pipeline:
        assert (await pipeline.recover()).runs == ()
    assert len(bench.service.ledger.talks) == 1
    assert (await bench.run(generator)).success


async def test_without_reposting_an_absent_talk_is_unknown_at_once(anyio_backend, bench):
    bench.service.fail(POST, NOT_MADE)
    with pytest.raises(OutcomeUnknown):
        await bench.run(bench.generator(repost=False))
    assert bench.service.ledger.requests[POST] == 1


async def test_a_refusal_after_a_lost_answer_is_no_proof(anyio_backend, bench):
    """The second request is refused; the first may have made a talk that no list shows yet."""
    bench.service.behaviour.list_delay = 1e6
    bench.service.fail(POST, LOST)
    bench.service.fail(POST, Fault(status=402, body={"kind": "InsufficientCreditsError"}))
    with pytest.raises(OutcomeUnknown) as caught:
        await bench.run()
    assert caught.value.__cause__.status == 402
    assert len(bench.service.ledger.talks) == 1


async def test_a_late_answer_counts_as_lost_and_the_talk_is_found(anyio_backend, bench):
    bench.service.fail(POST, Fault(delay=1e6, work=True))
    generator = bench.generator(retry=RetryPolicy(post_deadline=0.2))
    assert (await bench.run(generator)).success
    assert bench.service.ledger.requests[POST] == len(bench.service.ledger.talks) == 1


async def test_uploads_that_have_expired_are_made_again_before_asking_again(
    anyio_backend, bench, monkeypatch
):
    bench.service.fail(POST, NOT_MADE)
    bench.service.fail(LIST, Fault(status=503), times=1000)
    assert (await bench.run()).status is TaskState.DEFERRED
    bench.service.heal()
    bench.service.advance(25 * 3600)
    monkeypatch.setattr(job, "utc_now", lambda: utc_now() + timedelta(hours=25))
    assert (await bench.run()).success
    assert bench.service.ledger.uploads == 4
    assert len(bench.service.ledger.talks) == 1


# --- cancellation ------------------------------------------------------------------------------


async def test_cancelled_while_asking_it_is_recoverable_and_nothing_is_lost(anyio_backend, bench):
    bench.service.fail(POST, Fault(delay=100.0))
    async with bench.pipeline() as pipeline:
        run = pipeline.start(face(), tone(), task_id="task")
        with anyio.fail_after(30):
            while not bench.service.ledger.talks:  # noqa: ASYNC110 - another thread's work
                await anyio.sleep(0.005)
        run.cancel()
        last = [event async for event in run][-1]
    assert (last.event_type, last.recoverable) == ("cancelled", True)
    (operation,) = await bench.operations()
    assert operation.facts["talk_id"] == bench.service.ledger.talks[0]
    assert (await bench.run()).success
    assert len(bench.service.ledger.talks) == 1


async def test_cancelled_before_asking_nothing_is_open(anyio_backend, bench):
    bench.service.fail("POST /audios", Fault(delay=1e6))
    async with bench.pipeline() as pipeline:
        run = pipeline.start(face(), tone(), task_id="task")
        with anyio.fail_after(30):
            while not bench.service.ledger.uploads:  # noqa: ASYNC110 - another thread's work
                await anyio.sleep(0.005)
        run.cancel()
        last = [event async for event in run][-1]
    assert (last.event_type, last.recoverable) == ("cancelled", False)
    assert await bench.operations() == []


@pytest.mark.parametrize("fault", [None, LOST], ids=["none", "lost"])
@pytest.mark.parametrize(
    ("anyio_backend", "moment"), [(("asyncio", "trio")[moment % 2], moment) for moment in range(32)]
)
async def test_cancelled_at_any_moment_the_next_attempt_ends_with_one_talk(
    anyio_backend, bench, client_of, moment, fault
):
    """Before and after each word to the journal and the files, each request and each answer."""
    if fault is not None:
        bench.service.fail(POST, fault)
    with anyio.CancelScope() as scope:
        countdown = Countdown(moment, scope.cancel)
        hooks = {"request": [countdown.atick], "response": [countdown.atick]}
        async with (
            httpx.AsyncClient(event_hooks=hooks) as http,
            client_of(bench.service, http=http) as client,
        ):
            await attempt(bench, bench.generator(client=client), countdown)
    made = bench.service.ledger.talks
    if scope.cancelled_caught and made:  # whatever exists is in the journal, or can be found
        (operation,) = await bench.operations()
        assert operation.settled in {None, "collected"}
        assert operation.facts["posts"] >= 1
    bench.service.heal()
    video = await attempt(bench, bench.generator())
    assert video.file.size > 0
    ledger = bench.service.ledger
    assert len(ledger.talks) == ledger.charged == 1


# --- any sequence of faults --------------------------------------------------------------------

faults = st.sampled_from(
    [
        None,
        Fault(drop=True),
        Fault(drop=True, work=True),
        Fault(status=503),
        Fault(status=504, work=True),
        Fault(status=429),
        Fault(status=402, body={"kind": "InsufficientCreditsError", "description": "no"}),
        Fault(status=201, body="{}", work=True),
        Fault(truncate=5),
        Fault(delay=30.0),
    ]
)
requests = st.sampled_from(
    ["POST /images", "POST /audios", POST, LIST, "GET /talks/{id}", "GET result"]
)
scripts = st.lists(st.tuples(requests, faults), max_size=12)
behaviours = st.fixed_dictionaries(
    {},
    optional={
        "list_user_data": st.booleans(),
        "list_source_url": st.booleans(),
        "page_size": st.sampled_from([1, 100]),
        "list_delay": st.sampled_from([0.0, 10.0]),
        "outcome": st.sampled_from(["done", "error", "rejected"]),
    },
)


async def check_ledger(script, behaviour, repost):
    with FakeDId(speed=SPEED, **behaviour) as service:
        for request, fault in script:
            service.fail(request, fault or Fault())
        bench = Bench(service, MemoryJournal(), MemoryStorage())
        generator = bench.generator(repost=repost)
        try:
            result = await bench.run(generator)
            if result.status is TaskState.DEFERRED:
                service.heal()
                result = await bench.run(generator)
            assert result.success
        except TalkgenError as raised:
            error = raised
        else:
            error = None
        ledger = service.ledger
        journaled = {each.facts.get("talk_id") for each in await bench.operations()} - {None}
        assert len(ledger.talks) <= 1
        assert set(ledger.talks) == journaled or isinstance(error, OutcomeUnknown)
        assert isinstance(error, OutcomeUnknown) == any(
            each.settled == "unknown" for each in await bench.operations()
        )
        if error is None:
            assert (ledger.charged, ledger.refunded) == (1, 0)
        elif not isinstance(error, OutcomeUnknown):
            assert ledger.charged == ledger.refunded


@settings(max_examples=12, deadline=None)
@given(scripts, behaviours, st.booleans())
def test_every_talk_is_in_the_journal_or_reported(script, behaviour, repost):
    anyio.run(check_ledger, script, behaviour, repost)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(scripts, behaviours, st.booleans())
def test_every_talk_is_in_the_journal_or_reported_for_long(script, behaviour, repost):
    anyio.run(check_ledger, script, behaviour, repost, backend="trio")
