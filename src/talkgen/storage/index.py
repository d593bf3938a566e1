"""An index of the manifests in SQLite: a cache, never the truth.

Publishing and deleting do not know of it. Whoever asks brings it up to date first, which costs
as much reading as there are changes:

- It keeps the state of the manifests' folder. Whatever comes into a folder, is renamed there or
  goes, sets the folder's times; an unchanged state proves that no manifest came or went, by
  whosever hand, and nothing else is looked at.
- Otherwise it compares the state of each manifest, and reads those that differ.

A file system's clock ticks, and two changes within a tick look like one. A state is therefore
kept only if it was older than the coarsest tick when it was seen; what was younger is looked at
again. One change goes unseen until the folder changes next: a manifest that somebody edits in
place. talkgen never does, and reads the manifest itself before it gives out or deletes a file.

A lost index is made anew, and so is a damaged one. Where none can be written, the manifests are
read into memory for the one call: all that an index saves is time.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from talkgen.errors import TalkgenError
from talkgen.media import FileRef
from talkgen.storage.filesystem import failures
from talkgen.storage.locks import Exclusive
from talkgen.storage.names import MANIFEST_SUFFIX, TIERS, task_of
from talkgen.storage.retention import expired_until, file_info

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from talkgen.media import Tier
    from talkgen.protocols import FileInfo, Manifest
    from talkgen.storage.filesystem import FileSystem
    from talkgen.storage.layout import Layout
    from talkgen.storage.retention import Retention

__all__ = ["Index"]

T = TypeVar("T")

logger = logging.getLogger("talkgen.storage")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SECOND = 1_000_000_000  # nanoseconds, as in the following
FINE_GRAIN, COARSE_GRAIN = SECOND // 10, 2 * SECOND
PATIENCE = 60.0  # seconds to wait for another process that brings the index up to date

EMPTY = "SELECT count(*) = 0 FROM sqlite_master"
SCHEMA = (
    "CREATE TABLE folder (state TEXT)",
    """CREATE TABLE tasks (
        task_id TEXT PRIMARY KEY, state TEXT, created INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE files (
        created INTEGER, task_id TEXT, tier TEXT, name TEXT,
        size INTEGER NOT NULL, sha256 TEXT NOT NULL,
        PRIMARY KEY (created, task_id, tier, name)
    ) WITHOUT ROWID""",
    "CREATE INDEX sizes ON files (tier, created, size)",
)
FOUND = "CREATE TEMP TABLE found (task_id TEXT PRIMARY KEY, state TEXT) WITHOUT ROWID"

# The state of a manifest that cannot be read is not kept: it is tried again each time.
CHANGED = """
SELECT task_id FROM found LEFT JOIN tasks USING (task_id)
WHERE found.state IS NULL OR tasks.state IS NOT found.state
"""
OUTDATED = f"""
SELECT created, task_id FROM tasks
WHERE task_id NOT IN (SELECT task_id FROM found) OR task_id IN ({CHANGED})
"""  # noqa: S608 - of constants

LIVING = f"created > CASE tier {' '.join(f'WHEN {tier!r} THEN :{tier}' for tier in TIERS)} END"
SIZES = f"SELECT tier, count(*), sum(size) FROM files WHERE {LIVING} GROUP BY tier"  # noqa: S608 - of constants
PAGE = f"""
SELECT created, task_id, tier, name, size, sha256 FROM files
WHERE {LIVING} AND (:only IS NULL OR tier = :only)
    AND (created, task_id, tier, name) > (:after, :after_task, :after_tier, :after_name)
ORDER BY created, task_id, tier, name LIMIT :limit
"""  # noqa: S608 - of constants
DUE = f"""
SELECT task_id FROM files WHERE NOT {LIVING} UNION
SELECT task_id FROM tasks WHERE created <= :videos AND NOT EXISTS
    (SELECT 1 FROM files WHERE files.created = tasks.created AND files.task_id = tasks.task_id)
"""  # noqa: S608 - of constants


class Index:
    """Answers about all published files without reading all manifests; every call blocks."""

    def __init__(
        self,
        layout: Layout,
        disk: FileSystem,
        read: Callable[[str], Manifest | None],
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Use a folder that has been made.

        Args:
            layout: Where the manifests and the index are.
            disk: The calls that change the disk.
            read: Gives a task's manifest; None for one that is gone or cannot be read.
            clock: The clock by which files are stamped, in nanoseconds since 1970.
        """
        self._clock = clock
        self._layout = layout
        self._folder = layout.tier("videos")
        self._disk = disk
        self._read = read
        self._updating = Exclusive(layout.index_lock, shared=disk.durable, timeout=PATIENCE)

    def sizes(self, retention: Retention, now: datetime) -> dict[Tier, tuple[int, int]]:
        """How many files each tier has, and their bytes, where it has any."""

        def question(database: sqlite3.Connection) -> dict[Tier, tuple[int, int]]:
            rows = database.execute(SIZES, _limits(retention, now))
            return {tier: (count, size) for tier, count, size in rows}

        return self._ask(question)

    def page(
        self,
        retention: Retention,
        now: datetime,
        *,
        tier: Tier | None,
        after: FileInfo | None,
        limit: int,
    ) -> list[FileInfo]:
        """Files whose time is not over, oldest first.

        Args:
            retention: How long they are kept.
            now: The time.
            tier: Only this tier's.
            after: Only what comes after this one.
            limit: At most so many.
        """
        place = {"only": tier, "limit": limit, **_position(after)}

        def question(database: sqlite3.Connection) -> list[FileInfo]:
            rows = database.execute(PAGE, _limits(retention, now) | place)
            return [
                file_info(
                    FileRef(task_id, tier, name, size, sha256, self._layout.url(tier, name)),
                    EPOCH + created * MICROSECOND,
                    retention,
                )
                for created, task_id, tier, name, size, sha256 in rows
            ]

        return self._ask(question)

    def due(self, retention: Retention, now: datetime) -> list[str]:
        """Tasks of which something has expired."""

        def question(database: sqlite3.Connection) -> list[str]:
            return [task_id for (task_id,) in database.execute(DUE, _limits(retention, now))]

        return self._ask(question)

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._ask_file(question)
        except (sqlite3.Error, OSError, TalkgenError):
            logger.warning("There is no index: the manifests are read.", exc_info=True)
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
            self._update(database)
            return question(database)

    def _ask_file(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._answer(question)
        except sqlite3.OperationalError:  # it cannot be written now, but is whole
            raise
        except sqlite3.DatabaseError:
            logger.warning("The index %s is damaged and is made anew.", self._layout.index)
        with self._updating.held(), failures("remove", self._layout.index):
            for path in self._layout.index_files:
                self._disk.remove(path)
        return self._answer(question)

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        connection = sqlite3.connect(self._layout.index, timeout=PATIENCE, isolation_level=None)
        with closing(connection) as database:
            if not self._disk.durable:
                database.execute("PRAGMA synchronous = OFF")
            database.execute("BEGIN")
            if not self._is_current(database):
                database.rollback()
                with self._updating.held():
                    database.execute("BEGIN IMMEDIATE")
                    self._update(database)
                    self._disk.commit(database)
                database.execute("BEGIN")
            return question(database)

    def _is_current(self, database: sqlite3.Connection) -> bool:
        if _is_empty(database):
            return False
        (kept,) = database.execute("SELECT state FROM folder").fetchone()
        return bool(kept == _state(self._seen_folder()))

    def _seen_folder(self) -> os.stat_result:
        with failures("list", self._folder):
            return self._folder.stat()

    def _update(self, database: sqlite3.Connection) -> None:
        """Make the rows those of the manifests."""
        began, seen = self._clock(), self._seen_folder()
        for statement in (*(SCHEMA if _is_empty(database) else ()), FOUND):
            database.execute(statement)
        database.executemany("INSERT INTO found VALUES (?, ?)", self._found(began))
        changed = database.execute(CHANGED).fetchall()
        outdated = database.execute(OUTDATED).fetchall()
        database.executemany("DELETE FROM files WHERE (created, task_id) = (?, ?)", outdated)
        database.executemany("DELETE FROM tasks WHERE (created, task_id) = (?, ?)", outdated)
        for (task_id,) in changed:
            if manifest := self._read(task_id):
                _insert(database, manifest)
        database.execute("DELETE FROM folder")
        database.execute("INSERT INTO folder VALUES (?)", (_kept_state(seen, began),))

    def _found(self, now: int) -> Iterator[tuple[str, str | None]]:
        """Each manifest's task and state."""
        with failures("list", self._folder), os.scandir(self._folder) as entries:
            for entry in entries:
                task_id = task_of(entry.name) if entry.name.endswith(MANIFEST_SUFFIX) else None
                with suppress(FileNotFoundError):  # somebody is just removing it
                    if task_id:
                        yield task_id, _kept_state(entry.stat(follow_symlinks=False), now)


def _is_empty(database: sqlite3.Connection) -> bool:
    return bool(database.execute(EMPTY).fetchone()[0])


def _insert(database: sqlite3.Connection, manifest: Manifest) -> None:
    task_id, created = manifest.task_id, _number(manifest.created)
    database.execute(
        "INSERT INTO tasks SELECT task_id, state, ? FROM found WHERE task_id = ?",
        (created, task_id),
    )
    database.executemany(
        "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)",
        [
            (created, task_id, file.tier, file.name, file.size, file.sha256)
            for file in manifest.files
        ],
    )


def _state(seen: os.stat_result) -> str:
    return f"{seen.st_dev}:{seen.st_ino}:{seen.st_size}:{seen.st_mtime_ns}:{seen.st_ctime_ns}"


def _kept_state(seen: os.stat_result, now: int) -> str | None:
    """The state, unless another change might not be told from it.

    Clocks of file systems that count in fractions tick at least every 10 ms, with the kernel;
    FAT's ticks every two seconds, HFS+'s every second.
    """
    touched = max(seen.st_mtime_ns, seen.st_ctime_ns)
    grain = FINE_GRAIN if touched % SECOND else COARSE_GRAIN
    return _state(seen) if touched < now - grain else None


def _number(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def _limits(retention: Retention, now: datetime) -> dict[str, object]:
    """For each tier, the latest time of publication that is over."""
    return {tier: _number(expired_until(tier, retention, now)) for tier in TIERS}


def _position(after: FileInfo | None) -> dict[str, object]:
    created = _number(after.created) if after else -(2**63)
    file = after.file if after else FileRef("", "temp", "", 0, "")
    return {
        "after": created,
        "after_task": file.task_id,
        "after_tier": file.tier,
        "after_name": file.name,
    }
