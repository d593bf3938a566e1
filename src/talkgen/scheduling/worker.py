"""One plain thread for calls that must not block an event loop, nor meet each other."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
import anyio.lowlevel
import attrs

from talkgen._loops import call_soon

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.lowlevel import EventLoopToken

__all__ = ["Worker"]

T = TypeVar("T")


@attrs.define(eq=False)
class _Call(Generic[T]):
    function: Callable[[], T]
    token: EventLoopToken = attrs.field(factory=anyio.lowlevel.current_token)
    done: anyio.Event = attrs.field(factory=anyio.Event)
    wanted: bool = True
    values: list[T] = attrs.field(factory=list)
    error: BaseException | None = None

    def perform(self) -> None:
        """In the worker's thread."""
        if not self.wanted:
            return
        try:
            self.values.append(self.function())
        except BaseException as error:  # noqa: BLE001 - handed over to the waiter, whole
            self.error = error
        call_soon(self.token, self.done.set)

    async def result(self) -> T:
        """In the waiter's loop."""
        try:
            await self.done.wait()
        finally:
            self.wanted = False
        if self.error is not None:
            raise self.error
        return self.values.pop()


class Worker:
    """A thread that runs calls one at a time, first come first served, for any event loop.

    A waiter that is cancelled leaves at once: a call that has not begun is dropped, one that runs
    ends in its own time and its result is dropped.
    """

    def __init__(self, name: str) -> None:
        """Start the thread.

        Args:
            name: The thread's name, for debuggers.
        """
        self._calls: queue.SimpleQueue[_Call[object] | None] = queue.SimpleQueue()
        # A daemon, so that a program that forgets to close a pipeline still ends.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function in the thread, after the calls that came before it."""
        call = _Call(function)
        self._calls.put(call)  # type: ignore[arg-type]  # SimpleQueue is invariant
        return await call.result()

    async def aclose(self) -> None:
        """End the thread after the calls that were put before; waits for it."""
        self._calls.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.perform()
            del call  # the next get() must not keep a picture alive
