"""Who may ask when: what keeps many runs from hammering one account."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from talkgen.errors import InsufficientCredits, RateLimited

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from talkgen.generators.did.timing import Clock, RetryPolicy

__all__ = ["Traffic"]


class Traffic:
    """Lets requests of one account through, first come, first served.

    A 429 stops all of them for the time that it asks for, and leaves one at a time afterwards;
    each success admits one more, up to the limit. A 402 ends what was begun before it and spends,
    wherever it is: it asks for nothing more. What begins later asks again.

    Attributes:
        refusals: How many 402s there were: what a video that spends knows when it is begun.
    """

    def __init__(self, limit: int, policy: RetryPolicy, clock: Clock) -> None:
        """Let everything through, `limit` at a time."""
        self._limit, self._policy, self._clock = limit, policy, clock
        self._limiter = anyio.CapacityLimiter(limit)
        self._closed_until = float("-inf")
        self.refusals = 0
        self._refusal: InsufficientCredits | None = None

    @asynccontextmanager
    async def turn(self, *, since: int | None = None) -> AsyncIterator[None]:
        """Wait until a request may be sent, and learn from what comes of it.

        Args:
            since: `refusals` when the video was begun, of a request that spends.

        Raises:
            talkgen.errors.InsufficientCredits: There was a 402 since then.
        """
        async with self._limiter:
            await self._opened()
            if self._refusal is not None and since is not None and since < self.refusals:
                raise _again(self._refusal)
            try:
                yield
            except RateLimited as error:
                self._pause(error)
                raise
            except InsufficientCredits as error:
                self.refusals += 1
                self._refusal = error
                raise
            if self._limiter.total_tokens < self._limit:
                self._limiter.total_tokens += 1

    async def _opened(self) -> None:
        while (rest := self._closed_until - self._clock.now()) > 0:
            await self._clock.sleep(rest)

    def _pause(self, error: RateLimited) -> None:
        until = self._clock.now() + self._policy.pause(error)
        self._closed_until = max(self._closed_until, until)
        self._limiter.total_tokens = 1


def _again(error: InsufficientCredits) -> InsufficientCredits:
    """The same for another waiter: an exception that is raised twice mixes up its tracebacks."""
    return InsufficientCredits(
        f"{error.message} This was said to another run; this one did not ask.",
        hint=error.hint,
        status=error.status,
        kind=error.kind,
    )
