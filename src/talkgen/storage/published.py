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
from contextlib import contextmanager
from typing import TYPE_CHECKING

from talkgen.errors import StorageError
from talkgen.storage import manifests
from talkgen.storage.filesystem import failures, names_in, removed_on_failure
from talkgen.storage.layout import SEPARATOR
from talkgen.storage.locks import Exclusive
from talkgen.storage.names import MANIFEST_SUFFIX, TIERS, is_task_id, task_of
from talkgen.storage.retention import expired_files, remainder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
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
        # Other processes do not know of a folder that is not to outlive this one.
        self._lock = Exclusive(layout.lock, shared=disk.durable)

    def manifest(self, task_id: str) -> Manifest | None:
        """What is published of a task."""
        return manifests.read(task_id, self._layout.manifest(task_id), self._layout.url)

    def readable(self, task_id: str) -> Manifest | None:
        """What is published of a task; nothing, and a line in the log, if that is damaged."""
        try:
            return self.manifest(task_id)
        except StorageError:
            logger.exception("Task %s is left out: its manifest cannot be read.", task_id)
            return None

    @contextmanager
    def changing(self, *tasks: str) -> Iterator[None]:
        """Keep everybody else out, and leave nothing of the tasks in the trash."""
        with self._lock.held():
            for name in names_in(self._layout.trash) if tasks else ():
                if name.partition(SEPARATOR)[0] in tasks:
                    self._finish_moving(self._layout.trash / name)
                    self._bury(self._layout.trash / name)
            yield

    def publish(self, staging: Staging, result: JSON, created: datetime) -> Manifest:
        """Publish what is staged; where nothing is, what was published before stays."""
        with self.changing(staging.task_id):
            published = self.manifest(staging.task_id)
            if published and self._is_over(published, staging):
                return self._published(published, staging)
            plan = staging.planned or staging.plan(result, created)
            with failures("publish", self._layout.manifest(plan.task_id)):
                self._take_down(plan.task_id)
                self._place(plan.files)
                # Without their plan, old names that come back would be taken for a new version.
                self._disk.sync_folder(staging.path)
                self._disk.replace(
                    self._layout.plan(plan.task_id), self._layout.manifest(plan.task_id)
                )
            return self._published(plan, staging)

    def discard(self, staging: Staging) -> None:
        """Remove what is staged, and what publishing that was broken off has made of it."""
        with self.changing(staging.task_id), failures("discard", staging.path):
            if staging.planned and staging.planned == self.manifest(staging.task_id):
                self._take_down(staging.task_id)
            elif self._layout.manifest(staging.task_id).exists():
                # Whoever published it may have died before that was on the disk.
                self._disk.sync_folder(self._layout.tier("videos"))
            if staging.path.exists():
                entry = self._layout.discarded(staging.task_id)
                self._move(staging.path, entry)
                self._bury(entry)
            else:  # So may whoever removed the folder.
                self._disk.sync_folder(self._layout.staging)

    def delete(self, task_id: str) -> None:
        """Remove a task's published files."""
        with self.changing(task_id), failures("delete", self._layout.manifest(task_id)):
            self._take_down(task_id)

    def remove_expired(self, task_id: str, retention: Retention, now: datetime) -> Manifest | None:
        """Remove a task's files whose time is over; they are invisible by then.

        Whatever is left half done, the next call finishes. Call it while nobody else is
        `changing()` anything, then `sync_tiers`, and `drop_expired` last: a file that comes back
        with the power must still have a name.

        Returns:
            The manifest, which names them still; None where nothing is published.
        """
        manifest = self.manifest(task_id)
        if manifest is not None:
            with failures("clean up", self._layout.manifest(task_id)):
                for file in expired_files(manifest, retention, now):
                    self._disk.remove(self._layout.place(file))
        return manifest

    def sync_tiers(self) -> None:
        """Return once what was removed is gone from the disk."""
        with failures("clean up", self._layout.root):
            self._sync(map(self._layout.tier, TIERS))

    def drop_expired(self, manifest: Manifest, retention: Retention, now: datetime) -> bool:
        """Leave the removed files out of their manifest, which goes with the last of them.

        Returns:
            Whether nothing is left of the task.
        """
        left = remainder(manifest, retention, now)
        with failures("clean up", self._layout.manifest(manifest.task_id)):
            self._rewrite(manifest, left)
        return left is None

    def condemned(self) -> tuple[str, ...]:
        """Tasks of which a dead process left something in the trash."""
        owners = (name.partition(SEPARATOR)[0] for name in names_in(self._layout.trash))
        return tuple(sorted(set(filter(is_task_id, owners))))

    def finish_deleting(self, task_id: str) -> None:
        """Finish what a dead process was deleting of a task."""
        if task_id in self.condemned():
            with self.changing(task_id):
                pass

    def _is_over(self, published: Manifest, staging: Staging) -> bool:
        """There is nothing to publish but what is published, under names that came back."""
        if staging.planned is None:
            return not staging.files()
        return staging.planned == published

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
        self._sync(tiers)

    def _sync(self, folders: Iterable[Path]) -> None:
        for folder in sorted(folders):
            self._disk.sync_folder(folder)

    def _take_down(self, task_id: str) -> None:
        """Make a published task invisible at once, then remove its files."""
        manifest = self._layout.manifest(task_id)
        if not manifest.exists():
            return
        entry = self._layout.discarded(task_id)
        self._disk.make_folder(entry)
        self._disk.sync_folder(entry.parent)
        self._move(manifest, entry / MANIFEST_SUFFIX)
        self._bury(entry)

    def _move(self, source: Path, target: Path) -> None:
        """Rename durably: the new name first, so that one of the two is always on the disk."""
        self._disk.replace(source, target)
        self._disk.sync_folder(target.parent)
        self._disk.sync_folder(source.parent)

    def _finish_moving(self, entry: Path) -> None:
        """Wait for what a dead process has moved into the trash, as `_move` does."""
        with failures("remove", entry):
            self._sync({entry, self._layout.trash})
            self._sync({self._layout.tier("videos"), self._layout.staging})

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
            places = self._named(task_id, entry / MANIFEST_SUFFIX)
            for place in places:
                self._disk.remove(place)
            self._sync({place.parent for place in places})  # before the last that names them
            for name in names_in(entry):
                self._disk.remove(entry / name)
            self._disk.remove_folder(entry)
            self._disk.sync_folder(entry.parent)  # before anything new has their names

    def _named(self, task_id: str, path: Path) -> set[Path]:
        """The places that a manifest in the trash names, and none of a newer version.

        A dead process may have placed files of that already, and the trash of the version before
        come back with the power.
        """
        try:
            doomed = self._places_in(task_id, path)
        except StorageError:  # damaged, and its files are to go all the same
            doomed = self._places(task_id)
        newer = (self._layout.manifest(task_id), self._layout.plan(task_id))
        return doomed.difference(*(self._places_in(task_id, one) for one in newer))

    def _places_in(self, task_id: str, path: Path) -> set[Path]:
        """The places that a manifest names."""
        manifest = manifests.read(task_id, path, self._layout.url)
        return set(map(self._layout.place, manifest.files if manifest else ()))

    def _places(self, task_id: str) -> set[Path]:
        """Every place with a file of the task, found by name."""
        return {
            folder / name
            for folder in map(self._layout.tier, TIERS)
            for name in names_in(folder)
            if task_of(name) == task_id and not name.endswith(MANIFEST_SUFFIX)
        }
