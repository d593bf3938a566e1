"""The journal: its contract, and the rules by which records change."""

import gc
import threading
from datetime import UTC, datetime

import anyio
import pytest

from talkgen.draft import TaskState
from talkgen.errors import TaskBusy, TaskConflict
from talkgen.journal import MemoryJournal
from talkgen.protocols import TaskSpec
from talkgen.testing import check_journal

SPEC = TaskSpec("task-1", {"image": "0" * 64}, ("detect",))


async def test_keeps_the_contract():
    await check_journal(MemoryJournal)


def test_is_not_durable():
    assert not MemoryJournal().durable


async def test_a_dead_owners_task_is_claimed():
    """An attempt that nobody refers to any more is over."""
    journal = MemoryJournal()
    attempt = await journal.begin(SPEC)
    operation = await attempt.intend("talk", id=1)
    assert await journal.claim("task-1") is None
    del attempt
    gc.collect()
    successor = await journal.claim("task-1")
    assert successor is not None
    assert (successor.task.attempt, successor.task.state) == (2, TaskState.RUNNING)
    assert await successor.get("talk") == operation


async def test_publishing_is_taken_over_as_publishing():
    """Whoever takes over a task past the point of no return still finds it there."""
    journal = MemoryJournal()
    attempt = await journal.begin(SPEC)
    await attempt.finish(TaskState.PUBLISHING, {"success": True})
    for number in (2, 3):
        del attempt
        gc.collect()
        attempt = await journal.begin(SPEC)
        assert (attempt.task.attempt, attempt.task.state) == (number, TaskState.PUBLISHING)
        assert (await journal.get("task-1")).state is TaskState.PUBLISHING
        assert attempt.task.summary == {"success": True}


async def test_a_running_task_with_other_inputs_is_a_conflict():
    journal = MemoryJournal()
    attempt = await journal.begin(SPEC)
    with pytest.raises(TaskConflict, match=r"task-1 was begun with other inputs and stages") as e:
        await journal.begin(TaskSpec("task-1", {}, ()))
    assert "forget" in e.value.hint
    assert attempt.task.attempt == 1


async def test_what_is_kept_is_a_copy():
    """Changing a dictionary after it was journaled changes nothing."""
    journal = MemoryJournal()
    attempt = await journal.begin(SPEC)
    facts = {"seen": [1]}
    await attempt.intend("talk", **facts)
    facts["seen"].append(2)
    assert (await attempt.get("talk")).facts == {"seen": [1]}


async def test_a_forgotten_attempt_is_nobodys():
    journal = MemoryJournal()
    attempt = await journal.begin(SPEC)
    await attempt.finish(TaskState.FAILED, None)
    await journal.forget("task-1")
    assert await attempt.get("talk") is None
    with pytest.raises(TaskBusy, match="Attempt 1 at task task-1 has ended"):
        await attempt.record("talk")


async def test_times_are_the_clocks():
    times = iter(datetime(2030, 1, 1, 0, minute, tzinfo=UTC) for minute in range(60))
    journal = MemoryJournal(clock=lambda: next(times))
    attempt = await journal.begin(SPEC)
    operation = await attempt.intend("talk")
    record = await journal.get("task-1")
    assert record.created.minute == 0
    assert record.updated.minute == operation.intended_at.minute == 1


def test_one_of_many_threads_begins_a_task():
    """Event loops in several threads may race for a task; one of them gets it."""
    journal, together, got, busy = MemoryJournal(), threading.Barrier(8), [], []

    async def begin() -> None:
        together.wait()
        try:
            got.append(await journal.begin(SPEC))
        except TaskBusy:
            busy.append(1)

    threads = [threading.Thread(target=anyio.run, args=[begin]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(busy)) == (1, 7)
