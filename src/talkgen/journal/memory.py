"""A journal in this process's memory."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import attrs

from talkgen._clock import utc_now
from talkgen._iteration import Fetched
from talkgen.draft import TaskState
from talkgen.journal.attempts import Attempt, busy, over
from talkgen.journal.transitions import OWNED, begun, resumed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from talkgen.journal.transitions import Transition
    from talkgen.protocols import TaskRecord, TaskSpec

__all__ = ["MemoryJournal"]


class MemoryJournal:
    """Keeps records in memory, for as long as this process lives.

    Any number of threads and event loops may share it. The owner of a task is the `TaskJournal`
    that `begin` or `claim` gave; it is dead once nobody refers to it any more.
    """

    def __init__(self, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Make an empty journal.

        Args:
            clock: Gives the time, with its zone.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._records: dict[str, TaskRecord] = {}
        self._owners: WeakValueDictionary[str, Attempt] = WeakValueDictionary()

    @property
    def durable(self) -> bool:
        """Records go with this process."""
        return False

    async def begin(self, task: TaskSpec) -> Attempt:
        """Create a task, or take over one that nobody works on; raises the attempt by one.

        A completed task is given back as it is, owned by nobody.

        Raises:
            TaskBusy: A living owner works on it.
            TaskConflict: The id belongs to other inputs or stages.
        """
        with self._lock:
            found = self._records.get(task.task_id)
            record = begun(found, task, self._clock())
            self._check_free(task.task_id)
            return self._taken(record, found)

    async def claim(self, task_id: str) -> Attempt | None:
        """Take over a deferred task, or one of a dead owner; None if there is nothing to take."""
        with self._lock:
            found = self._records.get(task_id)
            if found is None or found.state.final or task_id in self._owners:
                return None
            return self._taken(resumed(found, self._clock()), found)

    async def get(self, task_id: str) -> TaskRecord | None:
        """What is known of a task."""
        with self._lock:
            return self._records.get(task_id)

    def tasks(self, *states: TaskState) -> AsyncIterator[TaskRecord]:
        """Tasks in these states, or all, oldest first."""
        return Fetched(partial(self._fetch, frozenset(states or TaskState)))

    async def forget(self, task_id: str) -> None:
        """Drop the record of a task, if there is one.

        Raises:
            TaskBusy: Somebody works on it.
        """
        with self._lock:
            self._check_free(task_id)
            self._records.pop(task_id, None)

    async def change(self, owner: Attempt, transition: Transition) -> None:
        """Replace the owner's record; for `Attempt` alone.

        Raises:
            TaskBusy: The attempt is not the owner any more.
        """
        task_id = owner.task.spec.task_id
        with self._lock:
            if self._owners.get(task_id) is not owner:
                raise over(owner)
            owner.current = self._records[task_id] = transition(owner.current, self._clock())
            if owner.current.state not in OWNED:
                del self._owners[task_id]

    async def _fetch(self, states: frozenset[TaskState]) -> tuple[TaskRecord, ...]:
        with self._lock:
            chosen = (record for record in self._records.values() if record.state in states)
            return tuple(sorted(chosen, key=lambda record: record.created))

    def _check_free(self, task_id: str) -> None:
        if task_id in self._owners:
            raise busy(task_id)

    def _taken(self, record: TaskRecord, found: TaskRecord | None) -> Attempt:
        task_id = record.spec.task_id
        attempt = Attempt(attrs.evolve(record, state=(found or record).state), record, self)
        self._records[task_id] = record
        if record.state in OWNED:
            self._owners[task_id] = attempt
        return attempt
