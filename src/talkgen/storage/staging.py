"""One task's unfinished transaction on a disk: files that are durable but not yet published."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from talkgen.errors import FileMissing, InvalidName, StorageError
from talkgen.media import FileRef
from talkgen.protocols import Manifest
from talkgen.storage import manifests
from talkgen.storage.filesystem import (
    failures,
    names_in,
    open_plain,
    read_plain,
    removed_on_failure,
)
from talkgen.storage.layout import SEPARATOR
from talkgen.storage.names import check_file, check_tier, file_name, temporary_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime
    from io import BufferedReader

    from talkgen._types import JSON
    from talkgen.media import Tier
    from talkgen.protocols import NewFile
    from talkgen.storage.filesystem import FileSystem
    from talkgen.storage.layout import Layout

__all__ = ["Staging", "being_published", "describe", "not_staged", "read_exactly"]


class Staging:
    """The folder of one unfinished transaction; every call blocks.

    Attributes:
        task_id: The task.
        path: The folder, there from the first file on.
        planned: The manifest that `plan` wrote, or an earlier process did.
    """

    def __init__(self, task_id: str, layout: Layout, disk: FileSystem) -> None:
        """Open the folder, if an earlier process left one."""
        self.task_id = task_id
        self.path = layout.staging / task_id
        self._layout = layout
        self._disk = disk
        self._lock = threading.Lock()
        self._made = False
        self._known: dict[tuple[Tier, str], FileRef] = {}
        with failures("open", self.path):
            if self.path.is_symlink():
                raise StorageError(f"{self.path} is a link.", hint="Remove it.")
            self.planned = manifests.read(task_id, layout.plan(task_id), layout.url)

    def put(self, *new: NewFile) -> tuple[FileRef, ...]:
        """Keep files durably, in place of earlier ones of the same names."""
        if self.planned is not None:
            raise being_published(self.task_id)
        named = [(self._named(*one), one[2]) for one in new]
        with ExitStack() as parts:
            written = [parts.enter_context(self._written(file, data)) for file, data in named]
            with self._lock:
                self._deliver({part: self._layout.staged(file) for part, file in written})
                self._known |= {(file.tier, file.name): file for _, file in written}
        return tuple(file for _, file in written)

    def read(self, file: FileRef) -> bytes:
        """The bytes of a staged file, or of one that publishing has placed already."""
        check_file(file)
        if file.task_id == self.task_id:
            for path in (self._layout.staged(file), self._layout.place(file)):
                with suppress(FileMissing):
                    return read_exactly(path, file)
        raise not_staged(self.task_id, file)

    def retain(self, files: Collection[FileRef]) -> None:
        """Remove what is staged beside these files, unless it is being published already."""
        if self.planned is not None:
            return
        wanted = {self._layout.staged(file).name for file in files}
        with failures("remove from", self.path):
            others = [name for name in self._names() if name not in wanted]
            for name in others:
                self._disk.remove(self.path / name)
            if others:  # what comes back would be published
                self._disk.sync_folder(self.path)

    def files(self) -> tuple[FileRef, ...]:
        """What is staged, by tier and name."""
        return tuple(file for name in self._names() if (file := self._file(name)))

    def plan(self, result: JSON, created: datetime) -> Manifest:
        """Decide durably to publish what is staged; the manifest as its readers will see it."""
        manifest = Manifest(self.task_id, created, self.files(), result)
        data = manifests.encode(manifest)
        path = self._layout.plan(self.task_id)
        with self._part(data, path, len(data)) as part:
            self._deliver({part: path})
        self.planned = manifests.decode(self.task_id, data, self._layout.url)
        return self.planned

    def remove(self) -> None:
        """Remove the folder and all that is in it, durably."""
        for name in self._names():
            self._disk.remove(self.path / name)
        self._disk.remove_folder(self.path)
        self._disk.sync_folder(self._layout.staging)

    def _make(self) -> None:
        if not self._made:
            self._disk.make_folder(self.path)
            # Also where it was there: who has made it may have died before it was on the disk.
            self._disk.sync_folder(self._layout.staging)
            self._made = True

    def _named(self, tier: Tier, suffix: str, data: bytes | Path) -> FileRef:
        """A file without its digest."""
        check_tier(tier)
        return FileRef(self.task_id, tier, file_name(self.task_id, suffix), _size(data), "")

    @contextmanager
    def _written(self, file: FileRef, data: bytes | Path) -> Iterator[tuple[Path, FileRef]]:
        """A part that will become this file, and all that is known of it then."""
        with self._part(data, self._layout.staged(file), file.size) as part:
            # The digest is counted while the disk writes.
            yield part, self._described(file, part if isinstance(data, Path) else data)

    @contextmanager
    def _part(self, data: bytes | Path, target: Path, need: int) -> Iterator[Path]:
        """A file on its way to its place, gone again if the block fails."""
        part = self.path / temporary_name("part")
        with failures("write", target, need), removed_on_failure(self._disk, part):
            self._make()
            if isinstance(data, Path):
                self._move(data, part)
            else:
                self._disk.write(part, data)
            yield part

    def _move(self, source: Path, part: Path) -> None:
        """Move a file, also when somebody mounted another disk on the temporary tier."""
        try:
            self._disk.replace(source, part)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._disk.copy(source, part)
            self._disk.remove(source)

    def _deliver(self, parts: Mapping[Path, Path]) -> None:
        """Make durable files appear, each at once in its place."""
        for part in parts:
            self._disk.sync_file(part)
        for part, target in parts.items():
            self._disk.replace(part, target)
        self._disk.sync_folder(self.path)

    def _names(self) -> list[str]:
        return names_in(self.path) if self.path.exists() else []

    def _file(self, staged_name: str) -> FileRef | None:
        tier, _, name = staged_name.partition(SEPARATOR)
        file = FileRef(self.task_id, tier, name, 0, "")  # type: ignore[arg-type]  # checked next
        try:
            check_file(file)
        except InvalidName:
            return None
        known = self._known.get((file.tier, name))
        return known or self._described(file, self._layout.staged(file))

    def _described(self, file: FileRef, data: bytes | Path) -> FileRef:
        found = describe(self.task_id, file.tier, file.name, data)
        return attrs.evolve(found, url=self._layout.url(file.tier, file.name))


def describe(task_id: str, tier: Tier, name: str, data: bytes | Path) -> FileRef:
    """A file by its size and digest."""
    if not isinstance(data, Path):
        return FileRef(task_id, tier, name, len(data), hashlib.sha256(data).hexdigest())
    with failures("read", data), open_plain(data) as file:
        size, digest = _measured(file)
    return FileRef(task_id, tier, name, size, digest)


def read_exactly(path: Path, file: FileRef) -> bytes:
    """A file's bytes, when they are those that the reference names.

    Raises:
        FileMissing: It is not there, or was replaced or damaged.
    """
    data = read_plain(path)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise FileMissing(f"{path} has other content than {file.name} had: it was replaced.")
    return data


def being_published(task_id: str) -> StorageError:
    """The error of a transaction whose publication was broken off."""
    return StorageError(
        f"Task {task_id} is being published; nothing can be added to it.",
        hint="Publish it to the end, or discard it.",
    )


def not_staged(task_id: str, file: FileRef) -> FileMissing:
    """The error of a file that is not the transaction's."""
    return FileMissing(f"Task {task_id} has staged no {file.name} with this content.")


def _size(data: bytes | Path) -> int:
    if not isinstance(data, Path):
        return len(data)
    with failures("read", data), open_plain(data) as file:
        return os.fstat(file.fileno()).st_size


def _measured(file: BufferedReader) -> tuple[int, str]:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return file.tell(), digest
