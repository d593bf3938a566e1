"""Waiting for the disk."""

from __future__ import annotations

import os
from contextlib import suppress

try:
    import fcntl
except ImportError:  # pragma: no cover - on Windows, whose fsync is enough
    fcntl = None  # type: ignore[assignment]

__all__ = ["flush"]


def flush(descriptor: int) -> None:
    """Return once what an open file or folder holds is on the disk.

    The `fsync` of macOS leaves it in the cache of the drive, which forgets it without power.
    https://developer.apple.com/library/archive/documentation/System/Conceptual/ManPages_iPhoneOS/man2/fsync.2.html

    Raises:
        OSError: It could not be written.
    """
    if (full := getattr(fcntl, "F_FULLFSYNC", None)) is not None:
        with suppress(OSError):  # where a file system lacks it, and where fsync fails as well
            fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)
