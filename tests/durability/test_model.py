"""A storage and a journal, used by two processes, against a model of both in memory."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from talkgen.draft import TaskState
from talkgen.errors import TaskBusy, TaskConflict
from talkgen.journal import SQLiteJournal
from talkgen.protocols import Checkpoint, TaskSpec
from talkgen.storage import LocalStorage, Retention

RETENTION = Retention(*map(timedelta, (7, 3, 30)), temp=timedelta(hours=1))
STAGES = ("a", "b")

processes = st.sampled_from([0, 1])
task_ids = st.sampled_from(["task-1", "task-2"])
inputs = st.sampled_from(["0" * 64, "0" * 64, "1" * 64])  # mostly the same ones
tiers = st.sampled_from(["uploads", "videos"])


@attrs.define
class Task:
    """What the model knows of a task."""

    inputs: str
    state: TaskState = TaskState.RUNNING
    attempt: int = 1
    owner: int | None = None
    checkpoints: dict = attrs.field(factory=dict)
    operations: dict = attrs.field(factory=dict)


class Process:
    """One process's storage and journal, and the attempts that it has under way."""

    def __init__(self, root, clock):
        self.storage = LocalStorage(root, retention=RETENTION, min_free_bytes=0, clock=clock)
        self.journal = SQLiteJournal(root / "journal.db", clock=clock)
        self.under_way: dict = {}


class Comparison(RuleBasedStateMachine):
    """Does everything to the two and to the model.

    Attributes:
        tasks: The journal's.
        staged: By task, contents by tier.
        published: By task, the time, and contents by tier.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="talkgen-model-"))
        self.portal_context = start_blocking_portal("asyncio")
        self.call = self.portal_context.__enter__().call
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.tasks: dict[str, Task] = {}
        self.staged: dict = {}
        self.published: dict = {}
        self.processes = [Process(self.root, self.clock) for _ in range(2)]

    def teardown(self) -> None:
        for process in self.processes:
            self.call(process.journal.aclose)
        self.portal_context.__exit__(None, None, None)
        shutil.rmtree(self.root)

    def clock(self):
        return self.now

    def taken(self, number, task_id, attempt):
        task, process = self.tasks[task_id], self.processes[number]
        task.owner = number
        transaction = self.call(process.storage.open, task_id)
        process.under_way[task_id] = attempt, transaction

    def mine(self, number, task_id):
        return self.processes[number].under_way.get(task_id)

    @rule(number=processes, task_id=task_ids, digest=inputs)
    def begin(self, number, task_id, digest) -> None:
        journal, task = self.processes[number].journal, self.tasks.get(task_id)
        spec = TaskSpec(task_id, {"image": digest}, STAGES)
        try:
            attempt = self.call(journal.begin, spec)
        except TaskConflict:
            assert task.inputs != digest
            return
        except TaskBusy:
            assert task.owner is not None
            return
        assert task is None or (task.owner is None and task.inputs == digest)
        assert attempt.task.state is (task.state if task else TaskState.RUNNING)
        if task is None:
            self.tasks[task_id] = Task(digest)
        elif task.state is TaskState.COMPLETED:
            return
        elif task.state.final:
            self.tasks[task_id] = Task(digest, attempt=task.attempt + 1)
        else:
            self.resumed(task)
        self.taken(number, task_id, attempt)

    @rule(number=processes, task_id=task_ids)
    def claim(self, number, task_id) -> None:
        task = self.tasks.get(task_id)
        attempt = self.call(self.processes[number].journal.claim, task_id)
        free = task is not None and task.owner is None and not task.state.final
        assert (attempt is not None) == free
        if attempt is not None:
            assert set(attempt.task.checkpoints) == set(task.checkpoints)
            self.resumed(task)
            self.taken(number, task_id, attempt)

    def resumed(self, task):
        task.attempt += 1
        if task.state is not TaskState.PUBLISHING:
            task.state = TaskState.RUNNING

    @rule(number=processes, task_id=task_ids, tier=tiers, content=st.binary(max_size=8))
    def finish_a_stage(self, number, task_id, tier, content) -> None:
        if not (mine := self.mine(number, task_id)) or self.publishing(task_id):
            return
        attempt, transaction = mine
        file = self.call(transaction.put, tier, "made.bin", content)
        self.call(attempt.stage_done, tier, Checkpoint({}, {"made": file}))
        self.staged.setdefault(task_id, {})[tier] = content
        self.tasks[task_id].checkpoints[tier] = content

    @rule(number=processes, task_id=task_ids, settle=st.sampled_from([None, "collected"]))
    def pay(self, number, task_id, settle) -> None:
        if mine := self.mine(number, task_id):
            operations = self.tasks[task_id].operations
            operation = self.call(mine[0].intend, "talk")
            assert operation.token == operations.setdefault("talk", [operation.token, None])[0]
            if settle:
                self.call(mine[0].settle, "talk", settle)
                operations["talk"][1] = settle

    @rule(number=processes, task_id=task_ids, die=st.sampled_from([None, "before", "after"]))
    def publish(self, number, task_id, die) -> None:
        """To the end, or until the process dies before or after the files are placed."""
        if not (mine := self.mine(number, task_id)):
            return
        attempt, transaction = mine
        task = self.tasks[task_id]
        self.call(attempt.finish, TaskState.PUBLISHING, {"success": True})
        task.state = TaskState.PUBLISHING
        if die == "before":
            self.crash(number)
            return
        self.call(transaction.publish, {"success": True})
        files = self.staged.pop(task_id, {})
        if files or task_id not in self.published:
            self.published[task_id] = self.now, files
        if die == "after":
            self.crash(number)
            return
        self.call(attempt.finish, TaskState.COMPLETED, {"success": True})
        task.checkpoints = dict(list(task.checkpoints.items())[-1:])
        self.ended(number, task_id, TaskState.COMPLETED)

    @rule(number=processes, task_id=task_ids)
    def fail(self, number, task_id) -> None:
        if (mine := self.mine(number, task_id)) and not self.publishing(task_id):
            self.call(mine[1].discard)
            self.call(mine[0].finish, TaskState.FAILED, None)
            self.staged.pop(task_id, None)
            self.tasks[task_id].checkpoints = {}
            self.ended(number, task_id, TaskState.FAILED)

    @rule(number=processes, task_id=task_ids)
    def defer(self, number, task_id) -> None:
        if (mine := self.mine(number, task_id)) and not self.publishing(task_id):
            self.call(mine[1].close)
            self.call(mine[0].finish, TaskState.DEFERRED, None)
            self.ended(number, task_id, TaskState.DEFERRED)

    def publishing(self, task_id):
        return self.tasks[task_id].state is TaskState.PUBLISHING

    def ended(self, number, task_id, state):
        self.tasks[task_id].state, self.tasks[task_id].owner = state, None
        del self.processes[number].under_way[task_id]

    @rule(number=processes)
    def crash(self, number) -> None:
        """The kernel frees the lock; nothing else is done."""
        self.call(self.processes[number].journal.aclose)
        self.processes[number] = Process(self.root, self.clock)
        for task in self.tasks.values():
            if task.owner == number:
                task.owner = None

    @rule(number=processes, task_id=task_ids)
    def forget(self, number, task_id) -> None:
        task = self.tasks.get(task_id)
        if task is not None and task.owner is not None:
            with suppress(TaskBusy):
                self.call(self.processes[number].journal.forget, task_id)
                raise AssertionError("a task that somebody works on was forgotten")
            return
        process = self.processes[number]
        self.call(process.journal.forget, task_id)
        self.call(self.call(process.storage.open, task_id).discard)
        self.call(process.storage.delete_task, task_id)
        self.tasks.pop(task_id, None)
        self.staged.pop(task_id, None)
        self.published.pop(task_id, None)

    @rule(number=processes, days=st.sampled_from([1, 8, 31]))
    def wait_and_clean_up(self, number, days) -> None:
        self.now += timedelta(days=days)
        self.call(self.processes[number].storage.cleanup)
        for task_id, (created, files) in list(self.published.items()):
            left = {tier: data for tier, data in files.items() if self.lives(created, tier)}
            self.published[task_id] = created, left
            if not left and not self.lives(created, "videos"):
                del self.published[task_id]

    def lives(self, created, tier):
        return created + RETENTION.of(tier) > self.now

    @invariant()
    def the_journal_agrees(self) -> None:
        for process in self.processes:
            found = {record.spec.task_id: record for record in self.call(self.records, process)}
            assert found.keys() == self.tasks.keys()
            for task_id, task in self.tasks.items():
                record = found[task_id]
                assert (record.state, record.attempt) == (task.state, task.attempt)
                assert list(record.checkpoints) == list(task.checkpoints)
                paid = {n: [op.token, op.settled] for n, op in record.operations.items()}
                assert paid == task.operations

    async def records(self, process):
        return [record async for record in process.journal.tasks()]

    @invariant()
    def the_storage_agrees(self) -> None:
        for process in self.processes:
            assert self.call(process.storage.staged) == tuple(sorted(self.staged))
            assert self.call(self.contents, process) == {
                (task_id, tier): data
                for task_id, (created, files) in self.published.items()
                for tier, data in files.items()
                if self.lives(created, tier)
            }

    async def contents(self, process):
        return {
            (info.file.task_id, info.file.tier): await process.storage.get(info.file)
            async for info in process.storage.list()
        }


def compare(examples):
    run_state_machine_as_test(
        Comparison,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_agrees_with_the_model():
    compare(25)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_agrees_with_the_model_for_long():
    compare(300)
