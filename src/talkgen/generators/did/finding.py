"""Finding a talk whose answer was lost."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote

import attrs

from talkgen.errors import ResultExpired

if TYPE_CHECKING:
    from talkgen.generators.did.client import DIdClient
    from talkgen.generators.did.results import Talk

__all__ = ["Wanted", "find_talk"]

logger = logging.getLogger(__name__)

# How far the service's clock may be off this one.
CLOCKS_APART = timedelta(minutes=10)
LATEST = datetime.max.replace(tzinfo=UTC)


@attrs.frozen
class Wanted:
    """What is known of a talk that may or may not exist.

    Attributes:
        user_data: What it was asked for with.
        source_urls: The same: pictures that were uploaded for it alone.
        since: When it was intended.
    """

    user_data: str
    source_urls: tuple[str, ...]
    since: datetime

    def is_it(self, talk: Talk) -> bool | None:
        """Whether a talk is the one; None where what is shown of it does not tell."""
        if talk.user_data:
            return talk.user_data == self.user_data
        shown = unquote((talk.source_url or "").partition("?")[0])
        names = map(_object_name, self.source_urls)
        # A name without a folder of its own may be anybody's.
        return any("/" in name and shown.endswith(f"/{name}") for name in names) or None

    def may_be(self, talk: Talk) -> bool:
        """It was made since then, as far as is known."""
        return (talk.created_at or LATEST) >= self.since - CLOCKS_APART


def _object_name(url: str) -> str:
    """What stays the same of an upload's address in a signed link to it."""
    return unquote(url.partition("?")[0]).partition("://")[2].partition("/")[2]


async def find_talk(client: DIdClient, wanted: Wanted) -> Talk | None:
    """Look for a talk, again and again over the settle window.

    Every look reads the whole list, in which D-ID promises neither an order nor `user_data`:
    what does not tell by itself, and was made since then, is looked at one by one, until that
    tells.

    Args:
        client: Asks.
        wanted: What is known of the talk.

    Returns:
        The talk; where there are several, the oldest of those that have not failed. None if it
        was absent throughout.

    Raises:
        talkgen.errors.DIdError: The list could not be read, so nothing is known.
    """
    found = await _settled(client, wanted)
    if len(found) > 1:
        names = ", ".join(talk.id for talk in found)
        logger.warning("D-ID has several talks of one request, and was paid for each: %s", names)
    return min(found, key=lambda talk: (talk.failed, talk.created_at or LATEST), default=None)


async def _settled(client: DIdClient, wanted: Wanted) -> list[Talk]:
    """The talks that are it, as soon as there are any; none where the last look has found none.

    The last one is begun when the window is over: one that was under way then, and took long,
    shows the list as it was before.
    """
    others: set[str] = set()
    policy, clock = client.policy, client.clock
    end = clock.now() + policy.settle_window
    while True:
        last = clock.now() >= end
        if (found := await _matching(client, wanted, others)) or last:
            return found
        await clock.sleep(max(0.0, min(policy.settle_interval, end - clock.now())))


async def _matching(client: DIdClient, wanted: Wanted, others: set[str]) -> list[Talk]:
    """The talks that are it, among those not yet known to be others."""
    found: list[Talk] = []
    for talk in await _all_talks(client):
        if talk.id in others:
            continue
        is_it = wanted.is_it(talk)
        if is_it is None and wanted.may_be(talk):
            is_it = await _asked(client, wanted, talk)
        if is_it:
            found.append(talk)
        elif is_it is False or not wanted.may_be(talk):
            others.add(talk.id)
    return found


async def _asked(client: DIdClient, wanted: Wanted, talk: Talk) -> bool | None:
    """Whether a talk that is looked at is it; None where the list is ahead of the look."""
    try:
        return wanted.is_it(await client.get_talk(talk.id)) or False
    except ResultExpired:
        return None


async def _all_talks(client: DIdClient) -> list[Talk]:
    talks: list[Talk] = []
    tokens: set[str | None] = set()
    token: str | None = None
    while token not in tokens:  # a service that repeats itself is not followed for ever
        tokens.add(token)
        page = await client.list_talks(token=token)
        talks += page.talks
        if page.token is None:
            break
        token = page.token
    return talks
