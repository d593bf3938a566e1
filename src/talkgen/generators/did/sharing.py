"""One client for all runs of an event loop and an account."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from anyio.lowlevel import EventLoopToken

    from talkgen._types import JSON, Secret
    from talkgen.generators.did.client import DIdClient

__all__ = ["SharedClients"]


class SharedClients:
    """A client for each event loop and key, made for its first user, closed after its last."""

    def __init__(self) -> None:
        """Make nothing yet."""
        self._lock = threading.Lock()
        self._clients: dict[tuple[EventLoopToken, Secret], tuple[DIdClient, list[None]]] = {}

    @asynccontextmanager
    async def one(self, api_key: Secret, make: Callable[[], DIdClient]) -> AsyncIterator[DIdClient]:
        """Use the loop's client of an account: pipelines may have settings of their own."""
        place = anyio.lowlevel.current_token(), api_key
        with self._lock:
            if place not in self._clients:
                self._clients[place] = make(), []
            client, users = self._clients[place]
            users.append(None)
        try:
            yield client
        finally:
            with self._lock:
                users.pop()
                if last := not users:
                    del self._clients[place]
            if last:
                await client.aclose()

    def notify(self, body: bytes | str | Mapping[str, JSON]) -> bool:
        """Hand a webhook body to every client."""
        with self._lock:
            clients = [client for client, _ in self._clients.values()]
        return sum(client.notify(body) for client in clients) > 0

    def __reduce__(self) -> tuple[type[SharedClients], tuple[()]]:
        return SharedClients, ()
