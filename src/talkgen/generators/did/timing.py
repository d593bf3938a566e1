"""When to try again, when to look again, and when to stop: all of it in values."""

from __future__ import annotations

import math
import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import anyio
import attrs
from attrs import validators

from talkgen.errors import DIdError, RateLimited

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Clock", "Polling", "RetryPolicy", "retry_after"]

CONFLICT = 409  # what is to be deleted is still at work


@attrs.frozen
class Clock:
    """The time by which the client waits.

    Attributes:
        speed: Its seconds in one real second; tests let it run faster. What bounds input and
            output (the timeouts of httpx, `RetryPolicy.post_deadline`) stays in real seconds.
    """

    speed: float = attrs.field(default=1.0, validator=validators.gt(0))

    def now(self) -> float:
        """Seconds, from an arbitrary beginning."""
        return time.monotonic() * self.speed

    def real(self, seconds: float) -> float:
        """The real seconds in so many of this clock."""
        return seconds / self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(self.real(seconds))


def _seconds(default: float) -> float:
    field: float = attrs.field(default=default, validator=validators.ge(0))
    return field


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often, and after how long, a request is tried again.

    Attributes:
        retries: After the first try.
        first_wait: Seconds before the first of them; each next waits twice as long.
        jitter: Seconds at most that chance adds to a wait.
        rate_limited_wait: Seconds after a 429 that does not say how long.
        longest_wait: Seconds that no wait exceeds, whatever the service asks for.
        post_deadline: Real seconds within which the request for a talk must be answered; it is
            shielded from cancellation for so long. After them its answer counts as lost.
        settle_window: Seconds in which a talk whose answer was lost is looked for.
        settle_interval: Seconds between two looks.
    """

    retries: int = attrs.field(default=3, validator=validators.ge(0))
    first_wait: float = _seconds(1.0)
    jitter: float = _seconds(0.5)
    rate_limited_wait: float = _seconds(5.0)
    longest_wait: float = _seconds(120.0)
    post_deadline: float = _seconds(60.0)
    settle_window: float = _seconds(20.0)
    settle_interval: float = _seconds(5.0)

    def pause(self, error: DIdError) -> float:
        """Seconds that an answer asks for; those after a 429, where it does not say."""
        asked = self.rate_limited_wait if error.retry_after is None else error.retry_after
        return min(asked + random.uniform(0, self.jitter), self.longest_wait)  # noqa: S311

    def wait(self, error: Exception) -> bool | float:
        """Whether to try again: False, True after the usual wait, or after so many seconds."""
        if not isinstance(error, DIdError):
            return False
        if isinstance(error, RateLimited) or (error.retryable and error.retry_after is not None):
            return self.pause(error)
        return error.retryable or error.status == CONFLICT


@attrs.frozen(kw_only=True)
class Polling:
    """How often a talk is looked at, and for how long.

    Attributes:
        first: Seconds until the first look.
        growth: By how much each wait is longer than the one before it.
        longest: Seconds that the waits grow to.
        jitter: The share of a wait that chance takes off or adds, 0..1.
        patience: Seconds that a talk is waited for at least.
        patience_per_second: The same, for each second of the recording.
        webhook: Seconds between two looks where a webhook is to tell of the end. The first look is
            as early as without one: what came before anybody waited has woken nobody.
    """

    first: float = _seconds(2.0)
    growth: float = attrs.field(default=1.2, validator=validators.ge(1))
    longest: float = _seconds(10.0)
    jitter: float = attrs.field(default=0.2, validator=[validators.ge(0), validators.lt(1)])
    patience: float = _seconds(300.0)
    patience_per_second: float = _seconds(20.0)
    webhook: float = _seconds(30.0)

    def waits(self, *, webhook: bool = False) -> Iterator[float]:
        """Seconds before each look, without end."""
        wait = self.first
        while True:
            yield wait * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311
            wait = self.webhook if webhook else min(wait * self.growth, self.longest)

    def deadline(self, seconds: float) -> float:
        """Seconds that a talk of a recording of this length is waited for."""
        return max(self.patience, self.patience_per_second * seconds)


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """The seconds that a `Retry-After` header asks for (RFC 9110, section 10.2.3).

    Args:
        value: Seconds, or a date.
        now: What the date is compared with.

    Returns:
        None where there is no header, or nothing in it that could be read.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        return seconds if math.isfinite(seconds := float(text)) else None
    try:
        date = parsedate_to_datetime(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, OverflowError):
        return None
