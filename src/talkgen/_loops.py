"""What an event loop is asked beside what anyio asks it."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.lowlevel import EventLoopToken

__all__ = ["being_cancelled", "call_later", "call_soon"]


def call_soon(token: EventLoopToken, function: Callable[[], object]) -> None:
    """Have a loop call a function that does not block, from any thread and without waiting for it.

    In the loop's own thread it is called at once.

    `anyio.from_thread.run_sync` would make the calling thread wait for the loop, and could not be
    called from the loop's own thread. A loop that has ended has nobody left to tell: nothing
    happens then.
    """
    if token == _running():
        function()  # waking a loop from outside costs a system call
        return
    loop: Any = token.native_token
    schedule = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    with suppress(RuntimeError):
        schedule(function)


def call_later(token: EventLoopToken, seconds: float, function: Callable[[], object]) -> None:
    """Have the loop that runs in this thread call a function after a while, unless it ends first.

    The function must neither block nor raise. Unlike a task, what waits for it keeps nobody's
    task group open.
    """
    loop: Any = token.native_token
    if (schedule := getattr(loop, "call_later", None)) is not None:
        schedule(seconds, function)
        return
    import trio

    async def call() -> None:
        await trio.sleep(seconds)
        function()

    trio.lowlevel.spawn_system_task(call)


def being_cancelled() -> bool:
    """Somebody cancels the task that runs here; else a cancelled exception is not meant for it.

    Whoever awaits an asyncio future that others have cancelled gets such an exception, too.
    """
    if anyio.current_effective_deadline() == -math.inf:
        return True
    token: Any = current_token()
    if not isinstance(token.native_token, asyncio.AbstractEventLoop):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _running() -> EventLoopToken | None:
    try:
        return current_token()
    except RuntimeError:  # no loop in this thread
        return None
