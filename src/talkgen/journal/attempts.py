"""One attempt of a task, the same for every journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from anyio import lowlevel

from talkgen.errors import TaskBusy
from talkgen.journal.transitions import (
    advanced,
    finished,
    intended,
    new_token,
    recorded,
    settled,
)

if TYPE_CHECKING:
    from talkgen._types import JSON
    from talkgen.draft import TaskState
    from talkgen.journal.transitions import Transition
    from talkgen.protocols import Checkpoint, Operation, Settlement, TaskRecord

__all__ = ["Attempt", "Keeper", "busy", "over"]


class Keeper(Protocol):
    """The part of a journal that an attempt needs."""

    async def change(self, owner: Attempt, transition: Transition) -> None:
        """Replace the owner's record, durably.

        Raises:
            TaskBusy: The attempt is not the owner any more.
        """
        ...


class Attempt:
    """One attempt of a task. It owns the task until it ends, or until nobody refers to it.

    Attributes:
        current: What the journal holds of the task: only its owner changes that, so that the
            owner need not read it.
    """

    def __init__(self, task: TaskRecord, current: TaskRecord, keeper: Keeper) -> None:
        """Made by a journal.

        Args:
            task: As the attempt found it, with this attempt's number.
            current: As it is now.
            keeper: The journal.
        """
        self._task = task
        self.current = current
        self._keeper = keeper

    @property
    def task(self) -> TaskRecord:
        """The task as this attempt found it, with this attempt's number."""
        return self._task

    async def get(self, name: str) -> Operation | None:
        """An operation, as far as it is known."""
        await lowlevel.checkpoint()
        return self.current.operations.get(name)

    async def intend(self, name: str, **facts: JSON) -> Operation:
        """Journal an action before its request; gives back the existing one with its token."""
        token = new_token()
        await self._keeper.change(self, lambda old, now: intended(old, name, facts, token, now))
        return self.current.operations[name]

    async def record(self, name: str, **facts: JSON) -> None:
        """Add facts, such as the remote id, as soon as they are known."""
        await self._keeper.change(self, lambda old, now: recorded(old, name, facts, now))

    async def settle(self, name: str, outcome: Settlement) -> None:
        """Tell how an action ended."""
        await self._keeper.change(self, lambda old, now: settled(old, name, outcome, now))

    async def stage_done(self, stage: str, checkpoint: Checkpoint) -> None:
        """Tell that a stage has ended, its files being staged."""
        await self._keeper.change(self, lambda old, now: advanced(old, stage, checkpoint, now))

    async def finish(self, state: TaskState, summary: JSON) -> None:
        """Set the state; all but `PUBLISHING` end this attempt."""
        await self._keeper.change(self, lambda old, now: finished(old, state, summary, now))


def busy(task_id: str) -> TaskBusy:
    """The error of whoever wants a task that somebody has."""
    return TaskBusy(f"Somebody works on task {task_id}.", hint="Wait until it has ended.")


def over(attempt: Attempt) -> TaskBusy:
    """The error of whoever writes without being the owner."""
    task = attempt.task
    return TaskBusy(
        f"Attempt {task.attempt} at task {task.spec.task_id} has ended; "
        "it may not be written any more."
    )
