"""What a stage may touch."""

from __future__ import annotations

import logging
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

import attrs

from talkgen import events
from talkgen.errors import Degraded
from talkgen.shares import Span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from talkgen._types import JSON
    from talkgen.cache import ResultCache
    from talkgen.media import Image
    from talkgen.progress import History
    from talkgen.protocols import (
        Backends,
        Codec,
        Degradation,
        GPUScheduler,
        Operation,
        Operations,
        Settlement,
        StagedFiles,
    )
    from talkgen.settings import Settings

__all__ = ["Context", "WatchedOperations"]

T = TypeVar("T")

logger = logging.getLogger("talkgen.pipeline")

THINNING = 1.0  # seconds: reports of the same per cent are passed on this often
PREVIEWING = 0.25  # seconds from one preview of a stage to the next


@attrs.define(eq=False)
class Context:
    """What a stage may touch."""

    task_id: str
    attempt: int
    settings: Settings
    backends: Backends
    scheduler: GPUScheduler
    files: StagedFiles
    operations: Operations
    _history: History
    _strict: bool
    _name: str = "initialized"
    _span: Span = attrs.field(factory=partial(Span, 0, 0))
    _previews: bool = False
    _cache: ResultCache | None = None
    _origin: str = ""
    _degradations: int = 0
    _reported: tuple[str, int, float] = ("", -1, 0.0)
    _shown: float = float("-inf")

    def enter(self, name: str, span: Span) -> None:
        """From now on the reports are this stage's."""
        self._name, self._span = name, span
        if span.announced:
            self.report(0.0, f"{name.replace('_', ' ').capitalize()} is running.")

    def leave(self) -> str:
        """The stage has ended; say so if it did not. Gives back the step of its end."""
        step = f"{self._name}_complete"
        if self._span.announced and self._reported[0] != step:
            message = f"{self._name.replace('_', ' ').capitalize()} is complete."
            self.report(1.0, message, stage=step)
        return self._reported[0] if self._reported[0].endswith("_complete") else step

    def report(
        self, fraction: float, message: str, *, stage: str | None = None, **metadata: JSON
    ) -> None:
        """Tell how far the stage is."""
        stage = stage or f"{self._name}_running"
        progress = int(self._span.at(fraction))
        before, reached, when = self._reported
        now = monotonic()
        if stage == before and progress <= reached and now - when < THINNING:
            return
        self._reported = (stage, max(progress, reached), now)
        kind = events.ProgressUpdate if stage == before else events.StageUpdate
        self._history.publish(kind, stage, progress, message, metadata)

    def degraded(self, message: str, **metadata: JSON) -> None:
        """Tell that the result will be less than asked for."""
        if self._strict:
            raise Degraded(message)
        self._degradations += 1
        self._tell_degraded(message, metadata)

    def stepped_down(self, step: Degradation) -> None:
        """Tell what the scheduler gave up. Strict refuses what is less, not what is slower."""
        if step.action in ("evicted", "split"):
            logger.debug("task %s: %s: %s", self.task_id, step.reason, step.action)
            return
        facts = {"action": step.action, "level": step.level, "device": step.device}
        if step.action == "device":
            self._tell_degraded(f"{step.reason}: going on on {step.device}, more slowly.", facts)
        else:
            self.degraded(
                f"{step.reason}: going on at a smaller size (level {step.level}).", **facts
            )

    def _tell_degraded(self, message: str, metadata: Mapping[str, JSON]) -> None:
        logger.warning("task %s: %s", self.task_id, message)
        progress = self._span.at(0.0)
        self._history.publish(events.Degraded, self._name, progress, message, metadata)

    def preview(self, image: Image) -> None:
        """Show a picture of the work so far, where the pipeline tells previews: a few a second."""
        if self._previews and monotonic() - self._shown >= PREVIEWING:
            self._shown = monotonic()
            self._history.show(image)

    async def remember(self, key: str, make: Callable[[], Awaitable[T]], codec: Codec[T]) -> T:
        """What `make` gave an earlier task with the same photo and key, or gives now."""
        if self._cache is None:
            return await make()
        before = self._degradations
        return await self._cache.remember(
            self._origin, key, make, codec, worth_keeping=lambda: self._degradations == before
        )


@attrs.frozen
class WatchedOperations:
    """Operations of whose intentions somebody hears before they are journaled."""

    _operations: Operations
    _hear: Callable[[], None]

    async def get(self, name: str) -> Operation | None:
        """An operation, as far as it is known."""
        return await self._operations.get(name)

    async def intend(self, name: str, **facts: JSON) -> Operation:
        """Journal an action before its request; gives back the existing one with its token."""
        self._hear()
        return await self._operations.intend(name, **facts)

    async def record(self, name: str, **facts: JSON) -> None:
        """Add facts, such as the remote id, as soon as they are known."""
        await self._operations.record(name, **facts)

    async def settle(self, name: str, outcome: Settlement) -> None:
        """Tell how an action ended."""
        await self._operations.settle(name, outcome)
