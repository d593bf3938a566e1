"""A transaction's states, the same for every storage whose work blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from anyio import CancelScope, to_thread

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractAsyncContextManager

    from talkgen._types import JSON
    from talkgen.media import FileRef, Tier
    from talkgen.protocols import Manifest, NewFile
    from talkgen.storage.scratch import Scratch

__all__ = ["StorageTransaction", "Unfinished"]


class Unfinished(Protocol):
    """What a storage does for one unfinished transaction; every call blocks."""

    def put(self, *new: NewFile) -> tuple[FileRef, ...]:
        """Keep files, moving those that are paths."""
        ...

    def read(self, file: FileRef) -> bytes:
        """The bytes of a file of this task."""
        ...

    def retain(self, files: Collection[FileRef]) -> None:
        """Remove every other staged file."""
        ...

    def publish(self, result: JSON) -> Manifest:
        """Make the files visible, going on where an earlier call was broken off."""
        ...

    def discard(self) -> None:
        """Remove them, and what publishing has made of them so far."""
        ...


class StorageTransaction:
    """Runs a transaction's work in threads, and refuses what its state does not allow."""

    def __init__(self, unfinished: Unfinished, scratch: Scratch) -> None:
        """Made by a storage's `open`.

        Args:
            unfinished: The work. It keeps the storage alive: a temporary one goes with its last
                reference.
            scratch: Where encoders work.
        """
        self._unfinished = unfinished
        self._scratch = scratch
        self._ended: Literal["published", "discarded", "closed"] | None = None
        self._manifest: Manifest | None = None

    async def put(self, tier: Tier, suffix: str, data: bytes | Path) -> FileRef:
        """Keep a file as `{task_id}_{suffix}`, replacing an earlier one whole.

        Args:
            tier: Where it belongs; decides how long it is kept.
            suffix: Like `cropped.png`.
            data: The bytes, or a file in `scratch()`, which is moved.

        Raises:
            InvalidName: The suffix is not a plain file name.
            InsufficientStorage: The disk is full.
            ValueError: The path is not in `scratch()`.
            RuntimeError: The transaction has ended.
        """
        return (await self.put_all((tier, suffix, data)))[0]

    async def put_all(self, *files: NewFile) -> tuple[FileRef, ...]:
        """Keep files as `put` does, for the price of one wait for the disk.

        If it fails, some of them may be kept.

        Args:
            *files: What `put` takes, for each.

        Raises:
            talkgen.errors.TalkgenError, ValueError, RuntimeError: As `put`.
        """
        self._check_open()
        return await to_thread.run_sync(self._put, *files) if files else ()

    async def get(self, file: FileRef) -> bytes:
        """The bytes of a file that this task staged, also once it is published.

        Raises:
            FileMissing: There is none of this name and content.
        """
        return await to_thread.run_sync(self._unfinished.read, file)

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """A local folder of the caller's own, always removed at the end."""
        return self._scratch.folder()

    async def retain(self, files: Collection[FileRef]) -> None:
        """Remove every other staged file, such as an attempt that died has left. Idempotent.

        Raises:
            StorageError: Something could not be removed; calling it again goes on.
            RuntimeError: The transaction has ended.
        """
        self._check_open()
        await to_thread.run_sync(self._unfinished.retain, files)

    async def publish(self, result: JSON = None) -> Manifest:
        """Make the files visible, all at once. Idempotent, rolls forward, shielded.

        Args:
            result: `Result.to_dict()`, kept in the manifest.

        Raises:
            StorageError: It was broken off; publishing again goes on, and `discard` undoes it.
            RuntimeError: The transaction was discarded or closed.
        """
        if self._manifest is not None:
            return self._manifest
        self._check_open()
        with CancelScope(shield=True):
            manifest = await to_thread.run_sync(self._unfinished.publish, result)
        self._manifest, self._ended = manifest, "published"
        return manifest

    async def discard(self) -> None:
        """Leave nothing behind; does nothing once published. Idempotent, shielded.

        Raises:
            StorageError: Something could not be removed; discarding again goes on.
            RuntimeError: The transaction was closed.
        """
        if self._ended not in {"published", "discarded"}:
            self._check_open()
            with CancelScope(shield=True):
                await to_thread.run_sync(self._unfinished.discard)
            self._ended = "discarded"

    async def close(self) -> None:
        """Keep the files staged for a later attempt."""
        self._ended = self._ended or "closed"

    def _check_open(self) -> None:
        if self._ended:
            raise RuntimeError(f"this transaction was {self._ended}; open the task again")

    def _put(self, *files: NewFile) -> tuple[FileRef, ...]:
        for _, _, data in files:
            if isinstance(data, Path):
                self._scratch.check(data)
        return self._unfinished.put(*files)
