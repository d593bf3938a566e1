"""Who is alive: a lock file for each process, freed by the kernel at any death.

No process ids, which are used again, and no heartbeats, which a busy machine misses. A process
that is stopped, or only slow, still has its lock, so that nobody takes its tasks from it.
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

__all__ = ["Owner", "is_alive", "remove_stale"]

PATTERN = "journal-owner-*.lock"


class Owner:
    """A lock that is held from now on.

    Attributes:
        name: The lock file's name; never used twice.
    """

    def __init__(self, folder: Path) -> None:
        """Take a new lock in this folder."""
        self.name = f"journal-owner-{uuid4().hex}.lock"
        self._lock = _lock(folder / self.name)
        self._lock.acquire(blocking=False)

    def release(self) -> None:
        """Hold it no longer, and leave no file."""
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def is_alive(folder: Path, name: str) -> bool:
    """Somebody holds this lock."""
    path = folder / name
    return path.exists() and not _removed(path)


def remove_stale(folder: Path) -> None:
    """Remove what dead processes left. Nobody may be taking a new lock meanwhile."""
    for path in folder.glob(PATTERN):
        _removed(path)


def _removed(path: Path) -> bool:
    """Remove a lock file, unless somebody holds it."""
    lock = _lock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    try:
        path.unlink(missing_ok=True)
    finally:
        lock.release()
    return True


def _lock(path: Path) -> FileLock:
    # Only what the kernel frees will do: no fallback to a file that a dead process leaves.
    return FileLock(path, thread_local=False, fallback_to_soft=False)
