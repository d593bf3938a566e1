"""For plain scripts: the whole job without an event loop of one's own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio.lowlevel import current_token

from talkgen._loops import call_soon
from talkgen.events import Heartbeat, Preview
from talkgen.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextvars import Context

    from talkgen.draft import Result
    from talkgen.events import Event
    from talkgen.progress import History

__all__ = ["SyncRun", "iter_sync", "run_sync"]

T = TypeVar("T")


class SyncRun:
    """A run in a thread of its own: iterate over it for its events, ask it for its result.

    As often as wanted, from any thread. Leaving the iteration does not cancel the run, and a
    program that ends waits for it; an interrupt (Ctrl-C) of whoever waits for it does.
    """

    def __init__(self, pipeline: Pipeline, image: Any, speech: Any, task_id: str | None) -> None:
        """Made by `iter_sync`."""
        self._history: History | None = None  # None until it has started
        self._changed = threading.Condition()
        self._cancelled = threading.Event()
        self._stop: Callable[[], object] = self._cancelled.set
        job = partial(self._work, pipeline, image, speech, task_id)
        work = partial(anyio.run, _in_context, copy_context(), job)
        # A thread of its own: a loop that runs in this one could not be waited for from inside.
        executor = ThreadPoolExecutor(1, "talkgen-run")
        self._outcome = executor.submit(work)
        self._outcome.add_done_callback(lambda _: self._tell())
        executor.shutdown(wait=False)

    def __iter__(self) -> Iterator[Event]:
        seen, aside = 0, self._history.aside if self._history else None
        while (event := self._wait_for_next(seen, aside)) is not None:
            if isinstance(event, Heartbeat | Preview):
                aside = event
            else:
                seen += 1
            yield event

    def result(self) -> Result:
        """Wait for the result.

        Raises:
            TalkgenError: The run failed.
        """
        with self._cancelled_by_interrupt():
            return self._outcome.result()

    def cancel(self) -> None:
        """Ask it to stop; whoever asks for the result gets `RunCancelled`."""
        self._cancelled.set()  # first: it may be about to start
        self._stop()

    def _wait_for_next(self, seen: int, aside: Event | None) -> Event | None:
        """What comes next for a reader, see `History.next`; None at the end."""

        def coming() -> Event | None:
            return self._history.next(seen, aside) if self._history else None

        with self._cancelled_by_interrupt(), self._changed:
            self._changed.wait_for(lambda: coming() is not None or self._outcome.done())
            return coming()

    @contextmanager
    def _cancelled_by_interrupt(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self.cancel()
            raise

    async def _work(self, pipeline: Pipeline, image: Any, speech: Any, task: str | None) -> Result:
        async with pipeline:
            run = pipeline.start(image, speech, task_id=task)
            self._history = run.history
            self._stop = partial(call_soon, current_token(), run.cancel)
            if self._cancelled.is_set():
                run.cancel()
            async for _ in run:
                self._tell()
            return await run

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()


async def _in_context(context: Context, work: Callable[[], Awaitable[T]]) -> T:
    """Work with the caller's context variables: their span is the parent, their log says whose.

    What the event loop has set stays its own: the caller may be in a loop of another kind.
    """
    own = copy_context()
    for variable, value in context.items():
        if variable not in own:
            variable.set(value)
    return await work()


def iter_sync(
    image: Any,
    speech: Any = None,
    *,
    task_id: str | None = None,
    pipeline: Pipeline | None = None,
) -> SyncRun:
    """Start a run and give back its events as they come, also where an event loop is running.

    The run is given the caller's context variables, as a task is: its span is a child of theirs.

        run = iter_sync("me.jpg", "hello.wav")
        for event in run:
            print(event.message)
        run.result().video.save("hello.mp4")

    Args:
        image: An `Image`, or whatever `Image.open` takes.
        speech: A `Speech` or `Text`, or whatever `Speech.open` takes.
        task_id: Names the task; by default a new UUID.
        pipeline: One that is not open; by default a new `Pipeline()`.
    """
    return SyncRun(pipeline or Pipeline(), image, speech, task_id)


def run_sync(
    image: Any,
    speech: Any = None,
    *,
    task_id: str | None = None,
    pipeline: Pipeline | None = None,
) -> Result:
    """Run a pipeline and wait for it, also where an event loop is already running.

    Args:
        image: An `Image`, or whatever `Image.open` takes.
        speech: A `Speech` or `Text`, or whatever `Speech.open` takes.
        task_id: Names the task; by default a new UUID.
        pipeline: One that is not open; by default a new `Pipeline()`.

    Raises:
        TalkgenError: The run failed.
    """
    return iter_sync(image, speech, task_id=task_id, pipeline=pipeline).result()
