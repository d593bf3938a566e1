"""A scheduler as one run sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from talkgen.protocols import Degradation, GPUScheduler, Model, SchedulerStats

__all__ = ["Watched"]

In = TypeVar("In")
Out = TypeVar("Out")


@attrs.frozen
class Watched:
    """Passes calls on, and tells one listener about every step down.

    Attributes:
        scheduler: Who does the work.
        on_degraded: Told of each step, before the caller of `run` is.
    """

    scheduler: GPUScheduler
    on_degraded: Callable[[Degradation], None]

    async def run(
        self,
        model: Model[In, Out],
        item: In,
        *,
        on_degraded: Callable[[Degradation], None] | None = None,
    ) -> Out:
        """As the scheduler's own."""

        def told(step: Degradation) -> None:
            self.on_degraded(step)
            if on_degraded is not None:
                on_degraded(step)

        return await self.scheduler.run(model, item, on_degraded=told)

    def stats(self) -> SchedulerStats:
        """As the scheduler's own."""
        return self.scheduler.stats()

    async def aclose(self) -> None:
        """Nothing: it is closed by whoever made it, not by one of its users."""
