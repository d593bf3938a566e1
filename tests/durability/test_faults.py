"""The n-th write fails, for every n: a run then succeeds, or leaves nothing, or is deferred.

Every call that changes the disk, and every statement that changes the journal, fails in turn with
a full disk or an input/output error, until a run passes untouched.
"""

from __future__ import annotations

import errno
import sqlite3
from datetime import timedelta
from functools import partial
from itertools import count

import numpy as np
import pytest

from talkgen import GenerateVideo, LocalStorage, Pipeline, Speech, SQLiteJournal
from talkgen.draft import TaskState
from talkgen.errors import InsufficientStorage, StorageError
from talkgen.storage.filesystem import FileSystem
from talkgen.testing import FakePaidGenerator, PaidServer

PICTURE = np.full((16, 16, 3), 7, np.uint8)
SPEECH = Speech(np.full((1, 800), 0.25, np.float32), 16_000)
STATEMENTS = ("BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT")
SQLITE = {errno.ENOSPC: sqlite3.SQLITE_FULL, errno.EIO: sqlite3.SQLITE_IOERR}


class Faults:
    """Lets the n-th change fail.

    Attributes:
        struck: What it was.
    """

    def __init__(self, at, number):
        self.at, self.number = at, number
        self.passed = 0
        self.struck = None

    def fails(self, name):
        self.passed += 1
        if self.passed - 1 != self.at:
            return False
        self.struck = name
        return True

    def check(self, name, *_):
        if self.fails(name):
            raise OSError(self.number, "injected", name)

    def disk(self):
        faults = self

        class Disk(FileSystem):
            pass

        for name in set(vars(FileSystem)) - {"durable"}:
            if not name.startswith("_"):
                setattr(Disk, name, faults.before(name, getattr(FileSystem, name)))
        return Disk()

    def before(self, name, function):
        def call(*args, **options):
            self.check(name)
            return function(*args, **options)

        return call

    def connection(self):
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, statement, *args):
                if statement.split()[0] in STATEMENTS and faults.fails(statement.split()[0]):
                    error = sqlite3.OperationalError("injected")
                    error.sqlite_errorcode = SQLITE[faults.number]
                    raise error
                return super().execute(statement, *args)

        return Connection


class Copied:
    """A stage that keeps a file; not paid for."""

    name = key = "copied"
    weight = 1.0
    requires = provides = resets = frozenset()

    async def run(self, draft, context):
        async with context.files.scratch() as folder:
            path = folder / "made.bin"
            path.write_bytes(b"made")
            await context.files.put("processed", "made.bin", path)
        return draft


@pytest.fixture
def anyio_backend():
    """One loop is enough: all of this happens in threads."""
    return "asyncio"


async def state_of(root):
    journal = SQLiteJournal(root / "journal.db")
    record = await journal.get("task")
    await journal.aclose()
    return record and record.state


def pipeline(root, stages, disk=None):
    return Pipeline(stages, storage=LocalStorage(root, min_free_bytes=0, disk=disk))


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, pytest.param(errno.EIO, marks=pytest.mark.slow)],
    ids=["ENOSPC", "EIO"],
)
@pytest.mark.parametrize("paid", [True, False], ids=["paid", "free"])
async def test_any_write_may_fail(tmp_path, monkeypatch, harness, paid, number):
    seen = set()
    for at in count():
        root = tmp_path / str(at)
        faults = Faults(at, number)
        with PaidServer() as server:
            generator = GenerateVideo(FakePaidGenerator(server.url, poll=0.001, grace=timedelta(0)))
            stages = [Copied(), generator] if paid else [Copied()]
            with monkeypatch.context() as patch:
                connect = partial(sqlite3.connect, factory=faults.connection())
                patch.setattr(sqlite3, "connect", connect)
                outcome = await run_once(root, stages, faults)
            seen.add(outcome)
            if outcome == "deferred":
                assert len(server.ledger) <= 1
                async with pipeline(root, stages) as again:
                    (one,) = (await again.recover()).runs
                    assert (await one).success
            if outcome != "failed" and paid:
                assert len(server.ledger) == 1, (at, faults.struck)
        if outcome == "failed":
            assert server.ledger == [], (at, faults.struck)
            assert list(root.glob("*/task*")) == [], (at, faults.struck)
        state = await state_of(root)
        assert state in {None, TaskState.FAILED, TaskState.COMPLETED, TaskState.PUBLISHING}
        async with pipeline(root, stages) as again:
            recovery = await again.recover()
            for one in recovery.runs:
                assert (await one).success
        if outcome != "failed":
            assert await state_of(root) is TaskState.COMPLETED, (at, faults.struck)
        assert harness.orphans(root) - {"journal.db.lock"} == set(), (at, faults.struck)
        if faults.struck is None:
            break
    assert seen == {"completed", "failed", *(["deferred"] if paid else [])}
    assert at > 30


async def run_once(root, stages, faults):
    try:
        result = await pipeline(root, stages, faults.disk()).run(PICTURE, SPEECH, task_id="task")
    except (StorageError, InsufficientStorage):
        return "failed"
    return result.status.value
