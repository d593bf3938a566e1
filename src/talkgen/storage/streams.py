"""Pieces of a file as a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import ClosedResourceError, EndOfStream
from anyio.abc import ByteReceiveStream
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["PieceStream"]


class PieceStream(ByteReceiveStream):
    """Gives bytes as they are fetched."""

    def __init__(self, fetch: Callable[[], Awaitable[bytes | None]]) -> None:
        """Fetch nothing yet.

        Args:
            fetch: Gives the next piece, None at the end.
        """
        self._fetch = fetch
        self._rest = memoryview(b"")
        self._closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes."""
        await checkpoint()
        if self._closed:
            raise ClosedResourceError
        while not self._rest:
            piece = await self._fetch()
            if piece is None:
                raise EndOfStream
            self._rest = memoryview(piece)
        taken, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return bytes(taken)

    async def aclose(self) -> None:
        """Give no more."""
        self._closed = True
        self._rest = memoryview(b"")
