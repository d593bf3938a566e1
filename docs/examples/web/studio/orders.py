"""The options of tasks that have not ended, kept beside the storage.

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

from studio.options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Orders"]

logger = logging.getLogger("studio")

TABLE = "CREATE TABLE IF NOT EXISTS orders (task_id TEXT PRIMARY KEY, options TEXT NOT NULL)"


@attrs.frozen
class Orders:
    """Options by task, in an SQLite file. Every call is durable when it returns."""

    path: Path

    async def keep(self, task_id: str, options: Options) -> Options:
        """Keep the options of a task, and give back those that it has: the first ones stay."""
        await self._execute(
            "INSERT INTO orders VALUES (?, ?) ON CONFLICT DO NOTHING",
            task_id,
            options.model_dump_json(),
        )
        rows = await self._execute("SELECT options FROM orders WHERE task_id = ?", task_id)
        return Options.model_validate_json(rows[0][0])

    async def forget(self, task_id: str) -> None:
        """The task has ended."""
        await self._execute("DELETE FROM orders WHERE task_id = ?", task_id)

    async def unfinished(self) -> Mapping[Options, list[str]]:
        """The tasks that have not ended, by their options; without those of another version."""
        tasks = defaultdict(list)
        for task_id, options in await self._execute("SELECT task_id, options FROM orders"):
            try:
                tasks[Options.model_validate_json(options)].append(task_id)
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
