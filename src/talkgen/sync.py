"""For plain scripts: the whole job in one call, without an event loop of one's own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from talkgen.pipeline import Pipeline

if TYPE_CHECKING:
    from talkgen.draft import Result

__all__ = ["run_sync"]


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
    work = partial((pipeline or Pipeline()).run, image, speech, task_id=task_id)
    # A thread of its own: a loop that runs in this one could not be waited for from inside.
    with ThreadPoolExecutor(1, "talkgen-run-sync") as executor:
        return executor.submit(anyio.run, work).result()
