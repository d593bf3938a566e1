"""A scheduler as one run sees it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import attrs

from talkgen import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from talkgen.protocols import Degradation, GPUScheduler, Model, SchedulerStats

__all__ = ["Watched"]

In = TypeVar("In")
Out = TypeVar("Out")

Listener: TypeAlias = "Callable[[Degradation], None]"


@attrs.frozen
class Watched:
    """Passes calls on, tells one listener about every step down, and has calls recorded.

    Attributes:
        scheduler: Who does the work.
        on_degraded: Told of each step, before the caller of `run` is.
    """

    scheduler: GPUScheduler
    on_degraded: Listener

    async def run(
        self,
        model: Model[In, Out],
        item: In,
        *,
        on_degraded: Listener | None = None,
    ) -> Out:
        """As the scheduler's own."""
        told = self.on_degraded
        if on_degraded is not None:
            told = partial(_tell_both, self.on_degraded, on_degraded)
        with telemetry.model(model.key):
            return await self.scheduler.run(model, item, on_degraded=told)

    def stats(self) -> SchedulerStats:
        """As the scheduler's own."""
        return self.scheduler.stats()

    async def aclose(self) -> None:
        """Nothing: it is closed by whoever made it, not by one of its users."""


def _tell_both(first: Listener, second: Listener, step: Degradation) -> None:
    first(step)
    second(step)
