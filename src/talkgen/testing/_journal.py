"""What every journal must do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkgen.draft import TaskState
from talkgen.errors import TaskBusy, TaskConflict
from talkgen.media import FileRef
from talkgen.protocols import Checkpoint, TaskSpec
from talkgen.testing._expect import expect_raises

if TYPE_CHECKING:
    from collections.abc import Callable

    from talkgen.protocols import Journal, Operation, TaskJournal, TaskRecord

__all__ = ["check_journal"]

SPEC = TaskSpec("check-1", {"image": "0" * 64}, ("detect", "generate"))
CHECKPOINT = Checkpoint(
    {"box": [1, 2, 3, 4]},
    {"portrait": FileRef("check-1", "processed", "check-1_cropped.png", 3, "1" * 64)},
)


async def check_journal(make_journal: Callable[[], Journal]) -> None:
    """Check a journal against the contract of `talkgen.protocols.Journal`.

    Args:
        make_journal: Makes a new, empty journal; called once for each check.

    Raises:
        AssertionError: It does not keep the contract; the message says where.
    """
    for check in CHECKS:
        await check(make_journal())


async def _a_task_begins(journal: Journal) -> None:
    assert await journal.get(SPEC.task_id) is None, "an empty journal knows a task"
    attempt = await journal.begin(SPEC)
    record = await _record(journal)
    assert (record.spec, record.attempt) == (SPEC, 1), f"it was begun as {record}"
    assert record.state is TaskState.RUNNING, f"a begun task is {record.state}"
    assert attempt.task == record, "the attempt sees another record"


async def _a_task_has_one_owner(journal: Journal) -> None:
    attempt = await journal.begin(SPEC)
    await expect_raises(TaskBusy, journal.begin, SPEC)
    await expect_raises(TaskBusy, journal.forget, SPEC.task_id)
    assert await journal.claim(SPEC.task_id) is None, "an owned task was claimed"
    await attempt.finish(TaskState.PUBLISHING, None)
    await expect_raises(TaskBusy, journal.begin, SPEC)
    await attempt.finish(TaskState.COMPLETED, {"success": True})
    record = await _record(journal)
    assert record.state is TaskState.COMPLETED, f"a completed task is {record.state}"
    assert record.summary == {"success": True}, f"its summary is {record.summary}"


async def _an_ended_attempt_writes_no_more(journal: Journal) -> None:
    attempt = await journal.begin(SPEC)
    await attempt.finish(TaskState.DEFERRED, None)
    successor = await journal.begin(SPEC)
    before = await _record(journal)
    await expect_raises(TaskBusy, attempt.intend, "talk")
    await expect_raises(TaskBusy, attempt.stage_done, "detect", CHECKPOINT)
    await expect_raises(TaskBusy, attempt.finish, TaskState.FAILED, None)
    assert await _record(journal) == before, "an attempt wrote after its end"
    await successor.finish(TaskState.CANCELLED, None)


async def _an_id_belongs_to_its_work(journal: Journal) -> None:
    others = (
        TaskSpec(SPEC.task_id, {"image": "2" * 64}, SPEC.stages),
        TaskSpec(SPEC.task_id, SPEC.inputs, SPEC.stages[:1]),
    )
    for state in (TaskState.DEFERRED, TaskState.FAILED, TaskState.COMPLETED):
        attempt = await journal.begin(SPEC)
        for other in others:
            await expect_raises(TaskConflict, journal.begin, other)
        await attempt.finish(state, None)
        for other in others:
            await expect_raises(TaskConflict, journal.begin, other)


async def _deferred_work_is_begun_again(journal: Journal) -> None:
    await _deferred(journal)
    await _check_resumed(journal, await journal.begin(SPEC))


async def _deferred_work_is_claimed(journal: Journal) -> None:
    await _deferred(journal)
    attempt = await journal.claim(SPEC.task_id)
    assert attempt is not None, "a deferred task was not to be claimed"
    await _check_resumed(journal, attempt)


async def _ended_work_is_not_claimed(journal: Journal) -> None:
    assert await journal.claim(SPEC.task_id) is None, "an unknown task was claimed"
    for state in (state for state in TaskState if state.final):
        await (await journal.begin(SPEC)).finish(state, None)
        assert await journal.claim(SPEC.task_id) is None, f"a task that is {state} was claimed"
        await journal.forget(SPEC.task_id)


async def _ended_work_begins_anew(journal: Journal) -> None:
    attempt = await _worked(journal)
    token = (await _operation(attempt)).token
    await attempt.finish(TaskState.FAILED, {"error": "none"})
    again = await journal.begin(SPEC)
    assert again.task.state is TaskState.FAILED, "it does not say what it found"
    assert again.task.attempt == 2, f"the second attempt is number {again.task.attempt}"
    assert not again.task.checkpoints, "a new attempt goes on from an old checkpoint"
    assert await again.get("talk") is None, "a new attempt takes an old action for its own"
    assert (await again.intend("talk")).token != token, "a new action has the old token"


async def _what_nobody_knows_outlives_the_end(journal: Journal) -> None:
    attempt = await journal.begin(SPEC)
    await attempt.intend("lost")
    await attempt.intend("no")
    await attempt.settle("lost", "unknown")
    await attempt.settle("no", "refused")
    await attempt.finish(TaskState.FAILED, None)
    attempt = await journal.begin(SPEC)
    assert await attempt.get("no") is None, "a refused operation outlived its task's end"
    lost = await attempt.get("lost")
    assert lost is not None, "an operation of unknown outcome was forgotten with its attempt"
    await attempt.record("lost", id="tlk-1")
    lost = await attempt.get("lost")
    assert lost is not None, "a recorded operation is gone"
    assert lost.settled is None, f"it is known again, but it is {lost.settled}"


async def _completed_work_stays(journal: Journal) -> None:
    attempt = await _worked(journal)
    await attempt.stage_done("generate", CHECKPOINT)
    await attempt.finish(TaskState.COMPLETED, {"success": True})
    before = await _record(journal)
    assert before.checkpoints == {"generate": CHECKPOINT}, "the last checkpoint was not kept"
    again = await journal.begin(SPEC)
    assert again.task == before, f"a completed task was begun as {again.task}"
    assert await _record(journal) == before, "beginning a completed task changed it"
    await expect_raises(TaskBusy, again.finish, TaskState.FAILED, None)
    await journal.begin(SPEC)


async def _publishing_goes_on_as_publishing(journal: Journal) -> None:
    attempt = await _worked(journal)
    await attempt.finish(TaskState.PUBLISHING, {"success": True})
    record = await _record(journal)
    assert record.state is TaskState.PUBLISHING, f"a publishing task is {record.state}"
    assert record.checkpoints == {"detect": CHECKPOINT}, "publishing lost the checkpoints"
    await attempt.settle("talk", "collected")
    assert (await _operation(attempt)).settled == "collected", "publishing lost the operation"


async def _operations_are_kept(journal: Journal) -> None:
    attempt = await journal.begin(SPEC)
    assert await attempt.get("talk") is None, "an operation that nobody intended is there"
    first = await attempt.intend("talk", portrait="a.png")
    assert len(first.token) >= 16, "the token can be guessed"
    assert await attempt.intend("talk", portrait="b.png") == first, "it was intended twice"
    await attempt.record("talk", id="tlk-1")
    operation = await _operation(attempt)
    assert operation.facts == {"portrait": "a.png", "id": "tlk-1"}, f"known: {operation.facts}"
    assert operation.settled is None, f"it was {operation.settled} before it was settled"
    await attempt.settle("talk", "unknown")
    await attempt.settle("talk", "collected")
    assert (await _operation(attempt)).settled == "collected", "it was not settled"
    await expect_raises(ValueError, attempt.settle, "talk", "refused")
    await attempt.settle("talk", "unknown")
    assert (await _operation(attempt)).settled == "unknown", "what was collected cannot be lost"
    other = await attempt.intend("other")
    assert other.token != first.token, "two operations have one token"


async def _only_known_operations_are_written(journal: Journal) -> None:
    attempt = await journal.begin(SPEC)
    await expect_raises(LookupError, attempt.record, "talk")
    await expect_raises(LookupError, attempt.settle, "talk", "collected")


async def _only_json_is_kept(journal: Journal) -> None:
    attempt = await journal.begin(SPEC)
    await expect_raises(TypeError, attempt.finish, TaskState.FAILED, {"image": b"bytes"})
    await expect_raises(ValueError, attempt.finish, TaskState.FAILED, {"score": float("nan")})
    await expect_raises(ValueError, attempt.finish, TaskState.RUNNING, None)
    assert (await _record(journal)).state is TaskState.RUNNING, "a refused state was written"


async def _tasks_are_listed(journal: Journal) -> None:
    ids = ("check-b", "check-a", "check-c")
    attempts = [await journal.begin(TaskSpec(name, {}, ())) for name in ids]
    await attempts[1].finish(TaskState.DEFERRED, None)
    assert await _ids(journal) == ids, "tasks() is not oldest first"
    assert await _ids(journal, TaskState.DEFERRED) == ids[1:2], "tasks(state) is wrong"
    assert await _ids(journal, TaskState.DEFERRED, TaskState.RUNNING) == ids, "some are missing"
    assert await _ids(journal, TaskState.FAILED) == (), "some are in a state that they are not"


async def _a_task_is_forgotten(journal: Journal) -> None:
    await journal.forget(SPEC.task_id)
    await (await journal.begin(SPEC)).finish(TaskState.FAILED, None)
    await journal.forget(SPEC.task_id)
    assert await journal.get(SPEC.task_id) is None, "a forgotten task is still known"
    attempt = await journal.begin(TaskSpec(SPEC.task_id, {}, ()))
    assert attempt.task.attempt == 1, "a forgotten task still counts its attempts"


CHECKS = (
    _a_task_begins,
    _a_task_has_one_owner,
    _an_ended_attempt_writes_no_more,
    _an_id_belongs_to_its_work,
    _deferred_work_is_begun_again,
    _deferred_work_is_claimed,
    _ended_work_is_not_claimed,
    _ended_work_begins_anew,
    _what_nobody_knows_outlives_the_end,
    _completed_work_stays,
    _publishing_goes_on_as_publishing,
    _operations_are_kept,
    _only_known_operations_are_written,
    _only_json_is_kept,
    _tasks_are_listed,
    _a_task_is_forgotten,
)


async def _worked(journal: Journal) -> TaskJournal:
    attempt = await journal.begin(SPEC)
    await attempt.stage_done("detect", CHECKPOINT)
    await attempt.intend("talk", portrait="a.png")
    return attempt


async def _deferred(journal: Journal) -> None:
    attempt = await _worked(journal)
    await attempt.finish(TaskState.DEFERRED, {"error": "out"})


async def _check_resumed(journal: Journal, attempt: TaskJournal) -> None:
    found = attempt.task
    assert found.state is TaskState.DEFERRED, "it does not say what it found"
    assert found.attempt == 2, f"the second attempt is number {found.attempt}"
    assert found.checkpoints == {"detect": CHECKPOINT}, f"checkpoints: {found.checkpoints}"
    assert await attempt.get("talk") == found.operations["talk"], "the operation is lost"
    assert (await _record(journal)).state is TaskState.RUNNING, "it is not running again"
    await expect_raises(TaskBusy, journal.begin, SPEC)


async def _record(journal: Journal) -> TaskRecord:
    record = await journal.get(SPEC.task_id)
    assert record is not None, "a task that was begun is not known"
    return record


async def _operation(attempt: TaskJournal) -> Operation:
    operation = await attempt.get("talk")
    assert operation is not None, "an operation that was intended is not known"
    return operation


async def _ids(journal: Journal, *states: TaskState) -> tuple[str, ...]:
    return tuple([record.spec.task_id async for record in journal.tasks(*states)])
