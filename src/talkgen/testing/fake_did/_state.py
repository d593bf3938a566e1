"""What the service knows: uploads, talks, credits, and the time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from talkgen._types import JSON

__all__ = [
    "Behaviour",
    "Clock",
    "Delivery",
    "Exchange",
    "Ledger",
    "Outcome",
    "State",
    "Talk",
    "Upload",
]

BLOCK_SECONDS = 15
OWNER = "google-oauth2|1"
DAY = 24 * 3600.0

Outcome: TypeAlias = Literal["done", "error", "rejected"]


class Clock:
    """Time that runs at any speed, and jumps when told to."""

    def __init__(self, speed: float) -> None:
        """Start now."""
        self.speed = speed
        self._began, self._base = time.monotonic(), time.time()

    def now(self) -> float:
        """Seconds since 1970."""
        return self._base + (time.monotonic() - self._began) * self.speed

    def monotonic(self, seconds: float) -> float:
        """The same moment by `time.monotonic()`."""
        return self._began + (seconds - self._base) / self.speed

    def advance(self, seconds: float) -> None:
        """Jump ahead."""
        self._base += seconds


def stamp(seconds: float, *, zone: bool = True) -> str:
    """A moment as the service writes it: with `Z` or, in some fields, without any zone."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + ("Z" if zone else "")


@attrs.define(kw_only=True)
class Behaviour:
    """How the service behaves; may be changed at any time.

    Attributes:
        start_after: Seconds from `created` to `started`.
        finish_after: Seconds from `created` to the end.
        outcome: How the next talks end.
        error_kind: The kind of their error.
        denied: Features that the account's plan lacks, such as `stitch`.
        moderation: The kind of a 451 that every upload and talk gets, `ImageModerationError` for
            instance; None where nothing is objected to.
        faces: How many faces are found where they are asked for.
        max_pixels: Larger pictures are uploaded, and refused by the talk.
        strict: Unknown fields of a talk are refused.
        list_user_data: Whether a list shows `user_data`.
        list_source_url: Whether a list shows `source_url` as it was sent, or signed anew.
        list_delay: Seconds until a new talk is in the list.
        page_size: The most that one page of a list has.
        renews_links: A further GET signs the result anew; otherwise the first link is all.
        odd_status: A status that no document knows, between `started` and the end.
        webhooks: How webhooks come: one for each change of the status, each twice, in reverse at
            the end, or not at all.
    """

    start_after: float = 1.0
    finish_after: float = 12.0
    outcome: Outcome = "done"
    error_kind: str = "FaceError"
    denied: frozenset[str] = frozenset()
    moderation: str | None = None
    faces: int = 1
    max_pixels: int = 10 * 1024 * 1024
    strict: bool = True
    list_user_data: bool = True
    list_source_url: bool = True
    list_delay: float = 0.0
    page_size: int = 100
    renews_links: bool = True
    odd_status: str | None = None
    webhooks: Literal["usual", "twice", "reversed", "none"] = "usual"


@attrs.frozen
class Upload:
    """A picture or a recording."""

    id: str
    url: str
    data: bytes
    created: float
    pixels: int = 0
    seconds: float = 0.0

    def expired(self, now: float) -> bool:
        """It has been deleted."""
        return now - self.created > DAY


@attrs.define
class Talk:
    """A talk, its end decided when it was created."""

    id: str
    request: dict[str, JSON]
    created: float
    started: float
    ends: float
    seconds: float
    credits: int
    outcome: Outcome
    error_kind: str
    deleted: bool = False
    link: str | None = None

    def status(self, now: float, odd: str | None = None) -> str:
        """Where it stands."""
        if now < self.started:
            return "created"
        if now >= self.ends:
            return self.outcome
        return odd if odd and now >= (self.started + self.ends) / 2 else "started"


@attrs.frozen
class Exchange:
    """A request that was carried out, and its usual answer.

    Attributes:
        request: Its kind, like `POST /talks`.
        sent: Its body, where that was JSON.
        status: The answer's.
        answered: The answer's body; None where it was empty.
    """

    request: str
    sent: JSON
    status: int
    answered: JSON


@attrs.frozen
class Delivery:
    """A webhook that was posted.

    Attributes:
        talk_id: Of which talk.
        body: What was posted.
        status: The host's answer; None where it gave none, or has no address on loopback.
    """

    talk_id: str
    body: bytes
    status: int | None


@attrs.frozen
class Ledger:
    """What happened so far.

    Attributes:
        talks: Ids of all talks ever created, in order.
        charged: Credits taken.
        refunded: Credits given back.
        uploads: Pictures and recordings received.
        downloads: Links that were followed, whatever became of the video on its way.
        requests: How many of each kind came, like `POST /talks`.
        connections: How many were opened.
        webhooks: What was posted, in order.
    """

    talks: tuple[str, ...]
    charged: int
    refunded: int
    uploads: int
    downloads: int
    requests: Counter[str]
    connections: int
    webhooks: tuple[Delivery, ...]


class State:
    """Everything that is kept, under one lock."""

    def __init__(self, behaviour: Behaviour, clock: Clock, credits: float) -> None:  # noqa: A002
        """An account with so many credits and nothing else."""
        self.lock = threading.RLock()
        self.behaviour, self.clock = behaviour, clock
        self.total = credits
        self.images: dict[str, Upload] = {}
        self.audios: dict[str, Upload] = {}
        self.talks: dict[str, Talk] = {}
        self.requests: Counter[str] = Counter()
        self.exchanges: list[Exchange] = []
        self.deliveries: list[Delivery] = []
        self.uploads = self.downloads = self.connections = 0
        self._numbers: Counter[str] = Counter()

    def number(self, kind: str) -> int:
        """Counts from 1, kind by kind."""
        self._numbers[kind] += 1
        return self._numbers[kind]

    def add_talk(self, request: dict[str, JSON], seconds: float) -> Talk:
        """Create a talk and charge for it."""
        now, behaviour = self.clock.now(), self.behaviour
        talk = Talk(
            id=f"tlk_{self.number('talk'):021d}",
            request=request,
            created=now,
            started=now + behaviour.start_after,
            ends=now + behaviour.finish_after,
            seconds=seconds,
            credits=ceil(seconds / BLOCK_SECONDS),
            outcome=behaviour.outcome,
            error_kind=behaviour.error_kind,
        )
        self.talks[talk.id] = talk
        return talk

    def there(self) -> Iterator[Talk]:
        """Talks that were not deleted."""
        return (talk for talk in self.talks.values() if not talk.deleted)

    def listed(self) -> list[Talk]:
        """Talks that a list shows, the newest first."""
        latest = self.clock.now() - self.behaviour.list_delay
        shown = [talk for talk in self.there() if talk.created <= latest]
        return shown[::-1]

    @property
    def charged(self) -> int:
        """Credits taken so far."""
        return sum(talk.credits for talk in self.talks.values())

    @property
    def refunded(self) -> int:
        """Credits given back so far: for what was accepted and then failed."""
        now = self.clock.now()
        failed = (t for t in self.talks.values() if t.status(now) in {"error", "rejected"})
        return sum(talk.credits for talk in failed)

    @property
    def remaining(self) -> float:
        """Credits left."""
        return self.total - self.charged + self.refunded

    def ledger(self) -> Ledger:
        """A snapshot."""
        with self.lock:
            return Ledger(
                talks=tuple(self.talks),
                charged=self.charged,
                refunded=self.refunded,
                uploads=self.uploads,
                downloads=self.downloads,
                requests=Counter(self.requests),
                connections=self.connections,
                webhooks=tuple(self.deliveries),
            )
