"""Reaching an event loop from another thread."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.lowlevel import EventLoopToken

__all__ = ["call_soon"]


def call_soon(token: EventLoopToken, function: Callable[[], object]) -> None:
    """Have a loop call a function that does not block, from any thread and without waiting for it.

    In the loop's own thread it is called at once.

    `anyio.from_thread.run_sync` would make the calling thread wait for the loop, and could not be
    called from the loop's own thread. A loop that has ended has nobody left to tell: nothing
    happens then.
    """
    if token is _running():
        function()  # waking a loop from outside costs a system call
        return
    loop: Any = token.native_token
    schedule = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    with suppress(RuntimeError):
        schedule(function)


def _running() -> EventLoopToken | None:
    try:
        return current_token()
    except RuntimeError:  # no loop in this thread
        return None
