"""Histories: dense, monotonic, ended once, the same for everybody."""

import asyncio
import gc
import threading
import weakref
from datetime import UTC, datetime, timedelta

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkgen import Image, events
from talkgen.progress import ProgressTracker, Subscription

PICTURE = Image(np.full((4, 4, 3), 128, np.uint8))
KINDS = st.sampled_from([events.StageUpdate, events.ProgressUpdate, events.Degraded])


def cancelled(history):
    return history.publish(events.Cancelled, "cancelled", 0, "Cancelled")


@given(st.lists(st.tuples(KINDS, st.floats(0, 100)), max_size=40), st.integers(0, 40))
def test_history_is_dense_and_monotonic_and_ends_once(reports, end_at):
    history = ProgressTracker().begin("t")
    for index, (kind, progress) in enumerate(reports):
        if index == end_at:
            cancelled(history)
        history.publish(kind, "s", progress, "m")
    cancelled(history)
    cancelled(history)
    assert [event.sequence for event in history.events] == list(range(len(history.events)))
    progress = [event.progress for event in history.events]
    assert progress == sorted(progress)
    assert [event.terminal for event in history.events].index(True) == len(history.events) - 1


def test_a_message_is_one_line_that_steers_no_terminal():
    history = ProgressTracker().begin("t")
    event = history.publish(
        events.StageUpdate, "s", 1, "Größe\r\n\x1b[31mred\x1b[0m\u2028日本 👩‍🔬"
    )
    assert event.message == "Größe [31mred [0m 日本 👩‍🔬"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.floats(0, 100)),
        st.tuples(st.just("subscribe"), st.integers(-1, 12)),
        st.tuples(st.just("read"), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(steps=STEPS)
def test_every_reader_sees_the_history_from_its_cursor_on(backend, steps):
    """Whenever it came, however it reads, and whoever leaves."""

    async def walk():
        tracker = ProgressTracker()
        history = tracker.begin("t")
        readers: list[tuple[int, list[events.Event], Subscription]] = []
        for action, argument in steps:
            if action == "publish":
                history.publish(events.ProgressUpdate, "s", argument, "m")
            elif action == "subscribe":
                after = None if argument < 0 else f"1-{argument}"
                start = argument + 1 if argument < len(history.events) else 0
                readers.append((start, [], tracker.subscribe("t", after=after)))
            elif readers:
                start, seen, reader = readers[argument % len(readers)]
                if action == "leave" and len(history.events) == start + len(seen):
                    with anyio.move_on_after(0) as left:
                        await reader.__anext__()
                    assert left.cancelled_caught
                elif len(history.events) > start + len(seen):
                    seen.append(await reader.__anext__())
        cancelled(history)
        for start, seen, reader in readers:
            seen += [event async for event in reader]
            assert seen == history.events[start:]
        assert [event async for event in tracker.subscribe("t")] == history.events
        assert [event async for event in tracker.subscribe("t", after="1-99")] == history.events
        assert not any(audience.waiting for audience in history._audiences.values())

    anyio.run(walk, backend=backend)


async def test_late_reader_sees_what_an_early_one_saw(anyio_backend):
    tracker = ProgressTracker()
    seen: list[list[events.Event]] = [[], []]

    async def read(index):
        seen[index] = [event async for event in tracker.subscribe("t")]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, 0)  # before the task has begun
        await anyio.wait_all_tasks_blocked()
        history = tracker.begin("t")
        for progress in range(10):
            history.publish(events.ProgressUpdate, "s", progress, "m")
        cancelled(history)
    await read(1)
    assert seen[0] == seen[1] == history.events


def test_waiting_for_tasks_that_never_begin_keeps_nothing():
    tracker = ProgressTracker()
    reader = tracker.subscribe("guessed")
    assert list(tracker._awaited) == ["guessed"]
    assert tracker.subscribe("guessed")._history is reader._history
    del reader
    assert not tracker._awaited
    assert not tracker._histories


async def test_threads_publish_while_a_reader_waits(anyio_backend):
    history = (tracker := ProgressTracker()).begin("t")

    def work():
        for _ in range(100):
            history.publish(events.ProgressUpdate, "s", 1, "m")

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(anyio.to_thread.run_sync, work)
        count = 0
        async for _event in tracker.subscribe("t"):
            count += 1
            if count == 400:
                break
    assert [event.sequence for event in history.events] == list(range(400))


async def test_reader_resumes_after_its_cursor(anyio_backend):
    history = (tracker := ProgressTracker()).begin("t", attempt=2)
    first = history.publish(events.StageUpdate, "s", 1, "m")
    last = cancelled(history)
    assert [event async for event in tracker.subscribe("t", after=first.cursor)] == [last]
    assert [event async for event in tracker.subscribe("t", after=last.cursor)] == []
    for unknown in ("1-7", "2-7", "3-0"):
        assert [event async for event in tracker.subscribe("t", after=unknown)] == [first, last]
    with pytest.raises(ValueError, match="cursor"):
        tracker.subscribe("t", after="latest")


async def test_heartbeats_and_previews_come_in_between_and_are_not_kept(anyio_backend):
    tracker = ProgressTracker(heartbeat=0.001)
    history = tracker.begin("t")
    history.publish(events.StageUpdate, "s", 30, "m")
    reader = tracker.subscribe("t")
    await reader.__anext__()
    beat = await reader.__anext__()
    assert (beat.event_type, beat.progress, beat.cursor) == ("heartbeat", 30, "1-0")
    assert beat.to_dict()["data"]["message"] == "keepalive"
    history.show(PICTURE)
    assert (await reader.__anext__()).event_type == "preview"
    assert len(history.events) == 1
    cancelled(history)
    history.show(PICTURE)
    assert [event.event_type async for event in tracker.subscribe("t")] == [
        "stage_update",
        "cancelled",
    ]


def test_publishing_to_a_loop_that_has_ended_is_nobodys_problem():
    history = (tracker := ProgressTracker()).begin("t")

    async def leave_a_reader_behind():
        with anyio.move_on_after(0.01):
            await tracker.subscribe("t").__anext__()

    anyio.run(leave_a_reader_behind)
    thread = threading.Thread(target=history.publish, args=(events.StageUpdate, "s", 1, "m"))
    thread.start()
    thread.join()
    assert tracker.latest("t") is history.events[0]


@pytest.mark.parametrize("first", ["asyncio", "trio"])
def test_a_reader_goes_on_in_another_event_loop(anyio_backend, first):
    history = (tracker := ProgressTracker()).begin("t")
    reader = tracker.subscribe("t")

    async def look_in_vain():
        with anyio.move_on_after(0) as left:
            await reader.__anext__()
        assert left.cancelled_caught

    async def get_what_comes():
        with anyio.fail_after(30):
            assert await reader.__anext__() is history.events[0]

    async def wait_for_it():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(get_what_comes)
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(history.publish, events.StageUpdate, "s", 1, "m")

    anyio.run(look_in_vain, backend=first)
    anyio.run(wait_for_it, backend=anyio_backend)


def test_a_history_that_is_kept_keeps_no_event_loop():
    history = (tracker := ProgressTracker()).begin("t")

    async def read_to_the_end():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tracker.subscribe("t").__anext__)
            await anyio.wait_all_tasks_blocked()
            cancelled(history)
        return weakref.ref(asyncio.get_running_loop())

    loop = anyio.run(read_to_the_end)
    gc.collect()
    assert loop() is None


def test_ended_histories_are_dropped_after_their_retention():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    tracker = ProgressTracker(retention=timedelta(minutes=60), clock=lambda: now)
    history = tracker.begin("t")
    cancelled(history)
    tracker.end(history)
    now += timedelta(minutes=59)
    assert tracker.latest("t") is not None
    now += timedelta(minutes=1)
    assert tracker.latest("t") is None
    tracker.begin("u").publish(events.StageUpdate, "s", 1, "m")
    tracker.forget("u")
    assert tracker.latest("u") is None


@pytest.mark.parametrize("why", ["forgotten", "taken over", "refused"])
def test_a_history_that_nobody_can_ask_for_is_not_kept(why):
    tracker = ProgressTracker()
    first = tracker.begin("t")
    tracker.take_over(first)
    cancelled(first)
    tracker.end(first)
    if why == "forgotten":
        tracker.forget("t")
        gone, kept = weakref.ref(first), []
    else:
        second = tracker.begin("t", attempt=2)
        if why == "taken over":
            tracker.take_over(second)
        cancelled(second)
        tracker.end(second)
        gone, kept = (first, second) if why == "taken over" else (second, first)
        gone, kept = weakref.ref(gone), [weakref.ref(kept)]
        del second
    del first
    gc.collect()
    assert gone() is None
    assert list(tracker.histories()) == [history() for history in kept]


def test_an_attempt_that_goes_on_outlives_the_retention_of_the_one_before():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    tracker = ProgressTracker(retention=timedelta(minutes=60), clock=lambda: now)
    for attempt in (1, 2):
        history = tracker.begin("t", attempt)
        tracker.take_over(history)
        cancelled(history)
        tracker.end(history)
        now += timedelta(minutes=59)
    assert tracker.histories() == (history,)
    now += timedelta(minutes=1)
    assert tracker.histories() == ()


async def test_what_is_told_aside_takes_no_reader_back(anyio_backend):
    """It keeps its place between two events, or is left out: cursor and progress never fall."""
    history = (tracker := ProgressTracker()).begin("t")
    history.publish(events.StageUpdate, "s", 10, "m")
    prompt, slow = tracker.subscribe("t"), tracker.subscribe("t")
    assert [await reader.__anext__() for reader in (prompt, slow)] == history.events * 2
    history.beat()
    history.publish(events.StageUpdate, "s", 20, "m")
    assert [(await prompt.__anext__()).cursor for _ in range(2)] == ["1-0", "1-1"]
    history.beat()
    history.publish(events.StageUpdate, "s", 30, "m")
    cancelled(history)
    assert [event async for event in prompt] == history.events[2:]
    assert [event async for event in slow] == history.events[1:]


async def test_readers_that_leave_take_nobodys_heartbeat_along_and_stop_the_clock(anyio_backend):
    history = (tracker := ProgressTracker(heartbeat=0.01)).begin("t")
    history.publish(events.StageUpdate, "s", 30, "m")
    staying = tracker.subscribe("t")
    await staying.__anext__()
    with anyio.move_on_after(0) as left:
        async for _event in tracker.subscribe("t"):
            pass
    assert left.cancelled_caught
    for _ in range(3):
        assert (await staying.__anext__()).event_type == "heartbeat"
    (audience,) = history._audiences.values()
    assert audience.ticking
    with anyio.fail_after(30):
        while audience.ticking:  # noqa: ASYNC110 - nobody is told
            await anyio.sleep(0.01)


@pytest.mark.parametrize("first", ["cancelled", "published"])
async def test_who_is_cancelled_as_news_come_loses_none_and_leaves_nothing(anyio_backend, first):
    history = (tracker := ProgressTracker()).begin("t")
    reader = tracker.subscribe("t")
    got = []

    async def read():
        got.append(await reader.__anext__())

    for _ in range(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            if first == "cancelled":
                tasks.cancel_scope.cancel()
            history.publish(events.StageUpdate, "s", 30, "m")
            tasks.cancel_scope.cancel()
        while len(got) < len(history.events):
            await read()
    assert got == history.events
    (audience,) = history._audiences.values()
    assert not audience.waiting


async def test_who_looks_in_vain_again_and_again_leaves_nothing(anyio_backend):
    history = (tracker := ProgressTracker()).begin("t")
    for _ in range(10):
        with anyio.move_on_after(0) as left:
            await tracker.subscribe("t").__anext__()
        assert left.cancelled_caught
    (audience,) = history._audiences.values()
    assert not audience.waiting


async def test_everybody_who_waits_gets_the_heartbeat(anyio_backend):
    history = (tracker := ProgressTracker(heartbeat=0.01)).begin("t")
    history.publish(events.StageUpdate, "s", 30, "m")
    heard = 0

    async def listen():
        nonlocal heard
        async for event in tracker.subscribe("t"):
            if event.event_type == "heartbeat":
                break
        heard += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(listen)
    assert heard == 5


async def test_a_preview_is_encoded_once_and_only_for_those_who_listen(anyio_backend, monkeypatch):
    encoded = []
    monkeypatch.setattr(Image, "flattened", lambda image: encoded.append(image) or image)
    history = (tracker := ProgressTracker()).begin("t")
    history.publish(events.StageUpdate, "s", 30, "m")
    history.show(PICTURE)
    reader = tracker.subscribe("t")
    assert (await reader.__anext__()).event_type == "stage_update"
    assert not encoded
    history.show(PICTURE)
    newest = Image(PICTURE.pixels)
    history.show(newest)  # all that one who is slow gets
    preview = await reader.__anext__()
    assert preview.image is newest
    assert preview.cursor == "1-0"
    assert preview.to_dict()["data"]["image"].startswith("data:image/jpeg;base64,")
    assert encoded == [newest]
    history.show(PICTURE)
    cancelled(history)  # nobody wants a picture of what is over, and it takes memory
    assert history.aside is None
    assert [event.event_type async for event in reader] == ["cancelled"]


async def test_a_preview_is_encoded_once_for_many(anyio_backend, monkeypatch):
    encoded, several = [], threading.Event()

    def flattened(image):
        encoded.append(image)
        if len(encoded) == 1:
            several.wait(0.1)  # for a second one that must not come
        several.set()
        return image

    monkeypatch.setattr(Image, "flattened", flattened)
    history = (tracker := ProgressTracker()).begin("t")
    history.publish(events.StageUpdate, "s", 30, "m")
    seen = []

    async def listen():
        async for event in tracker.subscribe("t"):
            if event.event_type == "preview":
                seen.append(event.url)
                break

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        history.show(PICTURE)
    assert len(seen) == 20
    assert len(encoded) == 1
