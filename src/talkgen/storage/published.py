"""Published files on a disk: the manifests say what there is.

A task is published by the order of its steps. The plan, which is the manifest, is written into
the staging folder; an older version is taken down; files are renamed into their places; last the
plan is renamed into the manifest's. Each step can be repeated, so a transaction that was stopped
anywhere goes on from its plan.

Deleting takes the opposite order: what names the files is renamed into the trash at once, then
they go. What a dead process left in the trash is finished before its task is touched again.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

from filelock import FileLock

from talkgen.errors import FileMissing, StorageError
from talkgen.storage import manifests
from talkgen.storage.filesystem import failures, names_in, read_plain, removed_on_failure
from talkgen.storage.layout import SEPARATOR
from talkgen.storage.names import MANIFEST_SUFFIX, TIERS, is_task_id, task_of
from talkgen.storage.retention import expired_files, remainder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from talkgen._types import JSON
    from talkgen.media import FileRef
    from talkgen.protocols import Manifest
    from talkgen.storage.filesystem import FileSystem
    from talkgen.storage.layout import Layout
    from talkgen.storage.retention import Retention
    from talkgen.storage.staging import Staging

__all__ = ["Published"]

logger = logging.getLogger("talkgen.storage")


class Published:
    """The published side of a folder; every call blocks, changes are made one at a time."""

    def __init__(self, layout: Layout, disk: FileSystem) -> None:
        """Use a folder that has been made."""
        self._layout = layout
        self._disk = disk
        self._threads = threading.Lock()
        # Other processes do not know of a folder that is not to outlive this one.
        self._processes: AbstractContextManager[object] = (
            FileLock(layout.lock, thread_local=False) if disk.durable else nullcontext()
        )

    def manifest(self, task_id: str) -> Manifest | None:
        """What is published of a task."""
        try:
            data = read_plain(self._layout.manifest(task_id))
        except FileMissing:
            return None
        return manifests.decode(task_id, data, self._layout.url)

    def manifests(self) -> Iterator[Manifest]:
        """Every readable manifest, in no order."""
        for name in names_in(self._layout.tier("videos")):
            task_id = task_of(name) if name.endswith(MANIFEST_SUFFIX) else None
            manifest = self._readable(task_id) if task_id else None
            if manifest:
                yield manifest

    def publish(self, staging: Staging, result: JSON, created: datetime) -> Manifest:
        """Publish what is staged; where nothing is, what was published before stays."""
        with self._changing(staging.task_id):
            published = self.manifest(staging.task_id)
            if published and staging.planned in (None, published) and not staging.files():
                return self._published(published, staging)
            plan = staging.planned or staging.plan(result, created)
            with failures("publish", self._layout.manifest(plan.task_id)):
                self._take_down(plan.task_id)
                self._place(plan.files)
                self._disk.replace(
                    self._layout.plan(plan.task_id), self._layout.manifest(plan.task_id)
                )
            return self._published(plan, staging)

    def discard(self, staging: Staging) -> None:
        """Remove what is staged, and what publishing that was broken off has made of it."""
        with self._changing(staging.task_id), failures("discard", staging.path):
            if staging.planned and staging.planned == self.manifest(staging.task_id):
                self._take_down(staging.task_id)
            if staging.path.exists():
                entry = self._layout.discarded(staging.task_id)
                self._disk.replace(staging.path, entry)
                self._bury(entry)

    def delete(self, task_id: str) -> None:
        """Remove a task's published files."""
        with self._changing(task_id), failures("delete", self._layout.manifest(task_id)):
            self._take_down(task_id)

    def expire(self, task_id: str, retention: Retention, now: datetime) -> tuple[FileRef, ...]:
        """Remove a task's files whose time is over, and the manifest with the last of them.

        They are invisible by then. Whatever is left half done, the next call finishes.
        """
        with self._changing(task_id), failures("clean up", self._layout.manifest(task_id)):
            manifest = self.manifest(task_id)
            if manifest is None:
                return ()
            expired = expired_files(manifest, retention, now)
            for file in expired:
                self._disk.remove(self._layout.place(file))
            self._rewrite(manifest, remainder(manifest, retention, now))
            return expired

    def condemned(self) -> tuple[str, ...]:
        """Tasks of which a dead process left something in the trash."""
        owners = (name.partition(SEPARATOR)[0] for name in names_in(self._layout.trash))
        return tuple(sorted(set(filter(is_task_id, owners))))

    def finish_deleting(self, task_id: str) -> None:
        """Finish what a dead process was deleting of a task."""
        if task_id in self.condemned():
            with self._changing(task_id):
                pass

    @contextmanager
    def _changing(self, task_id: str) -> Iterator[None]:
        """Keep everybody else out, and leave nothing of the task in the trash."""
        with ExitStack() as held:
            held.enter_context(self._threads)
            with failures("lock", self._layout.lock):
                held.enter_context(self._processes)
            for name in names_in(self._layout.trash):
                if name.partition(SEPARATOR)[0] == task_id:
                    self._bury(self._layout.trash / name)
            yield

    def _readable(self, task_id: str) -> Manifest | None:
        try:
            return self.manifest(task_id)
        except StorageError:
            logger.exception("Task %s is left out: its manifest cannot be read.", task_id)
            return None

    def _published(self, manifest: Manifest, staging: Staging) -> Manifest:
        with failures("publish", self._layout.manifest(manifest.task_id)):
            self._disk.sync_folder(self._layout.tier("videos"))
            staging.remove()
        return manifest

    def _place(self, files: Iterable[FileRef]) -> None:
        tiers = set()
        for file in files:
            staged, place = self._layout.staged(file), self._layout.place(file)
            # Not staged any more: placed before publishing was broken off.
            if staged.exists() or not place.exists():
                self._disk.replace(staged, place)
            tiers.add(place.parent)
        for tier in sorted(tiers):
            self._disk.sync_folder(tier)

    def _take_down(self, task_id: str) -> None:
        """Make a published task invisible at once, then remove its files."""
        manifest = self._layout.manifest(task_id)
        if not manifest.exists():
            return
        entry = self._layout.discarded(task_id)
        self._disk.make_folder(entry)
        self._disk.replace(manifest, entry / MANIFEST_SUFFIX)
        self._disk.sync_folder(manifest.parent)
        self._bury(entry)

    def _rewrite(self, manifest: Manifest, left: Manifest | None) -> None:
        path = self._layout.manifest(manifest.task_id)
        if left is None:
            self._disk.remove(path)
        elif left != manifest:
            part = self._layout.temporary("part")
            with removed_on_failure(self._disk, part):
                self._disk.write(part, manifests.encode(left))
                self._disk.sync_file(part)
                self._disk.replace(part, path)

    def _bury(self, entry: Path) -> None:
        """Remove a folder of the trash, and before it the files that its manifest names."""
        task_id = entry.name.partition(SEPARATOR)[0]
        with failures("remove", entry):
            for place in self._named(task_id, entry / MANIFEST_SUFFIX):
                self._disk.remove(place)
            for name in names_in(entry):
                self._disk.remove(entry / name)
            self._disk.remove_folder(entry)

    def _named(self, task_id: str, path: Path) -> set[Path]:
        """The places that a manifest in the trash names, and no published one."""
        try:
            doomed = manifests.decode(task_id, read_plain(path), self._layout.url)
            places = set(map(self._layout.place, doomed.files))
        except FileMissing:
            return set()
        except StorageError:  # damaged, and its files are to go all the same
            places = self._places(task_id)
        published = self.manifest(task_id)
        return places - set(map(self._layout.place, published.files if published else ()))

    def _places(self, task_id: str) -> set[Path]:
        """Every place with a file of the task, found by name."""
        return {
            folder / name
            for folder in map(self._layout.tier, TIERS)
            for name in names_in(folder)
            if task_of(name) == task_id and not name.endswith(MANIFEST_SUFFIX)
        }
