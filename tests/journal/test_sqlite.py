"""The journal on a disk: its contract, its file, and the processes that share it."""

import gc
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from talkgen import SQLiteJournal
from talkgen.draft import TaskState
from talkgen.errors import InsufficientStorage, JournalUnusable, StorageError, TaskBusy
from talkgen.journal.schema import MIGRATIONS
from talkgen.media import FileRef
from talkgen.protocols import Checkpoint, TaskSpec
from talkgen.testing import check_journal

SPEC = TaskSpec("task-1", {"image": "0" * 64}, ("detect",))
VERSION_1 = Path(__file__).parent / "journal-v1.db"
NEXT_STEP = "ALTER TABLE tasks ADD COLUMN note TEXT NOT NULL DEFAULT 'none'"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store" / "journal.db"


@pytest.fixture
def journal(path):
    return SQLiteJournal(path)


async def test_keeps_the_contract(anyio_backend, tmp_path):
    number = itertools.count()
    await check_journal(lambda: SQLiteJournal(tmp_path / str(next(number)) / "journal.db"))


async def test_making_one_touches_no_disk(anyio_backend, journal, path):
    assert journal.durable
    assert repr(str(path)) in repr(journal)
    assert not path.parent.exists()
    assert await journal.get("task-1") is None
    assert path.exists()


async def test_records_outlive_the_journal(anyio_backend, path):
    journal = SQLiteJournal(path)
    attempt = await journal.begin(SPEC)
    operation = await attempt.intend("talk", portrait="a.png")
    await attempt.finish(TaskState.DEFERRED, {"error": "out"})
    before = await journal.get("task-1")
    await journal.aclose()
    again = SQLiteJournal(path)
    assert await again.get("task-1") == before
    assert before.operations == {"talk": operation}
    assert {file.name for file in path.parent.glob("journal-owner-*")} != set()
    await anyio.to_thread.run_sync(int)  # a worker thread may hold its last call until the next one
    del again, journal, attempt
    gc.collect()
    assert {file.name for file in path.parent.iterdir()} == {"journal.db", "journal.db.lock"}


async def test_is_durable_when_it_returns(anyio_backend, journal):
    await journal.begin(SPEC)
    connection = journal._opened[0].connection
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert connection.execute("PRAGMA fullfsync").fetchone()[0] == 1
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


async def test_nothing_of_a_forgotten_task_is_left_in_any_file(anyio_backend, journal, path):
    """A text that was to be spoken is somebody's words; pages that are free still hold theirs."""
    for task_id in ("a", "forgotten", "z"):
        attempt = await journal.begin(TaskSpec(task_id, {}, ()))
        for length in (10, 3000, 20):
            words = f"{task_id} was said; " * length
            await attempt.stage_done("upload", Checkpoint({"text": words}, {}))
    del attempt
    gc.collect()
    await journal.forget("forgotten")
    files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert b"z was said" in b"".join(files.values())
    assert [name for name, data in files.items() if b"forgotten was said" in data] == []


# --- owners ------------------------------------------------------------------------------------


async def test_two_processes_never_own_one_task(anyio_backend, path):
    """Each journal has a lock of its own, as each process has."""
    mine, other = SQLiteJournal(path), SQLiteJournal(path)
    attempt = await mine.begin(SPEC)
    for call in (other.begin(SPEC), other.forget("task-1")):
        with pytest.raises(TaskBusy):
            await call
    assert await other.claim("task-1") is None
    await mine.aclose()
    claimed = await other.claim("task-1")
    assert (claimed.task.attempt, claimed.task.state) == (2, TaskState.RUNNING)
    with pytest.raises(TaskBusy, match="Attempt 1 at task task-1 has ended"):
        await attempt.intend("talk")
    assert await mine.claim("task-1") is None


async def test_who_lost_the_task_in_the_file_changes_nothing(anyio_backend, journal, path):
    """The last word on who owns a task has the file, in the same transaction as the change."""
    attempt = await journal.begin(SPEC)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tasks SET owner = 'journal-owner-another.lock'")
    before = await journal.get("task-1")
    with pytest.raises(TaskBusy, match="Attempt 1 at task task-1 has ended"):
        await attempt.intend("talk")
    assert await journal.get("task-1") == before
    assert await attempt.get("talk") is None


async def test_an_attempt_that_nobody_refers_to_is_over(anyio_backend, journal):
    attempt = await journal.begin(SPEC)
    del attempt
    gc.collect()
    assert (await journal.claim("task-1")).task.attempt == 2


async def test_one_of_many_threads_begins_a_task(anyio_backend, path):
    journals = [SQLiteJournal(path), SQLiteJournal(path)]
    together, got, busy = threading.Barrier(8), [], []

    async def begin(journal):
        together.wait()
        try:
            got.append(await journal.begin(SPEC))
        except TaskBusy:
            busy.append(1)

    def run(number):
        anyio.run(begin, journals[number % 2], backend=anyio_backend)

    threads = [threading.Thread(target=run, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join)
    assert (len(got), len(busy)) == (1, 7)


async def test_a_cancelled_begin_owns_nothing(anyio_backend, journal):
    await journal.get("task-1")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await journal.begin(SPEC)
    gc.collect()
    attempt = await journal.begin(SPEC)
    await attempt.finish(TaskState.COMPLETED, None)


HOLDER = """
import anyio, os, sys
from talkgen import SQLiteJournal
from talkgen.protocols import TaskSpec
journal = SQLiteJournal(sys.argv[1])
attempt = anyio.run(journal.begin, TaskSpec("task-1", {"image": "0" * 64}, ("detect",)))
{then}
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(path):
    """Another process that begins the task."""
    started = []

    def start(then=""):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER.replace("{then}", then), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def test_a_killed_process_owns_nothing(anyio_backend, journal, path, holder):
    process = holder()
    assert await journal.claim("task-1") is None
    os.kill(process.pid, signal.SIGSTOP)
    assert await journal.claim("task-1") is None, "a stopped process lost its task"
    with pytest.raises(TaskBusy):
        await journal.begin(SPEC)
    process.kill()
    process.wait()
    assert len(list(path.parent.glob("journal-owner-*"))) == 2
    assert (await journal.claim("task-1")).task.attempt == 2
    assert len(list(path.parent.glob("journal-owner-*"))) == 1


async def test_what_the_dead_left_is_removed(anyio_backend, journal, path, holder):
    process = holder()
    process.kill()
    process.wait()
    await journal.get("task-1")
    assert len(list(path.parent.glob("journal-owner-*"))) == 1


FORK = """
child = os.fork()
if child == 0:
    from talkgen.errors import TaskBusy
    async def try_all():
        try:
            await attempt.intend("talk")
        except TaskBusy:
            pass
        else:
            os._exit(1)
        other = await journal.claim("task-1")
        mine = await journal.begin(TaskSpec("task-2", {}, ()))
        os._exit(0 if other is None and mine.task.attempt == 1 else 2)
    anyio.run(try_all)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
anyio.run(attempt.intend, "talk")  # the parent is still the owner
if (sleeper := os.fork()) == 0:
    sys.stdin.read()
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
async def test_a_forked_child_is_another_process(anyio_backend, journal, holder):
    """It owns nothing of its parent's, and does not keep its parent's lock when that dies."""
    process = holder(FORK)
    assert await journal.claim("task-1") is None, "a child that has ended took the lock along"
    process.kill()
    process.wait()
    claimed = await journal.claim("task-1")
    assert claimed is not None, "a child that lives keeps the lock of its dead parent"
    assert await claimed.get("talk") is not None


# --- the file ----------------------------------------------------------------------------------


def version_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


async def check_version_1(journal):
    """What the frozen file holds, as it was written."""
    ids = [record.spec.task_id async for record in journal.tasks()]
    assert ids == ["running", "deferred", "completed"]
    deferred = await journal.get("deferred")
    portrait = FileRef("deferred", "processed", "deferred_cropped.png", 3, "1" * 64, "file:///x")
    assert deferred.spec == TaskSpec(
        "deferred", {"image": "0" * 64, "speech": "2" * 64}, ("a", "b")
    )
    assert deferred.state is TaskState.DEFERRED
    assert deferred.attempt == 1
    assert deferred.created == datetime(2030, 1, 1, 0, 1, tzinfo=UTC)
    assert deferred.updated == datetime(2030, 1, 1, 0, 5, tzinfo=UTC)
    assert deferred.summary == {"error": "out"}
    assert deferred.checkpoints == {"a": Checkpoint({"box": [1, 2]}, {"portrait": portrait})}
    (operation,) = deferred.operations.values()
    assert (operation.name, operation.facts, operation.settled) == ("talk", {"id": "t"}, None)
    assert len(operation.token) == 32
    assert (await journal.get("completed")).summary == {"success": True}


async def test_version_1_is_read(anyio_backend, path):
    path.parent.mkdir()
    shutil.copy(VERSION_1, path)
    assert version_of(path) == 1
    journal = SQLiteJournal(path)
    await check_version_1(journal)
    claimed = [await journal.claim(name) for name in ("running", "deferred", "completed")]
    assert [bool(attempt) for attempt in claimed] == [True, True, False]


async def test_the_next_version_is_made_of_version_1(anyio_backend, path):
    path.parent.mkdir()
    shutil.copy(VERSION_1, path)
    journal = SQLiteJournal(path, migrations=(*MIGRATIONS, NEXT_STEP))
    await check_version_1(journal)
    await (await journal.begin(SPEC)).finish(TaskState.FAILED, None)
    await journal.aclose()
    assert version_of(path) == len(MIGRATIONS) + 1
    before = path.read_bytes()
    with pytest.raises(JournalUnusable, match="version 2, and this talkgen knows up to 1") as e:
        await SQLiteJournal(path).begin(SPEC)
    assert "newer talkgen" in e.value.hint
    assert path.read_bytes() == before


async def test_a_step_is_taken_wholly_or_not_at_all(anyio_backend, path):
    path.parent.mkdir()
    shutil.copy(VERSION_1, path)
    broken = SQLiteJournal(path, migrations=(*MIGRATIONS, f"{NEXT_STEP}; NONSENSE"))
    with pytest.raises(JournalUnusable, match="syntax error"):
        await broken.get("running")
    assert version_of(path) == 1
    await check_version_1(SQLiteJournal(path))


HALF_MADE = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # so that the file is written before the end
connection.execute("BEGIN")
connection.execute("CREATE TABLE tasks (a)")
for _ in range(100):
    connection.execute("INSERT INTO tasks VALUES (zeroblob(4000))")
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_a_file_whose_maker_was_killed_is_made_anew(anyio_backend, journal, path):
    path.parent.mkdir()
    await anyio.run_process([sys.executable, "-c", HALF_MADE, str(path)], check=False)
    assert path.stat().st_size > 0
    assert path.with_name("journal.db-journal").exists()
    assert (await journal.begin(SPEC)).task.attempt == 1


def noise(path):
    path.write_bytes(bytes(range(256)) * 64)


def cut_short(path):
    path.write_bytes(VERSION_1.read_bytes()[:9000])


def overwritten(path):
    data = bytearray(VERSION_1.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    path.write_bytes(data)


def another_programs(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE others (a)")


@pytest.mark.parametrize("spoil", [noise, cut_short, overwritten, another_programs])
async def test_a_file_that_is_no_journal_is_not_touched(anyio_backend, path, spoil):
    path.parent.mkdir()
    spoil(path)
    before = path.read_bytes()
    journal = SQLiteJournal(path)
    for _ in range(2):
        with pytest.raises(JournalUnusable) as e:
            await journal.begin(SPEC)
        assert str(path) in str(e.value)
        assert e.value.hint
    assert path.read_bytes() == before


async def test_a_damaged_record_is_a_clear_error(anyio_backend, journal, path):
    await (await journal.begin(SPEC)).finish(TaskState.DEFERRED, None)
    await journal.aclose()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tasks SET checkpoints = 'no json'")
    for call in (journal.get("task-1"), journal.begin(SPEC), journal.claim("task-1")):
        with pytest.raises(JournalUnusable, match="is damaged"):
            await call


async def test_a_database_that_stays_locked_is_told(anyio_backend, path):
    await SQLiteJournal(path).get("task-1")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        journal = SQLiteJournal(path, patience=0.05)
        with pytest.raises(JournalUnusable, match="Another process keeps the journal"):
            await journal.begin(SPEC)
        assert await journal.get("task-1") is None, "readers do not wait for writers"
        connection.execute("ROLLBACK")
        await journal.begin(SPEC)


async def test_a_folder_that_cannot_be_made_is_told(anyio_backend, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalUnusable, match="cannot be used"):
        await SQLiteJournal(tmp_path / "file" / "journal.db").get("task-1")
    assert issubclass(JournalUnusable, StorageError)


async def test_a_full_disk_has_its_own_error(anyio_backend, journal):
    await journal.get("task-1")
    pages = journal._opened[0].connection.execute("PRAGMA page_count").fetchone()[0]
    journal._opened[0].connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(InsufficientStorage, match="no room for the journal"):
        await journal.begin(TaskSpec("big", {"x": "0" * 100_000}, ()))
    assert await journal.get("big") is None


async def test_times_keep_their_order_in_any_zone(anyio_backend, path):
    zones = [UTC, datetime.now(UTC).astimezone().tzinfo]
    times = iter(
        datetime(2030, 1, 1, tzinfo=UTC).astimezone(zones[n % 2]) + timedelta(microseconds=n)
        for n in range(9)
    )
    journal = SQLiteJournal(path, clock=lambda: next(times))
    for name in ("c", "b", "a"):
        await journal.begin(TaskSpec(name, {}, ()))
    assert [record.spec.task_id async for record in journal.tasks()] == ["c", "b", "a"]
