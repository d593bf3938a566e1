"""How requests are sent: over which connections, when, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from talkgen import telemetry
from talkgen.errors import ServiceUnavailable
from talkgen.generators.did.traffic import Traffic
from talkgen.requirements import explained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from talkgen._types import JSON
    from talkgen.generators.did.timing import Clock, RetryPolicy
    from talkgen.generators.did.transport import Transport

__all__ = ["Session", "parsed"]

R = TypeVar("R")


class Session:
    """One connection pool, one account: whatever is asked goes through here.

    Attributes:
        policy: How often requests are repeated.
        clock: By which it waits.
        traffic: Who may ask when.
    """

    def __init__(
        self, connect: Callable[[], Transport], *, limit: int, policy: RetryPolicy, clock: Clock
    ) -> None:
        """Open no connection yet.

        Args:
            connect: Makes the connections; called once, in a thread: reading certificates takes
                a while.
            limit: Requests at a time.
            policy: How often requests are repeated.
            clock: By which it waits.
        """
        self._connect = connect
        self.policy, self.clock = policy, clock
        self.traffic = Traffic(limit, policy, clock)
        self._opening = anyio.Lock()
        self._opened: Transport | None = None

    async def transport(self) -> Transport:
        """The connections."""
        async with self._opening:
            if self._opened is None:
                self._opened = await anyio.to_thread.run_sync(self._connect)
            return self._opened

    async def aclose(self) -> None:
        """Close the connections."""
        opened, self._opened = self._opened, None
        if opened is not None:
            with anyio.CancelScope(shield=True):
                await opened.aclose()

    async def send(self, method: str, route: str, *, doing: str, **what: Any) -> JSON:
        """Send a request once, at once; see `Transport.send`."""
        transport = await self.transport()
        return await transport.send(method, route, doing=doing, **what)

    async def ask(
        self,
        parse: Callable[[JSON], R],
        method: str,
        route: str,
        *,
        doing: str,
        since: int | None = None,
        **what: Any,
    ) -> R:
        """Ask, again where that helps, and read the answer.

        Args:
            parse: Reads it; a `ValueError` says that it cannot.
            method: Like `GET`.
            route: Like `/talks/{id}`.
            doing: What it is for, like `upload the picture`.
            since: As for `Traffic.turn`.
            **what: As for `Transport.send`.

        Raises:
            talkgen.errors.DIdError: The class for what went wrong.
        """

        async def once() -> R:
            async with self.traffic.turn(since=since):
                return parsed(parse, await self.send(method, route, doing=doing, **what))

        return await self.retried(once)

    async def retried(self, call: Callable[[], Awaitable[R]]) -> R:
        """Call, again where the policy says so."""
        with explained():
            import stamina

        policy, real = self.policy, self.clock.real

        def backoff(error: Exception) -> bool | float:
            wait = policy.wait(error)
            return wait if isinstance(wait, bool) else real(wait)

        async for attempt in stamina.retry_context(
            on=backoff,
            attempts=policy.retries + 1,
            timeout=None,
            wait_initial=real(policy.first_wait),
            wait_jitter=real(policy.jitter),
            wait_max=real(policy.longest_wait),
        ):
            with attempt, telemetry.resend(attempt.num - 1):
                return await call()
        raise AssertionError("the last try either returns or raises")


def parsed(parse: Callable[[JSON], R], answer: JSON) -> R:
    """Read an answer; one that cannot be used is the service's failure."""
    try:
        return parse(answer)
    except ValueError as error:
        raise ServiceUnavailable(f"D-ID's answer cannot be used: {error}.") from error
