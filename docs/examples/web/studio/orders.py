"""What tasks that have not ended were begun for, kept beside the storage.

talkgen keeps a task's inputs and checkpoints, and resumes it by the stages that began it. Which
those were is the application's own knowledge.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import defaultdict
from contextlib import closing
from typing import TYPE_CHECKING

import attrs
from anyio import to_thread
from pydantic import ValidationError

from studio.options import Asked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from studio.options import Options

__all__ = ["Orders"]

logger = logging.getLogger("studio")

TABLE = "CREATE TABLE IF NOT EXISTS tasks (task_id TEXT PRIMARY KEY, asked TEXT NOT NULL)"


@attrs.frozen
class Orders:
    """What is asked for by task, in an SQLite file. Every call is durable when it returns."""

    path: Path

    async def keep(self, task_id: str, asked: Asked) -> Asked:
        """Keep what a task is begun for, and give back what it was begun for: the first stays."""
        await self._execute(
            "INSERT INTO tasks VALUES (?, ?) ON CONFLICT DO NOTHING",
            task_id,
            asked.model_dump_json(),
        )
        rows = await self._execute("SELECT asked FROM tasks WHERE task_id = ?", task_id)
        return Asked.model_validate_json(rows[0][0])

    async def forget(self, task_id: str) -> None:
        """The task has ended."""
        await self._execute("DELETE FROM tasks WHERE task_id = ?", task_id)

    async def unfinished(self) -> Mapping[Options, list[str]]:
        """The tasks that have not ended, by their options; without those of another version."""
        tasks = defaultdict(list)
        for task_id, asked in await self._execute("SELECT task_id, asked FROM tasks"):
            try:
                tasks[Asked.model_validate_json(asked).options].append(task_id)
            except ValidationError:
                logger.warning("Task %s was begun with options that are unknown now.", task_id)
        return tasks

    async def _execute(self, statement: str, *values: str) -> list[tuple[str, ...]]:
        return await to_thread.run_sync(self._in_thread, statement, values)

    def _in_thread(self, statement: str, values: tuple[str, ...]) -> list[tuple[str, ...]]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path)) as database, database:
            database.execute(TABLE)
            return database.execute(statement, values).fetchall()
