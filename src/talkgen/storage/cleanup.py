"""Deleting what has outlived its time on a disk."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from talkgen.errors import TalkgenError
from talkgen.protocols import CleanupReport
from talkgen.storage.filesystem import failures
from talkgen.storage.names import is_temporary
from talkgen.storage.retention import remainder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime
    from pathlib import Path

    from talkgen.protocols import Manifest
    from talkgen.storage.filesystem import FileSystem
    from talkgen.storage.layout import Layout
    from talkgen.storage.published import Published
    from talkgen.storage.retention import Retention

__all__ = ["CleanUp"]

logger = logging.getLogger("talkgen.storage")


class CleanUp:
    """One clean-up; every call blocks. What cannot be deleted is logged, and the rest goes on."""

    def __init__(
        self,
        layout: Layout,
        disk: FileSystem,
        published: Published,
        retention: Retention,
        now: datetime,
    ) -> None:
        self._layout = layout
        self._disk = disk
        self._published = published
        self._retention = retention
        self._now = now
        self._files = 0
        self._bytes = 0
        self._tasks: list[str] = []

    def run(self, in_use: Collection[str]) -> CleanupReport:
        """Delete it all.

        Args:
            in_use: Names in the temporary tier that this process works in.
        """
        self._published.empty_trash()
        for manifest in tuple(self._published.manifests()):
            if remainder(manifest, self._retention, self._now) != manifest:
                self._expire(manifest)
        for path in self._abandoned(in_use):
            self._remove(path)
        report = CleanupReport(self._files, self._bytes, tuple(self._tasks))
        if report.files_deleted or report.tasks_expired:
            logger.info(
                "Clean-up of %s deleted %d files, %d bytes, and ended %d tasks.",
                self._layout.root,
                report.files_deleted,
                report.bytes_freed,
                len(report.tasks_expired),
            )
        return report

    def _expire(self, manifest: Manifest) -> None:
        try:
            expired = self._published.expire(manifest.task_id, self._retention, self._now)
        except TalkgenError:
            logger.exception("Clean-up leaves task %s for the next time.", manifest.task_id)
            return
        self._files += len(expired)
        self._bytes += sum(file.size for file in expired)
        if remainder(manifest, self._retention, self._now) is None:
            self._tasks.append(manifest.task_id)

    def _abandoned(self, in_use: Collection[str]) -> Iterator[Path]:
        """Temporary files and folders in which nothing has been written for the tier's time."""
        folder = self._layout.tier("temp")
        for name in os.listdir(folder):
            path = folder / name
            if is_temporary(name) and name not in in_use and self._idle(path):
                yield path

    def _idle(self, path: Path) -> bool:
        touched = max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
        return self._now.timestamp() - touched >= self._retention.temp.total_seconds()

    def _remove(self, path: Path) -> None:
        try:
            with failures("remove", path):
                sizes = [entry.lstat().st_size for entry in _files_of(path)]
                self._disk.remove_tree(path) if path.is_dir() else self._disk.remove(path)
        except TalkgenError:
            logger.exception("Clean-up leaves %s for the next time.", path)
            return
        self._files += len(sizes)
        self._bytes += sum(sizes)


def _files_of(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    for folder, _, names in os.walk(path):
        yield from (path.__class__(folder, name) for name in names)
