"""What D-ID answers, as values; whatever is missing or new in an answer does no harm."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from talkgen._types import JSON

__all__ = ["AudioUpload", "Credits", "FaceBox", "ImageUpload", "Talk", "TalkPage", "Voice"]

ENDS = frozenset({"done", "error", "rejected"})
KNOWN = ENDS | {"created", "started"}
UNKNOWN = "unknown"


@attrs.frozen
class FaceBox:
    """A face, in parts of the picture's width and height, 0..1.

    Attributes:
        top: Of its upper edge.
        left: Of its left edge.
        bottom: Of its lower edge.
        right: Of its right edge.
    """

    top: float
    left: float
    bottom: float
    right: float


@attrs.frozen
class ImageUpload:
    """A picture that D-ID keeps for a day or two.

    Attributes:
        id: What deletes it; None where the answer has none.
        url: What a talk names as its `source_url`, to be passed on as it is.
        faces: How many were found; None where they were not asked for.
    """

    id: str | None
    url: str
    faces: int | None = None

    @classmethod
    def parse(cls, value: JSON) -> ImageUpload:
        """Read an answer.

        Raises:
            ValueError: It has no `url`.
        """
        facts = _object(value)
        faces = facts.get("faces")
        count = len(faces) if isinstance(faces, list) else None
        return cls(id=_text(facts.get("id")), url=_required(facts, "url"), faces=count)


@attrs.frozen
class AudioUpload:
    """A recording that D-ID keeps for a day or two.

    Attributes:
        id: What deletes it; None where the answer has none.
        url: What a talk names as its `audio_url`, to be passed on as it is.
        duration: Seconds, where the answer has them.
    """

    id: str | None
    url: str
    duration: float | None = None

    @classmethod
    def parse(cls, value: JSON) -> AudioUpload:
        """Read an answer.

        Raises:
            ValueError: It has no `url`.
        """
        facts = _object(value)
        return cls(
            id=_text(facts.get("id")),
            url=_required(facts, "url"),
            duration=_number(facts.get("duration")),
        )


@attrs.frozen(kw_only=True)
class Talk:
    """A talk.

    Attributes:
        id: Its name at D-ID.
        status: `created`, `started`, `done`, `error`, `rejected`, or a word that is new; `unknown`
            where the answer has none.
        created_at: UTC; None where the answer has none, or none that could be read.
        started_at: The same, of when D-ID began.
        modified_at: The same, of the last change.
        duration: Seconds of the video.
        result_url: Where the video is, for a day; not in the repr, because whoever has the link
            has the video.
        result_format: `mp4` or `mov`.
        source_url: The picture, as it was sent or as a link to it.
        audio_url: The recording, likewise.
        user_data: What was sent with it.
        name: Likewise.
        error_kind: Why it failed, in D-ID's word.
        error: The same, for people.
    """

    id: str
    status: str
    created_at: datetime | None = None
    started_at: datetime | None = None
    modified_at: datetime | None = None
    duration: float | None = None
    result_url: str | None = attrs.field(default=None, repr=False)
    result_format: str | None = None
    source_url: str | None = attrs.field(default=None, repr=False)
    audio_url: str | None = attrs.field(default=None, repr=False)
    user_data: str | None = None
    name: str | None = None
    error_kind: str | None = None
    error: str | None = None

    @property
    def ended(self) -> bool:
        """It will not change any more."""
        return self.status in ENDS

    @property
    def failed(self) -> bool:
        """It has ended without a video."""
        return self.ended and self.status != "done"

    @property
    def known(self) -> bool:
        """The status is one that D-ID documents."""
        return self.status in KNOWN

    @classmethod
    def parse(cls, value: JSON) -> Talk:
        """Read an answer, or a webhook's body.

        Raises:
            ValueError: It has no `id`.
        """
        facts = _object(value)
        error = _mapping(facts.get("error"))
        script, config = _mapping(facts.get("script")), _mapping(facts.get("config"))
        form = _text(config.get("result_format"))
        return cls(
            id=_required(facts, "id"),
            status=_text(facts.get("status")) or UNKNOWN,
            created_at=moment(facts.get("created_at")),
            started_at=moment(facts.get("started_at")),
            modified_at=moment(facts.get("modified_at")),
            duration=_number(facts.get("duration")),
            result_url=_text(facts.get("result_url")),
            result_format=form.lstrip(".") if form else None,
            source_url=_text(facts.get("source_url")),
            audio_url=_text(facts.get("audio_url")) or _text(script.get("audio_url")),
            user_data=_text(facts.get("user_data")),
            name=_text(facts.get("name")),
            error_kind=_text(error.get("kind")),
            error=_text(error.get("description")),
        )


@attrs.frozen
class TalkPage:
    """A part of the list of talks.

    Attributes:
        talks: Those that could be read.
        token: Asks for the next part; None on the last.
    """

    talks: tuple[Talk, ...]
    token: str | None = None

    @classmethod
    def parse(cls, value: JSON) -> TalkPage:
        """Read an answer; an item that cannot be read is left out.

        Raises:
            ValueError: It is no list of talks.
        """
        facts = _object(value)
        items = facts.get("talks")
        if not isinstance(items, list):
            raise ValueError("there are no talks in it")  # noqa: TRY004 - as below
        readable = [item for item in map(_mapping, items) if _text(item.get("id"))]
        return cls(tuple(map(Talk.parse, readable)), _text(facts.get("token")))


@attrs.frozen
class Credits:
    """What the account has left: one credit pays for 15 seconds that have begun.

    Attributes:
        remaining: To be spent.
        total: In the present period.
        expires_at: When the first of them lapse, where the answer says so.
    """

    remaining: float
    total: float
    expires_at: datetime | None = None

    @classmethod
    def parse(cls, value: JSON) -> Credits:
        """Read an answer.

        Raises:
            ValueError: It does not say what is left.
        """
        facts = _object(value)
        remaining = _number(facts.get("remaining"))
        if remaining is None:
            raise ValueError("it does not say how many credits remain")
        total = _number(facts.get("total"))
        ends = (moment(_mapping(part).get("expire_at")) for part in _items(facts, "credits"))
        first = min(filter(None, ends), default=None)
        return cls(remaining, remaining if total is None else total, first)


@attrs.frozen
class Voice:
    """A voice for texts.

    Attributes:
        id: What `Text.voice` takes.
        name: For people.
        provider: Who speaks, like `microsoft`.
        gender: As the provider says.
        locales: Languages, like `en-US`.
        styles: Ways of speaking.
    """

    id: str
    name: str
    provider: str | None = None
    gender: str | None = None
    locales: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: JSON) -> Voice:
        """Read an answer's item.

        Raises:
            ValueError: It has no `id`.
        """
        facts = _object(value)
        number = _required(facts, "id")
        locales = (_text(_mapping(item).get("locale")) for item in _items(facts, "languages"))
        return cls(
            id=number,
            name=_text(facts.get("name")) or number,
            provider=_text(facts.get("provider")),
            gender=_text(facts.get("gender")),
            locales=tuple(filter(None, locales)),
            styles=tuple(filter(None, map(_text, _items(facts, "styles")))),
        )


def faces_of(value: JSON) -> tuple[FaceBox, ...]:
    """Read the answer of the face detection; a face that cannot be read is left out."""
    crops = map(_mapping, _items(_object(value), "faceCrops"))
    sides = [[_number(crop.get(side)) for side in attrs.fields_dict(FaceBox)] for crop in crops]
    return tuple(FaceBox(*edges) for edges in sides if None not in edges)  # type: ignore[arg-type]


def voices_of(value: JSON) -> tuple[Voice, ...]:
    """Read the list of voices; one that cannot be read is left out."""
    items = value if isinstance(value, list) else []
    return tuple(Voice.parse(item) for item in items if _text(_mapping(item).get("id")))


def moment(value: JSON) -> datetime | None:
    """A time stamp, which may or may not have a zone; without one it is UTC."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _object(value: JSON) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - of an answer, not of a caller
    return value


def _mapping(value: JSON) -> dict[str, JSON]:
    return value if isinstance(value, dict) else {}


def _items(facts: dict[str, JSON], name: str) -> list[JSON]:
    value = facts.get(name)
    return value if isinstance(value, list) else []


def _required(facts: dict[str, JSON], name: str) -> str:
    text = _text(facts.get(name))
    if not text:
        raise ValueError(f"it has no {name}")
    return text


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: JSON) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
