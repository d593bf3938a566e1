"""A run in a notebook: a bar that goes on while later cells run, and at its end the video."""

from __future__ import annotations

import asyncio
import sys
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

import anyio.to_thread

from talkgen import html
from talkgen.errors import TalkgenError
from talkgen.events import Heartbeat, Preview

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from IPython.display import DisplayHandle

    from talkgen.draft import Result
    from talkgen.events import Event

__all__ = ["Watchable", "show"]

_following: set[asyncio.Task[None]] = set()  # a loop alone would let them be collected


class Watchable(Protocol):
    """What is shown: a run."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """Its events."""
        ...

    def __await__(self) -> Generator[Any, Any, Result]:
        """Its result."""
        ...


def show(run: Watchable, outcome: Result | BaseException | None) -> None:
    """Display a run in the cell that is running; elsewhere than in a kernel, print it.

    The output is brought up to date until the run has ended, also while later cells run.

    Args:
        run: The run.
        outcome: Its result or its error, where it has ended: that is shown at once then.
    """
    if not _in_kernel():
        print(repr(run))  # noqa: T201 - what IPython does at a terminal
        return
    from IPython.display import DisplayHandle

    handle = DisplayHandle()
    page = html.bar(0, "Starting") if outcome is None else _page(outcome)
    handle.display(_bundle(run, page), raw=True)
    if outcome is not None:
        return
    # Without the cell's context: what is shown then belongs to the cell that runs at the time,
    # to which every front end listens; some have stopped listening to this one when it has ended.
    following = asyncio.get_running_loop().create_task(_follow(run, handle), context=Context())
    _following.add(following)
    following.add_done_callback(_following.discard)


def _in_kernel() -> bool:
    """IPython runs here, with a front end that can change what it shows, and on asyncio."""
    if (ipython := sys.modules.get("IPython")) is None:
        return False
    if getattr(ipython.get_ipython(), "kernel", None) is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _follow(run: Watchable, handle: DisplayHandle) -> None:
    picture = ""
    async for event in run:
        if isinstance(event, Heartbeat):
            continue
        if isinstance(event, Preview):
            size = (event.image.width, event.image.height)
            picture = html.picture(event.url, size)
        page = html.below(html.bar(event.progress, event.message), picture)
        handle.update(_bundle(run, page), raw=True)
    try:
        outcome: Result | BaseException = await run
    except TalkgenError as error:
        outcome = error
    page = await anyio.to_thread.run_sync(_page, outcome)
    handle.update(_bundle(run, page), raw=True)


def _page(outcome: Result | BaseException) -> str:
    """What a run has come to."""
    try:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome._repr_html_()
    except TalkgenError as error:
        return html.failure(str(error), error.hint)


def _bundle(run: Watchable, page: str) -> dict[str, str]:
    return {"text/html": page, "text/plain": repr(run)}
