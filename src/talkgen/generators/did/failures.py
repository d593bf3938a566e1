"""What an answer means that is no success: the one table of statuses and kinds."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import attrs

from talkgen.errors import (
    DIdError,
    InsufficientCredits,
    InvalidMedia,
    Moderated,
    PermissionDenied,
    RateLimited,
    ServiceUnavailable,
    TalkFailed,
    TalkRejected,
    Unauthorized,
)
from talkgen.generators.did.credentials import hidden
from talkgen.generators.did.timing import retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

    from talkgen._types import JSON
    from talkgen.generators.did.results import Talk

__all__ = ["failure", "talk_failure"]

# The first row that fits. A status ends with * where any of its class is meant, a kind is None
# where the answer has none: then it is the gateway's, and not the application's.
ANY = "*"
TABLE: tuple[tuple[str, str | None, type[DIdError]], ...] = (
    ("400", "ValidationError", DIdError),
    ("400", "ConfigError", DIdError),
    ("400", ANY, InvalidMedia),
    ("401", ANY, Unauthorized),
    ("402", ANY, InsufficientCredits),
    ("403", None, Unauthorized),
    ("403", ANY, PermissionDenied),
    ("413", ANY, InvalidMedia),
    ("415", ANY, InvalidMedia),
    ("429", ANY, RateLimited),
    ("451", ANY, Moderated),
    ("408", ANY, ServiceUnavailable),
    ("5*", ANY, ServiceUnavailable),
    ("*", ANY, DIdError),
)

PLAN_HINTS = {
    "stitch": "The plan has no stitching: DIdGenerator(stitch=False) gives a square of the face.",
}
KIND_HINTS = {
    "InvalidFileSizeError": "It has too many bytes or too many pixels: make it smaller.",
    "InvalidImageResolutionError": "Use a picture of 160 pixels a side or more.",
    "InvalidAudioDurationError": "Shorten the recording.",
    "CelebrityRecognizedError": "D-ID takes it for a celebrity; its support reviews mistakes.",
}
FEATURE = re.compile(r"no permission for\s+['\"]?([\w:.-]+)")
WORD = re.compile(r"[^\s'\"]+")
TAG = re.compile(r"<[^<>]*>")  # without the second "<", each of many would seek its end
XML = re.compile(r"<(Code|Message)>([^<]*)</")
LONGEST = 300  # characters that are shown
LONGEST_BODY = 1 << 14  # bytes or characters; what is longer explains nothing


@attrs.frozen
class Explanation:
    """What the body of a failure says.

    Attributes:
        kind: The service's word; None where the body is somebody else's.
        text: For people.
    """

    kind: str | None
    text: str


def failure(
    status: int, headers: Mapping[str, str], body: bytes, *, doing: str, key: str = ""
) -> DIdError:
    """The error for an answer.

    Args:
        status: 300 or above.
        headers: Of the answer, in any case.
        body: In any form: the service's JSON, the gateway's, an object store's XML, or HTML.
        doing: What was asked for, like `upload the picture`.
        key: The value of `Authorization`, which is hidden where the body repeats it.
    """
    said = explained_by(body, key)
    error = class_of(status, said.kind)(
        f"D-ID refused to {doing}: {said.text or 'it does not say why'} (HTTP {status}).",
        hint=KIND_HINTS.get(said.kind or ""),
        retry_after=retry_after(headers.get("retry-after")),
        status=status,
        kind=said.kind,
    )
    if isinstance(error, PermissionDenied) and (match := FEATURE.search(said.text)):
        error.feature = match[1]
        error.hint = PLAN_HINTS.get(match[1], error.hint)
    return error


def class_of(status: int, kind: str | None) -> type[DIdError]:
    """The class of a status and a kind."""
    return next(
        cls
        for pattern, wanted, cls in TABLE
        if re.fullmatch(pattern.replace("*", r"\d*"), str(status)) and wanted in {ANY, kind}
    )


def explained_by(body: bytes, key: str = "") -> Explanation:
    """Read a body that may be anything; links in it lose their signatures."""
    explains = len(body) <= LONGEST_BODY
    said = _read(body.decode("utf-8", errors="replace").strip() if explains else "")
    return attrs.evolve(said, text=_short(hidden(said.text, key)))


def _read(text: str) -> Explanation:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Explanation(None, _from_xml(text))
    if not isinstance(value, dict):
        return Explanation(None, text)
    kind = value.get("kind")
    said = value.get("description") or value.get("message") or value.get("Message") or ""
    details = _details(value.get("details"))
    text = f"{said}{details and f' - {details}'}"
    return Explanation(kind if isinstance(kind, str) else None, text)


def _from_xml(text: str) -> str:
    found = dict(XML.findall(text))
    if not found:
        return TAG.sub(" ", text)
    return ": ".join(found[name] for name in ("Code", "Message") if name in found)


def _details(details: JSON) -> str:
    if not isinstance(details, dict):
        return str(details or "")
    messages = (
        f"{field}: {value.get('message', value) if isinstance(value, dict) else value}"
        for field, value in details.items()
    )
    return "; ".join(messages)


def _short(text: str) -> str:
    # What steers a terminal is left out, too: nobody knows who reads the message where.
    seen = "".join(one if one.isprintable() else " " for one in text[:LONGEST_BODY])
    line = " ".join(_without_queries(seen).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _without_queries(text: str) -> str:
    """A text whose links have lost what signs them."""
    return WORD.sub(lambda word: _without_query(word[0]), text)


def _without_query(word: str) -> str:
    before, separator, after = word.partition("://")
    return before + separator + (after.partition("?")[0] if separator else "")


def talk_failure(talk: Talk) -> TalkFailed | TalkRejected:
    """The error for a talk that ended without a video."""
    cls, what = (
        (TalkRejected, "rejected") if talk.status == "rejected" else (TalkFailed, "could not make")
    )
    why = _short(": ".join(filter(None, (talk.error_kind, talk.error))))
    return cls(
        f"D-ID {what} talk {talk.id}: {why or 'it does not say why'}.",
        kind=talk.error_kind,
        talk_id=talk.id,
    )
