"""Going on with what was deferred, or broken off when a process died."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import attrs

from talkgen.checkpoints import UPLOAD
from talkgen.decisions import paid_for
from talkgen.draft import TaskState
from talkgen.errors import TalkgenError, TaskBusy, TaskConflict
from talkgen.protocols import TaskSpec
from talkgen.steps import stage_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from talkgen.protocols import Journal, TaskJournal, TaskRecord
    from talkgen.runs import Run, Workshop

__all__ = ["Recovery", "recover"]

BUSY = "somebody works on it"
UNFINISHED = (TaskState.RUNNING, TaskState.PUBLISHING, TaskState.DEFERRED)


@attrs.frozen
class Recovery:
    """What `recover()` found.

    Attributes:
        runs: Those that go on now; await them as any other.
        discarded: Tasks of which nothing could be made, and nothing is left.
        skipped: The others, and why each was left alone.
    """

    runs: tuple[Run, ...]
    discarded: tuple[str, ...]
    skipped: Mapping[str, str]


async def recover(
    workshop: Workshop,
    running: Collection[str],
    resume: Callable[[TaskJournal], Run],
    task_ids: Collection[str] | None,
) -> Recovery:
    """Claim and start what can go on, and discard what nobody can go on with.

    Args:
        workshop: The open pipeline's.
        running: The tasks that run in this pipeline, at any moment.
        resume: Starts a run of a claimed task.
        task_ids: Only these; None for all.
    """
    runs: list[Run] = []
    skipped: dict[str, str] = {}
    keys = await stage_keys(workshop.stages)
    discarding = await _discard_abandoned(workshop, running, task_ids)
    for task in await _unfinished(workshop, task_ids):
        task_id = task.spec.task_id
        if task_id in running:
            skipped[task_id] = "it runs in this pipeline"
        elif (reason := _reason_to_skip(task, keys)) is not None:
            skipped[task_id] = reason
        elif (claimed := await workshop.journal.claim(task_id)) is None:
            skipped[task_id] = BUSY
        elif _has_begun(claimed.task):
            runs.append(resume(claimed))
        else:
            discarding[task_id] = await _end(workshop, claimed)
    skipped |= {task_id: why for task_id, why in discarding.items() if why is not None}
    discarded = tuple(task_id for task_id, why in discarding.items() if why is None)
    return Recovery(tuple(runs), discarded, skipped)


async def _unfinished(workshop: Workshop, task_ids: Collection[str] | None) -> list[TaskRecord]:
    return [
        task
        async for task in workshop.journal.tasks(*UNFINISHED)
        if task_ids is None or task.spec.task_id in task_ids
    ]


def _reason_to_skip(task: TaskRecord, keys: tuple[str, ...]) -> str | None:
    """Why a task is to be left alone; None where it is not."""
    if task.state is TaskState.PUBLISHING:
        return None
    if task.state is TaskState.DEFERRED and not _has_begun(task):
        return "it was deferred before its inputs were kept; run it again with them"
    if task.spec.stages != keys and _has_begun(task):
        return f"it was begun by other stages: {', '.join(task.spec.stages)}"
    return None


def _has_begun(task: TaskRecord) -> bool:
    """There is something to go on with: its inputs are kept, or something is paid for."""
    return UPLOAD in task.checkpoints or paid_for(task.operations.values())


async def _discard_abandoned(
    workshop: Workshop, running: Collection[str], task_ids: Collection[str] | None
) -> dict[str, str | None]:
    """Discard what is staged of tasks that the journal does not know or that have ended.

    Returns:
        These tasks, and why one was left alone.
    """
    outcomes = {}
    for task_id in await workshop.storage.staged():
        if task_id not in running and (task_ids is None or task_id in task_ids):
            task = await workshop.journal.get(task_id)
            if _is_abandoned(task, workshop.journal):
                outcomes[task_id] = await _discard(workshop, task_id, task)
    return outcomes


def _is_abandoned(task: TaskRecord | None, journal: Journal) -> bool:
    if task is None:
        # That a journal in memory does not know it means nothing: another pipeline's may.
        return journal.durable
    return task.state.final and task.state is not TaskState.COMPLETED


async def _discard(workshop: Workshop, task_id: str, task: TaskRecord | None) -> str | None:
    """Discard what is staged, as its owner, so that nobody begins the task meanwhile.

    Returns:
        Why it was left alone; None where it was not.
    """
    spec = task.spec if task else TaskSpec(task_id, {}, ())
    try:
        attempt = await workshop.journal.begin(spec)
    except (TaskBusy, TaskConflict):
        return BUSY
    if task is not None and not _is_abandoned(attempt.task, workshop.journal):
        return BUSY  # somebody has begun it since it was looked at
    return await _end(workshop, attempt, forget=task is None)


async def _end(workshop: Workshop, attempt: TaskJournal, *, forget: bool = False) -> str | None:
    """Discard what is staged, and finish the task.

    Returns:
        Why something is left to the next recovery; None where nothing is.
    """
    trouble, task_id = None, attempt.task.spec.task_id
    # Until it is finished, nobody can have the task as long as this process lives.
    with anyio.CancelScope(shield=True):
        try:
            files = await workshop.storage.open(task_id)
            await files.discard()
        except TalkgenError as error:  # of one task, which is not to keep others from going on
            trouble = f"it cannot be discarded: {error}"
        summary = {"error": "It was broken off before there was anything to go on with."}
        await attempt.finish(TaskState.FAILED, attempt.task.summary or summary)
        if forget:
            await workshop.journal.forget(task_id)
    return trouble
