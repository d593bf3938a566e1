"""Keeping every other thread and process out."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

from filelock import FileLock

from talkgen.storage.filesystem import failures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["Exclusive"]


class Exclusive:
    """A lock of this machine's: whoever dies with it gives it back."""

    def __init__(self, path: Path, *, shared: bool, timeout: float = -1) -> None:
        """Name the lock.

        Args:
            path: The file that processes lock.
            shared: Other processes may want it too.
            timeout: Seconds to wait for them; below 0, for ever.
        """
        self._path = path
        self._threads = threading.Lock()
        self._processes: AbstractContextManager[object] = (
            FileLock(path, timeout=timeout, thread_local=False) if shared else nullcontext()
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock.

        Raises:
            StorageError: The file cannot be locked, or not in time.
        """
        with ExitStack() as locks:
            locks.enter_context(self._threads)
            with failures("lock", self._path):
                locks.enter_context(self._processes)
            yield
