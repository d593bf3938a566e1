"""Waiting for the disk."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # pragma: no cover - on Windows, whose fsync is enough
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["flush_file", "flush_folder", "make_folders"]

# The answers of SMB and NTFS, of WebDAV, and of ZFS: https://github.com/libuv/libuv/pull/2135
LACKING = frozenset({errno.ENOTSUP, errno.EINVAL, errno.ENOTTY})


def flush_file(path: Path) -> None:
    """Return once a file's content is on the disk.

    Raises:
        OSError: It is not there, or could not be written.
    """
    _flush(path, os.O_RDWR)  # Windows flushes only what may be written


def flush_folder(path: Path) -> None:
    """Return once the names in a folder are on the disk; Windows cannot be asked.

    Raises:
        OSError: It is not there, or could not be written.
    """
    if os.name != "nt":  # pragma: no branch - the tests run where folders can be synced
        _flush(path, os.O_RDONLY)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        if not _flush_drive(descriptor):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_drive(descriptor: int) -> bool:
    """Have the drive write its own cache, too, where that takes a call of its own.

    The `fsync` of macOS leaves it in the cache of the drive, which forgets it without power.
    https://developer.apple.com/library/archive/documentation/System/Conceptual/ManPages_iPhoneOS/man2/fsync.2.html

    Returns:
        Whether it was done; False where there is no such call, or the file system lacks it.
    """
    if (full := getattr(fcntl, "F_FULLFSYNC", None)) is None:
        return False
    try:
        fcntl.fcntl(descriptor, full)
    except OSError as error:
        # After any other failure fsync may succeed: the kernel tells of lost data only once.
        if error.errno not in LACKING:
            raise
        return False
    return True


def make_folders(
    path: Path, make: Callable[[Path], object], sync: Callable[[Path], object]
) -> None:
    """Make a folder and those above it, as far as they are missing, and wait for each.

    The last that is there may be of a process that died before it had waited for it, so that it is
    waited for, too. To be called only where nothing tells that somebody has waited for all.

    Raises:
        OSError: One cannot be made, or waited for.
    """
    above = (path, *path.parents)
    missing = [folder for folder in above if not folder.exists()]
    with suppress(PermissionError):  # whoever may not read a folder has made nothing in it
        sync(above[len(missing)].parent)
    for folder in reversed(missing):
        make(folder)
        sync(folder.parent)
