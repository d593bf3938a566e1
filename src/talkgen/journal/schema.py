"""The tables of a journal, and how an older version becomes the present one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkgen.errors import JournalUnusable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["MIGRATIONS", "check", "damaged", "migrate"]

# Marks the file as ours, so that no other database is taken for a journal: "talk".
APPLICATION_ID = 0x74616C6B

# The n-th makes version n + 1 of version n; an empty file is version 0. Only ever append.
MIGRATIONS = (
    """
    CREATE TABLE tasks (
        task_id TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        owner TEXT,
        attempt INTEGER NOT NULL,
        created TEXT NOT NULL,
        updated TEXT NOT NULL,
        inputs TEXT NOT NULL,
        stages TEXT NOT NULL,
        summary TEXT NOT NULL,
        checkpoints TEXT NOT NULL,
        operations TEXT NOT NULL
    );
    CREATE INDEX tasks_by_state ON tasks (state, created)
    """,
)


def check(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """The version of a file.

    Args:
        connection: Open for reading.
        path: The file, for the message.
        newest: The latest version that is known here.

    Raises:
        JournalUnusable: It is newer, no journal, or damaged.
    """
    version = int(_value(connection, "PRAGMA user_version"))
    if version > newest:
        raise JournalUnusable(
            f"{path} is a journal of version {version}, and this talkgen knows up to {newest}.",
            hint="Use the newer talkgen that wrote it; it was not changed.",
        )
    tables = _value(connection, "SELECT count(*) FROM sqlite_schema")
    if (tables or version) and _value(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise JournalUnusable(f"{path} is another program's database.", hint="Name another file.")
    if (trouble := _value(connection, "PRAGMA quick_check(1)")) != "ok":
        raise damaged(path, trouble)
    return version


def migrate(connection: sqlite3.Connection, steps: Sequence[str], version: int) -> None:
    """Bring a file to a version, wholly or not at all.

    Args:
        connection: Open for writing, in no transaction.
        steps: From the file's version to this one; none where it has it already.
        version: This one.
    """
    if not steps:
        return
    connection.execute("BEGIN IMMEDIATE")
    for statement in ";".join(steps).split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("COMMIT")


def damaged(path: Path, trouble: object) -> JournalUnusable:
    """The error of a file that is no whole database."""
    return JournalUnusable(
        f"The journal {path} is damaged: {trouble}.",
        hint="It was not changed. Put it back from a copy, or move it away to begin a new one.",
    )


def _value(connection: sqlite3.Connection, query: str) -> str | int:
    value: str | int = connection.execute(query).fetchone()[0]
    return value
