"""A disk with a volatile cache, and what may be found on it once the power has been cut.

The weakest promise that a file system with `fsync` can make is assumed:

- A file's content is on the disk once the file was synced. Before, all, half or none of it is.
- A name is on the disk, or gone from it, once its folder was synced. Before, each name of a folder
  is on its own: it may be as it was at the last sync, or as any change since has left it. Nothing
  is in order, not even two renames in one folder.
- A file that is renamed keeps its old name until it has the new one, unless its old folder alone
  was synced. Between two folders it may be found under both, as on FAT, ext2 or UFS; a file that
  is replaced gives way at once. Without this no program could rename.
- A database's commit is on the disk when it returns, as SQLite promises with `synchronous=FULL`.
"""

from __future__ import annotations

import copy
import sqlite3
import threading
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, TypeAlias

import attrs

from talkgen.storage.filesystem import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

Node: TypeAlias = "File | Folder"


@attrs.define(eq=False)
class File:
    """A file.

    Attributes:
        contents: What may be found in it; first what certainly is on the disk, last what is read.
    """

    contents: list[bytes]


@attrs.define(eq=False)
class Folder:
    """A folder.

    Attributes:
        names: What may be found under each name, in the order in which it came there.
    """

    names: dict[str, list[Node | Gone | None]] = attrs.field(factory=dict)

    def get(self, name: str) -> Node | None:
        """What is read under a name."""
        last = self.names.get(name, [None])[-1]
        return None if isinstance(last, Gone) else last

    def set(self, name: str, entry: Node | Gone | None) -> None:
        self.names.setdefault(name, [None]).append(entry)


@attrs.define(eq=False)
class Gone:
    """What has been renamed: not gone before it is found there, or something later is."""

    node: Node
    there: list[Node | Gone | None]


@attrs.frozen
class Moment:
    """When the power may be cut.

    Attributes:
        before: The change that was about to be made.
        disk: All that may be on the disk.
        paid: What was paid for by then.
    """

    before: str
    disk: Folder
    paid: tuple[str, ...] = ()

    def sizes(self) -> list[int]:
        """How many ways each file and each name may be found."""
        return [len(history) for history in _histories(self.disk)]

    def extremes(self) -> tuple[list[int], list[int]]:
        """Everything lost that was not synced, and everything kept."""
        return [0] * len(self.sizes()), [size - 1 for size in self.sizes()]

    def singled_out(self) -> Iterator[list[int]]:
        """The extremes, and each of them but for one file or name, which is found otherwise."""
        for picks in self.extremes():
            yield picks
            for at, size in enumerate(self.sizes()):
                for pick in range(size):
                    yield [*picks[:at], pick, *picks[at + 1 :]]

    def leave(self, folder: Path, picks: Sequence[int]) -> None:
        """Make a folder of what is found, by the number of the way for each."""
        chosen = dict(zip(map(id, _histories(self.disk)), picks, strict=True))
        _write(self.disk, folder, _kept_whole(self.disk, chosen))


class Unwaiting(FileSystem):
    """Durable as far as it is told, and nothing waits: the power that fails is a model's."""

    def sync_file(self, path: Path) -> None:
        """Nothing to wait for."""

    def sync_folder(self, path: Path) -> None:
        """Nothing to wait for."""


class Unwaited(sqlite3.Connection):
    """A connection of which the same is true."""

    def execute(self, statement: str, *args: object) -> sqlite3.Cursor:
        """Run a statement, but for the one that has SQLite wait for the disk."""
        waits = statement == "PRAGMA synchronous = FULL"
        return super().execute("PRAGMA synchronous = OFF" if waits else statement, *args)


def _recorded(name: str) -> Callable[..., None]:
    function = getattr(Unwaiting, name)

    @wraps(function)
    def call(disk: CachedDisk, *args: Path, **options: object) -> None:
        with disk.changing(f"{name} {args[0]}"):
            function(disk, *args, **options)
            getattr(disk, f"_{name}")(*args)

    return call


class CachedDisk(Unwaiting):
    """Changes a real folder, and knows what of it is certainly on the disk.

    Attributes:
        moments: When the power may be cut: before each change, and at the end.
    """

    def __init__(
        self,
        base: Path,
        database: Path,
        paid: Sequence[str] = (),
        *,
        killed: Moment | None = None,
    ) -> None:
        """Use a folder.

        Args:
            base: The folder.
            database: A database in it.
            paid: Grows with what is paid for.
            killed: When the process before died: the kernel holds what that has not synced, and
                all of it is in the folder. By default what is in the folder is on the disk.
        """
        self._base, self._database, self._paid = base, database, paid
        self._disk = copy.deepcopy(killed.disk) if killed else _found(base)
        self._lock = threading.RLock()
        self.moments: list[Moment] = []

    def note(self, before: str) -> None:
        """The power may be cut now."""
        with self._lock:
            self.moments.append(Moment(before, copy.deepcopy(self._disk), tuple(self._paid)))

    @contextmanager
    def changing(self, what: str) -> Iterator[None]:
        """Make a change that nobody comes between."""
        with self._lock:
            self.note(what)
            yield

    def committed(self, data: bytes) -> None:
        """The database is on the disk; its name may be."""
        with self._lock:
            if (file := self._get(self._database)) is None:
                self._find_folders(self._database.parent.parent)
                self._add(self._database, File([data]))
            else:
                file.contents = [data]

    make_folder, write, copy = map(_recorded, ("make_folder", "write", "copy"))
    replace, remove, remove_folder = map(_recorded, ("replace", "remove", "remove_folder"))
    remove_tree, sync_file = map(_recorded, ("remove_tree", "sync_file"))
    sync_folder = _recorded("sync_folder")

    def _make_folder(self, path: Path) -> None:
        if self._get(path) is None:
            self._add(path, Folder())

    def _write(self, path: Path, *_: bytes) -> None:
        self._add(path, _cached(path))

    def _copy(self, _: Path, path: Path) -> None:
        self._write(path)

    def _replace(self, source: Path, target: Path) -> None:
        if (node := self._get(source)) is None:  # written by an encoder
            node = _cached(target)
            self._add(source, node)
        self._add(target, node)
        there = self._folder(target).names[target.name]
        self._folder(source).set(source.name, Gone(node, there))

    def _remove(self, path: Path) -> None:
        if self._get(path) is not None:
            self._folder(path).set(path.name, None)

    _remove_folder = _remove_tree = _remove

    def _sync_file(self, path: Path) -> None:
        if (file := self._get(path)) is not None:
            del file.contents[:-1]

    def _sync_folder(self, path: Path) -> None:
        if not path.is_relative_to(self._base):
            return  # of the world around, nothing is lost
        self._find_folders(path)
        for history in self._get(path).names.values():
            del history[:-1]

    def _find_folders(self, path: Path) -> None:
        """Learn of folders that the journal has made."""
        for entry in path.iterdir():
            if entry.is_dir() and self._get(entry) is None:
                self._add(entry, Folder())

    def _get(self, path: Path) -> Node | None:
        node: Node | None = self._disk
        for name in path.relative_to(self._base).parts:
            node = node.get(name) if isinstance(node, Folder) else None
        return node

    def _folder(self, path: Path) -> Folder:
        folder = self._get(path.parent)
        assert isinstance(folder, Folder), path
        return folder

    def _add(self, path: Path, node: Node) -> None:
        self._folder(path).set(path.name, node)


def contents(folder: Path) -> frozenset[tuple[str, bytes | None]]:
    """What is in a folder: the names of files and folders, and the bytes of files."""
    return frozenset(
        (str(path.relative_to(folder)), path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    )


def _found(path: Path) -> Node:
    if path.is_dir():
        return Folder({entry.name: [_found(entry)] for entry in path.iterdir()})
    return File([path.read_bytes()])


def _cached(path: Path) -> File:
    data = path.read_bytes()
    return File([b"", data[: len(data) // 2], data])


def _histories(disk: Folder) -> list[list]:
    """Of each name and file, what may be found there."""
    return list(_walk(disk, set()))


def _walk(node: Node | Gone | None, seen: set[int]) -> Iterator[list]:
    if isinstance(node, Gone) or node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, File):
        yield node.contents
        return
    for history in node.names.values():
        yield history
        for entry in history:
            yield from _walk(entry, seen)


def _kept_whole(disk: Folder, chosen: dict[int, int]) -> dict[int, int]:
    """The choice, but that a name which was not synced since goes after the new one has come."""
    kept = dict(chosen)
    for history in _histories(disk):
        pick = kept[id(history)]
        while pick and isinstance(gone := history[pick], Gone) and not _is_there(gone, kept):
            pick -= 1
        kept[id(history)] = pick
    return kept


def _is_there(gone: Gone, chosen: dict[int, int]) -> bool:
    there = gone.there
    if gone.node not in there or id(there) not in chosen:
        return True
    return chosen[id(there)] >= there.index(gone.node)


def _write(folder: Folder, path: Path, chosen: dict[int, int]) -> None:
    path.mkdir()
    for name, history in folder.names.items():
        node = history[chosen[id(history)]]
        if isinstance(node, Folder):
            _write(node, path / name, chosen)
        elif isinstance(node, File):
            (path / name).write_bytes(node.contents[chosen[id(node.contents)]])
