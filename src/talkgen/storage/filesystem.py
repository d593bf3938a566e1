"""The calls that change a disk, each in one place, and what their failures mean."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from talkgen._flush import flush_file, flush_folder
from talkgen.errors import FileMissing, InsufficientStorage, StorageError, TalkgenError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path
    from sqlite3 import Connection

__all__ = [
    "NO_ROOM",
    "FileSystem",
    "VolatileFileSystem",
    "failures",
    "free_bytes",
    "names_in",
    "no_room",
    "open_plain",
    "read_plain",
    "removed_on_failure",
    "room_in",
]

# Absent on Windows, where making a link takes a privilege.
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
BINARY = getattr(os, "O_BINARY", 0)
# Opening a pipe that nobody writes to must not wait.
NO_WAIT = getattr(os, "O_NONBLOCK", 0)
NO_ROOM = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


class FileSystem:
    """Every call by which a storage changes its disk.

    A storage that is given another one with the same methods can be stopped, or made to fail,
    before and after each of them.

    Attributes:
        durable: What `sync` has returned from survives the loss of power.
    """

    durable = True

    def make_folder(self, path: Path, *, private: bool = False) -> None:
        """Make a folder where there is none yet."""
        path.mkdir(mode=0o700 if private else 0o777, exist_ok=True)

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file; the disk begins with it, so that `sync_file` has less to wait for."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | BINARY
        with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            if self.durable:
                _begin_sync(file.fileno())

    def copy(self, source: Path, path: Path) -> None:
        """Copy a file's content to a new one."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | BINARY
        with open_plain(source) as old, os.fdopen(os.open(path, flags, 0o666), "wb") as new:
            shutil.copyfileobj(old, new)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file or folder; a file in its place is replaced at once."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder, if it is there."""
        with suppress(FileNotFoundError):
            path.rmdir()

    def remove_tree(self, path: Path) -> None:
        """Remove a folder and all that is in it, if it is there."""
        while path.exists():
            with suppress(FileNotFoundError):  # somebody else is just removing what is in it
                shutil.rmtree(path)

    def sync_file(self, path: Path) -> None:
        """Return once a file's content is on the disk."""
        flush_file(path)

    def sync_folder(self, path: Path) -> None:
        """Return once a folder's entries are on the disk; Windows cannot be asked."""
        flush_folder(path)

    def commit(self, database: Connection) -> None:
        """Return once a database's transaction is on the disk."""
        database.commit()


class VolatileFileSystem(FileSystem):
    """For files that are this process's alone: private, and nothing waits for the disk."""

    durable = False

    def make_folder(self, path: Path, *, private: bool = True) -> None:  # noqa: ARG002 - always
        """Make a folder that nobody else may enter."""
        super().make_folder(path, private=True)

    def sync_file(self, path: Path) -> None:
        """Nothing to wait for."""

    def sync_folder(self, path: Path) -> None:
        """Nothing to wait for."""


def open_plain(path: Path) -> BufferedReader:
    """Open a file for reading, never through a link.

    Raises:
        OSError: There is none, or it is a link or no plain file.
    """
    descriptor = os.open(path, os.O_RDONLY | NO_FOLLOW | NO_WAIT | BINARY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(descriptor, "rb")


def read_plain(path: Path) -> bytes:
    """A file's bytes, never through a link.

    Raises:
        FileMissing: There is none.
        StorageError: It cannot be read, or is a link.
    """
    with failures("read", path), open_plain(path) as file:
        return file.read()


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted.

    Raises:
        FileMissing: There is no such folder.
        StorageError: It cannot be read.
    """
    with failures("list", folder):
        return sorted(os.listdir(folder))


@contextmanager
def removed_on_failure(disk: FileSystem, path: Path) -> Iterator[None]:
    """Leave no half of the file that the block makes."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the block's own failure is the one to hear of
            disk.remove(path)
        raise


def free_bytes(path: Path) -> int:
    """Room on the disk that holds a folder."""
    return shutil.disk_usage(path).free


@contextmanager
def failures(action: str, path: Path, need: int = 0) -> Iterator[None]:
    """Say what could not be done to which path, in talkgen's own errors.

    Args:
        action: Like `write`.
        path: What the action is on.
        need: Bytes that it takes.

    Raises:
        InsufficientStorage: The disk or the quota is full.
        FileMissing: There is no such file.
        StorageError: Anything else that the system refused.
    """
    try:
        yield
    except TalkgenError:
        raise
    except FileNotFoundError as error:
        raise FileMissing(f"Could not {action} {path}: {error}.") from error
    except OSError as error:
        raise _explained(error, action, path, need) from error


@contextmanager
def room_in(path: Path) -> Iterator[None]:
    """Say what a full disk is, of whatever writes into a folder by itself; let all else pass.

    Raises:
        InsufficientStorage: The disk or the quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise InsufficientStorage(
            f"The disk of {path} is full: {free_bytes(path):,} bytes are free."
        ) from error


def no_room(path: Path, need: int, free: int, reserve: int = 0) -> InsufficientStorage:
    """The error of a disk that is too full."""
    kept = f" while {reserve:,} are to stay free" if reserve else ""
    return InsufficientStorage(f"{path} needs {need:,} bytes{kept}, and its disk has {free:,}.")


def _explained(error: OSError, action: str, path: Path, need: int) -> TalkgenError:
    if error.errno not in NO_ROOM:
        return StorageError(f"Could not {action} {path}: {error}.")
    folder = next(folder for folder in (path, *path.parents) if folder.is_dir())
    return no_room(path, need, free_bytes(folder))


def _begin_sync(descriptor: int) -> None:
    """Have the disk write what a file holds, without waiting for it, where the system can."""
    if hasattr(os, "posix_fadvise"):  # pragma: no branch - the tests run where it is
        # Linux starts to write what is to be dropped, and drops only what is written already.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
