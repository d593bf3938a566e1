"""Deleting what has outlived its time on a disk."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from stat import S_ISDIR
from typing import TYPE_CHECKING

from talkgen.errors import TalkgenError
from talkgen.protocols import CleanupReport
from talkgen.storage.filesystem import failures, names_in
from talkgen.storage.names import is_temporary
from talkgen.storage.retention import remainder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
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
        for task_id in self._published.condemned():
            with logged(f"what is left of task {task_id}"):
                self._published.finish_deleting(task_id)
        for manifest in tuple(self._published.manifests()):
            if remainder(manifest, self._retention, self._now) != manifest:
                with logged(f"task {manifest.task_id}"):
                    self._expire(manifest)
        for path in self._abandoned(in_use):
            with logged(str(path)):
                self._remove(path)
        return self._report()

    def _expire(self, manifest: Manifest) -> None:
        expired = self._published.expire(manifest.task_id, self._retention, self._now)
        self._count(file.size for file in expired)
        if remainder(manifest, self._retention, self._now) is None:
            self._tasks.append(manifest.task_id)

    def _abandoned(self, in_use: Collection[str]) -> Iterator[Path]:
        """Temporary files and folders in which nothing has been written for the tier's time."""
        folder = self._layout.tier("temp")
        for name in names_in(folder):
            if is_temporary(name) and name not in in_use and self._idle(folder / name):
                yield folder / name

    def _idle(self, path: Path) -> bool:
        try:
            touched = max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
        except FileNotFoundError:  # somebody is just removing it
            return False
        return self._now.timestamp() - touched >= self._retention.temp.total_seconds()

    def _remove(self, path: Path) -> None:
        with failures("remove", path):
            held = [entry.lstat() for entry in (path, *path.rglob("*"))]
            sizes = [entry.st_size for entry in held if not S_ISDIR(entry.st_mode)]
            if path.is_dir():
                self._disk.remove_tree(path)
            else:
                self._disk.remove(path)
        self._count(sizes)

    def _count(self, sizes: Iterable[int]) -> None:
        for size in sizes:
            self._files += 1
            self._bytes += size

    def _report(self) -> CleanupReport:
        if self._files or self._tasks:
            logger.info(
                "Clean-up of %s deleted %d files of %d bytes; %d tasks have expired.",
                self._layout.root,
                self._files,
                self._bytes,
                len(self._tasks),
            )
        return CleanupReport(self._files, self._bytes, tuple(self._tasks))


@contextmanager
def logged(what: str) -> Iterator[None]:
    """Let one failure not stop the rest: the next clean-up tries again."""
    try:
        yield
    except TalkgenError:
        logger.exception("Clean-up leaves %s for the next time.", what)
