"""For plain scripts: the whole job without an event loop of one's own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import current_token

from talkgen._loops import call_soon
from talkgen.events import Heartbeat, Preview
from talkgen.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from talkgen.draft import Result
    from talkgen.events import Event

__all__ = ["SyncRun", "iter_sync", "run_sync"]


class SyncRun:
    """A run in a thread of its own: iterate over it for its events, ask it for its result.

    As often as wanted, from any thread. Leaving the iteration does not cancel the run; a program
    that ends waits for it.
    """

    def __init__(self, pipeline: Pipeline, image: Any, speech: Any, task_id: str | None) -> None:
        """Made by `iter_sync`."""
        self._events: list[Event] = []
        self._aside: Event | None = None
        self._changed = threading.Condition()
        self._cancelled = threading.Event()
        self._stop = self._cancelled.set
        work = partial(anyio.run, self._work, pipeline, image, speech, task_id)
        # A thread of its own: a loop that runs in this one could not be waited for from inside.
        executor = ThreadPoolExecutor(1, "talkgen-run")
        self._outcome = executor.submit(work)
        self._outcome.add_done_callback(lambda _: self._tell())
        executor.shutdown(wait=False)

    def __iter__(self) -> Iterator[Event]:
        seen, aside = 0, self._aside
        while (event := self._next(seen, aside)) is not None:
            if _kept(event):
                seen += 1
            else:
                aside = event
            yield event

    def result(self) -> Result:
        """Wait for the result.

        Raises:
            TalkgenError: The run failed.
        """
        return self._outcome.result()

    def cancel(self) -> None:
        """Ask it to stop; whoever asks for the result gets `RunCancelled`."""
        self._stop()

    def _next(self, seen: int, aside: Event | None) -> Event | None:
        """What comes after so many events, and after one that is not kept; None at the end."""

        def more() -> bool:
            return len(self._events) > seen or self._aside is not aside

        with self._changed:
            self._changed.wait_for(lambda: more() or self._outcome.done())
            if len(self._events) > seen:
                return self._events[seen]
            return self._aside if more() else None

    async def _work(self, pipeline: Pipeline, image: Any, speech: Any, task: str | None) -> Result:
        async with pipeline:
            run = pipeline.start(image, speech, task_id=task)
            self._stop = partial(call_soon, current_token(), run.cancel)
            if self._cancelled.is_set():
                run.cancel()
            async for event in run:
                self._tell(event)
            return await run

    def _tell(self, event: Event | None = None) -> None:
        with self._changed:
            if event is not None and _kept(event):
                self._events.append(event)
            elif event is not None:
                self._aside = event
            self._changed.notify_all()


def _kept(event: Event) -> bool:
    return not isinstance(event, Heartbeat | Preview)


def iter_sync(
    image: Any,
    speech: Any = None,
    *,
    task_id: str | None = None,
    pipeline: Pipeline | None = None,
) -> SyncRun:
    """Start a run and give back its events as they come, also where an event loop is running.

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
    run = iter_sync(image, speech, task_id=task_id, pipeline=pipeline)
    try:
        return run.result()
    except KeyboardInterrupt:
        run.cancel()
        raise
