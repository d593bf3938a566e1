"""Open pipelines: one for each set of options, the latest few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import attrs

from talkgen import Pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import TaskGroup

    from studio.options import Options
    from talkgen.protocols import VideoGenerator

__all__ = ["Pipelines"]

KEPT = 8


@attrs.define(eq=False)
class Pipelines:
    """Pipelines by options. They share whatever they are given: storage, models, events.

    One costs a millisecond to open, but anybody may send any options: those that nobody has asked
    for lately are closed, after their runs have ended.

    Attributes:
        generator: Makes all the videos.
        shared: Keyword arguments of every `Pipeline`.
        tasks: Where they are closed.
    """

    generator: VideoGenerator
    shared: Mapping[str, Any]
    tasks: TaskGroup
    _open: dict[Options, Pipeline] = attrs.field(factory=dict, init=False)
    _opening: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)

    async def of(self, options: Options) -> Pipeline:
        """The open pipeline for these options; start its run before anything else is awaited."""
        async with self._opening:
            pipeline = self._open.pop(options, None) or await self._opened(options)
            self._open[options] = pipeline  # the latest
            self._close_all_but(KEPT)
            return pipeline

    async def _opened(self, options: Options) -> Pipeline:
        # Not `async with`: it outlasts the request. The loop of a web server is asyncio's.
        return await Pipeline.open(options.stages(self.generator), **self.shared)

    def close(self) -> None:
        """Begin to close all; the task group waits for the end of their runs."""
        self._close_all_but(0)

    def _close_all_but(self, latest: int) -> None:
        while len(self._open) > latest:
            pipeline = self._open.pop(next(iter(self._open)))
            self.tasks.start_soon(pipeline.aclose)
