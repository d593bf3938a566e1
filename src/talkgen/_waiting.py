"""Waiting in an event loop with as few objects as it takes.

At each of its passes the garbage collector looks through what everybody who waits has made lately,
and nobody is served meanwhile. Each who waits for an `anyio.Event` has made 6 objects on asyncio
and 11 on trio; here they are 5 and 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable

    from anyio.lowlevel import EventLoopToken
    from trio.lowlevel import Abort, Task

__all__ = ["Waiter", "waiter"]


class Waiter(Protocol):
    """One task that waits now and then; every call is made in its event loop."""

    def until_woken(self) -> Awaitable[object]:
        """Wait for `wake`, which may come for no reason of the caller's. To be awaited at once."""
        ...

    def wake(self) -> None:
        """Let the task go on; nothing happens if it does not wait any more."""
        ...


def waiter(token: EventLoopToken) -> Waiter:
    """A waiter for a task in this event loop."""
    loop: Any = token.native_token
    return _TrioWaiter() if hasattr(loop, "run_sync_soon") else _AsyncioWaiter(loop)


class _AsyncioWaiter:
    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    def until_woken(self) -> Awaitable[object]:
        self._future = future = self._loop.create_future()
        return future

    def wake(self) -> None:
        if (future := self._future) is not None and not future.done():
            future.set_result(None)


class _TrioWaiter:
    __slots__ = ("_task", "_trio")

    def __init__(self) -> None:
        from trio import lowlevel

        self._trio = lowlevel
        self._task: Task | None = None

    def until_woken(self) -> Awaitable[object]:
        self._task = self._trio.current_task()
        return self._trio.wait_task_rescheduled(self._aborted)

    def wake(self) -> None:
        if (task := self._task) is not None:
            self._task = None
            self._trio.reschedule(task)

    def _aborted(self, _raise_cancel: object) -> Abort:
        self._task = None
        return self._trio.Abort.SUCCEEDED
