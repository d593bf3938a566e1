"""Looking at a talk until it ends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from talkgen.errors import DIdError, ResultExpired, ServiceUnavailable
from talkgen.generators.did.failures import talk_failure
from talkgen.generators.did.results import Talk

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Looks"]

logger = logging.getLogger(__name__)

GONE_AFTER = 3  # looks in a row that do not find a talk


class Looks:
    """What the looks at a talk gave so far."""

    def __init__(self, talk_id: str, on_look: Callable[[Talk | DIdError], None] | None) -> None:
        self._talk_id, self._on_look = talk_id, on_look
        self._last: Talk | DIdError | None = None
        self._was_there = False
        self._missing = 0
        self._told: set[str] = set()

    def saw(self, seen: Talk | DIdError) -> Talk | None:
        """Take in what a look gave; the talk once it is done.

        Raises:
            talkgen.errors.DIdError: The talk has failed, was rejected, or is gone.
        """
        self._tell(seen)
        if isinstance(seen, DIdError):
            self._missing = self._missing + 1 if isinstance(seen, ResultExpired) else 0
            # One that was never there may yet show up: that is the deadline's to decide.
            if self._was_there and self._missing >= GONE_AFTER:
                raise seen
            return None
        self._was_there, self._missing = True, 0
        if seen.failed:
            raise talk_failure(seen)
        return seen if seen.status == "done" and seen.result_url else None

    def _tell(self, seen: Talk | DIdError) -> None:
        if isinstance(seen, Talk) and not seen.known and seen.status not in self._told:
            self._told.add(seen.status)
            logger.warning("Talk %s has a status that is new: %r", self._talk_id, seen.status)
        self._last = seen
        if self._on_look is not None:
            self._on_look(seen)

    def overdue(self, limit: float) -> DIdError:
        """The error once the deadline has passed."""
        match self._last:
            case ResultExpired() as gone if not self._was_there:
                return gone
            case Talk(status=status):
                last = f"it is {status!r}"
            case None:
                last = "it was not seen"
            case error:
                last = f"the last look failed: {error}"
        return ServiceUnavailable(
            f"Talk {self._talk_id} was not done after {limit:g} s: {last}.",
            hint="It is paid for, and may be done later: recover() collects it. "
            "A longer timeout (D_ID_TIMEOUT_SECONDS) waits longer.",
            talk_id=self._talk_id,
        )
