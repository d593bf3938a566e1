"""A journal in an SQLite database: it outlives the process, and several processes share it."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, WeakValueDictionary, finalize

import attrs
from anyio import to_thread
from filelock import FileLock, Timeout

from talkgen._clock import utc_now
from talkgen._flush import flush_folder, make_folders
from talkgen._iteration import Fetched
from talkgen.draft import TaskState
from talkgen.errors import InsufficientStorage, JournalUnusable, TalkgenError
from talkgen.journal.attempts import Attempt, busy, over
from talkgen.journal.owners import Owner, is_alive, remove_stale
from talkgen.journal.records import COLUMNS, decode, encode
from talkgen.journal.schema import MIGRATIONS, check, damaged, migrate
from talkgen.journal.transitions import OWNED, begun, resumed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from datetime import datetime

    from talkgen.journal.transitions import Transition
    from talkgen.protocols import TaskRecord, TaskSpec

__all__ = ["SQLiteJournal"]

PATIENCE = 30.0  # seconds for which another process may keep the database locked

CHANGED = ", ".join(f"{name} = :{name}" for name in (*COLUMNS[1:], "owner"))
TAKE = (
    f"INSERT INTO tasks ({', '.join(COLUMNS)}, owner) "  # noqa: S608 - names of our own
    f"VALUES ({', '.join(f':{name}' for name in COLUMNS)}, :owner) "
    f"ON CONFLICT (task_id) DO UPDATE SET {CHANGED}"
)
# A transaction of its own: who is not the owner any more changes nothing.
CHANGE = f"UPDATE tasks SET {CHANGED} WHERE task_id = :task_id AND owner = :me"  # noqa: S608


class SQLiteJournal:
    """Keeps records in a file on a local disk, for any number of processes of one machine.

    Every call works in a thread and is durable when it returns. The owner of a task is a process,
    alive as long as it holds its lock file beside the database, and in it the `TaskJournal` that
    `begin` or `claim` gave. Inputs are kept as digests, files as names: neither media nor secrets
    are in it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], datetime] = utc_now,
        migrations: Sequence[str] = MIGRATIONS,
        patience: float = PATIENCE,
    ) -> None:
        """Name the file; it is made, with its folder, when it is first used.

        Args:
            path: The database.
            clock: Gives the time, with its zone.
            migrations: The steps to the present version, for tests.
            patience: Seconds for which another process may keep the database locked.
        """
        self._path = Path(path).absolute()
        self._clock = clock
        self._migrations = migrations
        self._patience = patience
        self._lock = threading.Lock()
        self._opened: list[_Opened] = []  # one or none
        finalize(self, _close_all, self._opened)
        _JOURNALS.add(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"

    @property
    def path(self) -> Path:
        """The database, absolute."""
        return self._path

    @property
    def durable(self) -> bool:
        """Records outlive this process."""
        return True

    async def begin(self, task: TaskSpec) -> Attempt:
        """Create a task, or take over one that nobody works on; raises the attempt by one.

        A completed task is given back as it is, owned by nobody.

        Raises:
            TaskBusy: A living owner works on it.
            TaskConflict: The id belongs to other inputs or stages.
            JournalUnusable: The file is damaged, newer than this talkgen, or cannot be written.
        """
        return await to_thread.run_sync(self._begin, task)

    async def claim(self, task_id: str) -> Attempt | None:
        """Take over a deferred task, or one of a dead owner; None if there is nothing to take."""
        return await to_thread.run_sync(self._claim, task_id)

    async def get(self, task_id: str) -> TaskRecord | None:
        """What is known of a task."""
        return await to_thread.run_sync(self._get, task_id)

    def tasks(self, *states: TaskState) -> AsyncIterator[TaskRecord]:
        """Tasks in these states, or all, oldest first."""
        return Fetched(partial(to_thread.run_sync, self._fetch, states or tuple(TaskState)))

    async def forget(self, task_id: str) -> None:
        """Drop the record of a task, if there is one.

        Raises:
            TaskBusy: Somebody works on it.
        """
        await to_thread.run_sync(self._forget, task_id)

    async def change(self, owner: Attempt, transition: Transition) -> None:
        """Replace the owner's record; for `Attempt` alone.

        Raises:
            TaskBusy: The attempt is not the owner any more.
        """
        await to_thread.run_sync(self._change, owner, transition)

    async def aclose(self) -> None:
        """Release the file and the lock; the next call opens them again.

        Attempts that have not ended lose their tasks, as if the process had died.
        """
        await to_thread.run_sync(self._close)

    # --- in a thread ---------------------------------------------------------------------------

    def _begin(self, task: TaskSpec) -> Attempt:
        with self._writing() as opened:
            found = opened.load(task.task_id)
            record = begun(found.record if found else None, task, self._clock())
            if opened.owned(found):
                raise busy(task.task_id)
            return self._taken(opened, record, found)

    def _claim(self, task_id: str) -> Attempt | None:
        with self._writing() as opened:
            found = opened.load(task_id)
            if found is None or found.record.state.final or opened.owned(found):
                return None
            return self._taken(opened, resumed(found.record, self._clock()), found)

    def _taken(self, opened: _Opened, record: TaskRecord, found: _Row | None) -> Attempt:
        state = found.record.state if found else record.state
        attempt = Attempt(attrs.evolve(record, state=state), record, self)
        if record.state in OWNED:
            opened.take(record)
            opened.connection.execute("COMMIT")
            opened.attempts[record.spec.task_id] = attempt
        return attempt

    def _change(self, owner: Attempt, transition: Transition) -> None:
        task_id = owner.task.spec.task_id
        with self._using() as opened:
            if opened.attempts.get(task_id) is not owner:
                raise over(owner)
            record = transition(owner.current, self._clock())
            if not opened.change(record):
                raise over(owner)
            owner.current = record
            if record.state not in OWNED:
                del opened.attempts[task_id]

    def _forget(self, task_id: str) -> None:
        with self._writing() as opened:
            if opened.owned(opened.load(task_id)):
                raise busy(task_id)
            opened.connection.execute("DELETE FROM tasks WHERE task_id = ?", [task_id])
            opened.connection.execute("COMMIT")
            # The log still has the pages as they were.
            opened.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _get(self, task_id: str) -> TaskRecord | None:
        with self._using() as opened:
            found = opened.load(task_id)
            return found.record if found else None

    def _fetch(self, states: tuple[TaskState, ...]) -> list[TaskRecord]:
        marks = ", ".join("?" * len(states))
        query = f"SELECT * FROM tasks WHERE state IN ({marks}) ORDER BY created, rowid"  # noqa: S608 - marks only
        with self._using() as opened:
            return [opened.read(row) for row in opened.connection.execute(query, states)]

    def _close(self) -> None:
        with self._lock:
            _close_all(self._opened)

    @contextmanager
    def _using(self) -> Iterator[_Opened]:
        """The open file, for one thread at a time."""
        with self._lock, _explained(self._path):
            if not self._opened:
                self._opened.append(self._open())
            yield self._opened[0]

    @contextmanager
    def _writing(self) -> Iterator[_Opened]:
        """A transaction that no other process's can come between; the block commits it."""
        with self._using() as opened:
            opened.connection.execute("BEGIN IMMEDIATE")
            try:
                yield opened
            finally:
                if opened.connection.in_transaction:
                    with suppress(sqlite3.Error):  # the block's own failure is the one to hear of
                        opened.connection.execute("ROLLBACK")

    def _open(self) -> _Opened:
        folder = self._path.parent
        if not self._path.exists():
            make_folders(folder, partial(Path.mkdir, exist_ok=True), flush_folder)
        # Of those who open the file, one at a time: nobody finds it half made, and nobody takes
        # a lock file that is just being made for a dead one's.
        with FileLock(f"{self._path}.lock", timeout=self._patience, thread_local=False):
            version = self._checked()
            connection = self._connect("rwc")
            try:
                _prepare(connection, self._migrations[version:], len(self._migrations))
                flush_folder(folder)
                remove_stale(folder)
                return _Opened(connection, self._path, Owner(folder))
            except BaseException:
                connection.close()
                raise

    def _checked(self) -> int:
        """The version of the file, which is opened for reading only and so stays as it is."""
        if not self._path.exists():
            return 0
        try:
            return self._version("ro")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
        # Whoever was making the file died meanwhile: SQLite must take back what is half done.
        return self._version("rw")

    def _version(self, mode: str) -> int:
        with closing(self._connect(mode)) as connection:
            return check(connection, self._path, len(self._migrations))

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode={mode}",
            uri=True,
            timeout=self._patience,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.row_factory = sqlite3.Row
        return connection


@attrs.frozen
class _Row:
    """A record, and who owns it."""

    record: TaskRecord
    owner: str | None


@attrs.define(eq=False)
class _Opened:
    """What one process has open; whoever uses it holds the journal's lock."""

    connection: sqlite3.Connection
    path: Path
    owner: Owner
    attempts: WeakValueDictionary[str, Attempt] = attrs.field(factory=WeakValueDictionary)

    def load(self, task_id: str) -> _Row | None:
        query = "SELECT * FROM tasks WHERE task_id = ?"
        row = self.connection.execute(query, [task_id]).fetchone()
        return _Row(self.read(row), row["owner"]) if row else None

    def read(self, row: sqlite3.Row) -> TaskRecord:
        try:
            return decode(row)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise damaged(self.path, repr(error)) from error

    def take(self, record: TaskRecord) -> None:
        """Keep a record as this process's own."""
        self.connection.execute(TAKE, {**encode(record), "owner": self.owner.name})

    def change(self, record: TaskRecord) -> bool:
        """Replace a record of this process's, at once; False if it is not its own any more."""
        owner = self.owner.name if record.state in OWNED else None
        values = {**encode(record), "owner": owner, "me": self.owner.name}
        return self.connection.execute(CHANGE, values).rowcount == 1

    def owned(self, found: _Row | None) -> bool:
        """A living owner works on it."""
        if found is None or found.owner is None:
            return False
        if found.owner == self.owner.name:
            return found.record.spec.task_id in self.attempts
        return is_alive(self.path.parent, found.owner)


def _prepare(connection: sqlite3.Connection, steps: Sequence[str], version: int) -> None:
    # A write-ahead log takes one fsync for each commit where a rollback journal takes three, and
    # readers do not wait for it. FULL: the fsync is over when the commit returns. fullfsync: on
    # macOS, not before the drive's own cache is written.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")
    # What is deleted or replaced is overwritten: a text that was to be spoken is somebody's.
    connection.execute("PRAGMA secure_delete = ON")
    migrate(connection, steps, version)


def _close_all(opened: list[_Opened]) -> None:
    while opened:
        one = opened.pop()
        one.connection.close()
        one.owner.release()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say in talkgen's own errors what the database or the system refused."""
    try:
        yield
    except TalkgenError:
        raise
    except Timeout as error:
        raise _locked(path) from error
    except sqlite3.DatabaseError as error:
        raise _translated(error, path) from error
    except OSError as error:
        raise JournalUnusable(f"The journal {path} cannot be used: {error}.") from error


def _translated(error: sqlite3.DatabaseError, path: Path) -> TalkgenError:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # without what extends it
        case sqlite3.SQLITE_FULL:
            return InsufficientStorage(f"The disk has no room for the journal {path}.")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return _locked(path)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(path, error)
    return JournalUnusable(f"The journal {path} cannot be used: {error}.")


def _locked(path: Path) -> JournalUnusable:
    return JournalUnusable(
        f"Another process keeps the journal {path} locked.",
        hint="It may have been stopped in the middle of a write: continue or end it.",
    )


# --- after a fork ------------------------------------------------------------------------------

_JOURNALS: WeakSet[SQLiteJournal] = WeakSet()
_inherited: list[Any] = []


def _forked() -> None:
    """In a child: it is another process, and owns nothing of what its parent has open.

    SQLite forbids even to close a connection that was carried across a fork, so it is kept.
    """
    for journal in list(_JOURNALS):
        _inherited.extend(journal._opened)  # noqa: SLF001 - this module's own class
        journal._opened.clear()  # noqa: SLF001
        journal._lock = threading.Lock()  # noqa: SLF001 - a thread that is not here may have it


if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows, which cannot fork
    os.register_at_fork(after_in_child=_forked)
