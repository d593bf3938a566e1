"""Paying once: the one place where a talk is asked for."""

from __future__ import annotations

import itertools
import logging
from functools import partial
from typing import TYPE_CHECKING

import attrs

from talkgen.errors import DIdError, OutcomeUnknown, TalkgenError
from talkgen.generators.did.finding import Wanted, find_talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from talkgen._types import JSON
    from talkgen.generators.did.client import DIdClient
    from talkgen.generators.did.request import TalkRequest
    from talkgen.generators.did.results import Talk
    from talkgen.protocols import Operation, Operations, Settlement

__all__ = ["Purchase", "user_data_of"]

logger = logging.getLogger(__name__)


def user_data_of(operation: Operation) -> str:
    """What a talk carries so that it is found again."""
    return f"talkgen:{operation.token}"


@attrs.define
class Purchase:
    """One talk of one task, in the journal before it is asked for.

    An operation that was refused, or whose talk is gone, is done with, and the next attempt has a
    new one. One that is unknown is looked for again, and never asked for again. Its facts:
    `image_urls`, `posts` (requests whose answer may have been lost, the last one included) and,
    once known, `talk_id` and `gone`.
    """

    _client: DIdClient
    _since: int
    _operations: Operations
    _name: str
    operation: Operation | None

    @classmethod
    async def open(cls, client: DIdClient, operations: Operations) -> Purchase:
        """Take up the task's purchase where it stands."""
        since = client.refusals
        for number in itertools.count(1):
            name = f"d_id_talk_{number}"
            operation = await operations.get(name)
            if operation is None or not _done_with(operation):
                break
            if operation.settled in {None, "collected"}:  # the attempt died amid `gone`
                await operations.settle(name, "unknown")
        return cls(client, since, operations, name, operation)

    async def intend(self, **facts: JSON) -> Operation:
        """Journal that a talk will be asked for."""
        self.operation = await self._operations.intend(self._name, posts=0, **facts)
        return self.operation

    async def record(self, **facts: JSON) -> None:
        """Journal more of it."""
        await self._operations.record(self._name, **facts)
        self.operation = await self._operations.get(self._name)

    async def settle(self, outcome: Settlement) -> None:
        """Journal how it ended; what was collected stays so."""
        if self.known.settled != "collected":
            await self._settle(outcome)

    async def gone(self) -> None:
        """Journal that the talk was made, and that nobody will get its video, or get it again."""
        await self.record(gone=True)
        await self._settle("unknown")

    async def _settle(self, outcome: Settlement) -> None:
        await self._operations.settle(self._name, outcome)
        self.operation = await self._operations.get(self._name)

    @property
    def since(self) -> int:
        """What the client's `refusals` were when this was begun: a 402 since then ends it."""
        return self._since

    @property
    def spends(self) -> bool:
        """Credits are, or may be, spent on it."""
        return self.operation is not None and self.operation.settled != "refused"

    @property
    def known(self) -> Operation:
        """The operation, which has been intended."""
        assert self.operation is not None  # noqa: S101 - `intend` comes before everything else
        return self.operation

    async def talk_id(self, request: Callable[[], Awaitable[TalkRequest]], *, repost: bool) -> str:
        """The talk's id: known, found, or of a talk that is made now.

        Args:
            request: Gives what is asked for, when it is about to be.
            repost: Ask once more when an answer was lost and the talk was not found.

        Raises:
            talkgen.errors.OutcomeUnknown: Answers were lost, and the talk was not found.
            talkgen.errors.DIdError: It was not made; or, unsettled, it is not known yet whether.
        """
        while (number := self.known.facts.get("talk_id")) is None:
            posts = self.known.facts["posts"]
            if posts and await self._found():
                continue
            if self.known.settled == "unknown" or posts >= (2 if repost else 1):
                await self._give_up(None)
            await self._post(await request(), posts)
        return str(number)

    async def _found(self) -> bool:
        wanted = Wanted(
            user_data=user_data_of(self.known),
            source_urls=tuple(self.known.facts["image_urls"]),
            since=self.known.intended_at,
        )
        talk = await find_talk(self._client, wanted)
        if talk is not None:
            await self._write_down(talk)
        return talk is not None

    async def _post(self, request: TalkRequest, lost_before: int) -> None:
        """Ask once; that the answer was lost is no error yet."""
        try:
            await self._client.create_talk(
                request,
                on_sending=partial(self.record, posts=lost_before + 1),
                on_created=self._write_down,
                since=self._since,
            )
        except OutcomeUnknown as error:
            logger.warning("%s", str(error))  # not the error: a kept record would keep its frames
        except DIdError as error:
            await self._refused(error, lost_before)
            raise

    async def _refused(self, error: DIdError, lost_before: int) -> None:
        """This request made no talk; one before it, whose answer was lost, may have."""
        if not lost_before:
            await self.settle("refused")
        elif error.retryable:
            await self.record(posts=lost_before)
        else:
            await self._give_up(error)

    async def _give_up(self, cause: TalkgenError | None) -> None:
        await self.settle("unknown")
        token = user_data_of(self.known)
        unknown = OutcomeUnknown(
            "D-ID was asked for a talk, the answer was lost, and the talk was not found "
            f"afterwards. If it was made, it carries the token {token!r}."
        )
        unknown.token = token
        raise unknown from cause

    async def _write_down(self, talk: Talk) -> None:
        await self.record(talk_id=talk.id)


def _done_with(operation: Operation) -> bool:
    return operation.settled == "refused" or "gone" in operation.facts
