"""Deleting what has outlived its time on a disk."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from stat import S_ISDIR
from typing import TYPE_CHECKING

from talkgen.errors import TalkgenError
from talkgen.protocols import CleanupReport
from talkgen.storage.filesystem import failures
from talkgen.storage.names import is_temporary
from talkgen.storage.retention import expired_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from talkgen.protocols import Manifest
    from talkgen.storage.filesystem import FileSystem
    from talkgen.storage.index import Index
    from talkgen.storage.layout import Layout
    from talkgen.storage.published import Published
    from talkgen.storage.retention import Retention
    from talkgen.storage.scratch import Scratch

__all__ = ["CleanUp", "Tally", "logged"]

logger = logging.getLogger("talkgen.storage")

# Tasks that wait for the disk together: whoever publishes waits for one batch, which takes a few
# tenths of a second where all of their files have expired.
BATCH = 400
AT_ONCE = 4  # of them: a disk deletes several files in little more than the time of one


class Tally:
    """What a clean-up has deleted so far.

    Attributes:
        tasks: Of which nothing is left.
    """

    def __init__(self, where: str) -> None:
        """Start at nothing, in a storage that is called so."""
        self._where = where
        self._sizes: list[int] = []
        self.tasks: list[str] = []  # as the former, threads only append

    def count(self, sizes: Iterable[int]) -> None:
        """Add files of these bytes."""
        self._sizes += sizes

    def report(self) -> CleanupReport:
        """All of it; the log is told as well."""
        report = CleanupReport(len(self._sizes), sum(self._sizes), tuple(self.tasks))
        if self._sizes or self.tasks:
            logger.info(
                "Clean-up of %s deleted %d files of %d bytes; %d tasks have expired.",
                self._where,
                report.files_deleted,
                report.bytes_freed,
                len(report.tasks_expired),
            )
        return report


class CleanUp:
    """One clean-up; every call blocks. What cannot be deleted is logged, and the rest goes on."""

    def __init__(
        self,
        layout: Layout,
        disk: FileSystem,
        published: Published,
        index: Index,
        retention: Retention,
        scratch: Scratch,
    ) -> None:
        self._layout = layout
        self._disk = disk
        self._published = published
        self._index = index
        self._retention = retention
        self._scratch = scratch
        self._tally = Tally(str(layout.root))

    def pieces(self, now: datetime) -> Iterator[bool]:
        """Do it piece by piece: each step takes a moment, and then gives True."""
        for task_id in self._published.condemned():
            with logged(f"what is left of task {task_id}"):
                self._published.finish_deleting(task_id)
            yield True
        due = self._index.due(self._retention, now)
        for start in range(0, len(due), BATCH):
            self._expire(due[start : start + BATCH], now)
            yield True
        for path in self._abandoned(now):
            with logged(str(path)):
                self._remove(path)
            yield True

    def report(self) -> CleanupReport:
        """What has been deleted; the log is told as well."""
        return self._tally.report()

    def _expire(self, tasks: Iterable[str], now: datetime) -> None:
        with (
            logged("some tasks"),
            self._published.changing(),
            ThreadPoolExecutor(AT_ONCE, "talkgen-clean-up") as threads,
        ):
            found = list(threads.map(partial(self._remove_expired, now=now), tasks))
            self._published.sync_tiers()
            list(threads.map(partial(self._drop_expired, now=now), filter(None, found)))

    def _remove_expired(self, task_id: str, *, now: datetime) -> Manifest | None:
        with logged(f"task {task_id}"):
            return self._published.remove_expired(task_id, self._retention, now)
        return None

    def _drop_expired(self, manifest: Manifest, *, now: datetime) -> None:
        with logged(f"task {manifest.task_id}"):
            gone = self._published.drop_expired(manifest, self._retention, now)
            self._tally.count(file.size for file in expired_files(manifest, self._retention, now))
            if gone:
                self._tally.tasks.append(manifest.task_id)

    def _abandoned(self, now: datetime) -> Iterator[Path]:
        """Temporary files and folders in which nothing has been written for the tier's time."""
        with failures("list", folder := self._layout.tier("temp")), os.scandir(folder) as entries:
            found = [folder / entry.name for entry in entries if is_temporary(entry.name)]
        for path in found:
            if path.name not in self._scratch.in_use and self._idle(path, now):
                yield path

    def _idle(self, path: Path, now: datetime) -> bool:
        try:
            touched = max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
        except FileNotFoundError:  # somebody is just removing it
            return False
        return now.timestamp() - touched >= self._retention.temp.total_seconds()

    def _remove(self, path: Path) -> None:
        with failures("remove", path):
            held = [entry.lstat() for entry in (path, *path.rglob("*"))]
            sizes = [entry.st_size for entry in held if not S_ISDIR(entry.st_mode)]
            if path.is_dir():
                self._disk.remove_tree(path)
            else:
                self._disk.remove(path)
        self._tally.count(sizes)


@contextmanager
def logged(what: str) -> Iterator[None]:
    """Let one failure not stop the rest: the next clean-up tries again."""
    try:
        yield
    except TalkgenError:
        logger.exception("Clean-up leaves %s for the next time.", what)
