"""One client for all runs of an event loop."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from anyio.lowlevel import EventLoopToken

    from talkgen._types import JSON
    from talkgen.generators.did.client import DIdClient

__all__ = ["SharedClients"]


class SharedClients:
    """A client for each event loop, made for its first user and closed after its last."""

    def __init__(self) -> None:
        """Make nothing yet."""
        self._lock = threading.Lock()
        self._clients: dict[EventLoopToken, tuple[DIdClient, list[None]]] = {}

    @asynccontextmanager
    async def one(self, make: Callable[[], DIdClient]) -> AsyncIterator[DIdClient]:
        """Use the loop's client."""
        loop = anyio.lowlevel.current_token()
        with self._lock:
            if loop not in self._clients:
                self._clients[loop] = make(), []
            client, users = self._clients[loop]
            users.append(None)
        try:
            yield client
        finally:
            with self._lock:
                users.pop()
                if last := not users:
                    del self._clients[loop]
            if last:
                await client.aclose()

    def notify(self, body: bytes | str | Mapping[str, JSON]) -> bool:
        """Hand a webhook body to every client."""
        with self._lock:
            clients = [client for client, _ in self._clients.values()]
        return sum(client.notify(body) for client in clients) > 0

    def __reduce__(self) -> tuple[type[SharedClients], tuple[()]]:
        return SharedClients, ()
