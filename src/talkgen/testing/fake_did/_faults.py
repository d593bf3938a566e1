"""What goes wrong, and when: by request and by count."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from talkgen._types import JSON

__all__ = ["Answer", "Fault", "FaultScript"]


@attrs.frozen
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def of_json(cls, status: int, value: JSON) -> Answer:
        """A JSON body."""
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    @classmethod
    def error(cls, status: int, kind: str, description: str, details: JSON = None) -> Answer:
        """The service's own form of an error."""
        body = {"kind": kind, "description": description}
        return cls.of_json(status, body if details is None else {**body, "details": details})


def _bytes(body: bytes | str | JSON) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


@attrs.frozen(kw_only=True)
class Fault:
    """Something that goes wrong with one request, or with one webhook.

    A webhook with `drop` is lost, with `delay` late; with a `body` it says something else, and with
    `truncate` a part of it.

    Attributes:
        status: Answer this instead; None leaves the answer as it is.
        headers: Of that answer.
        body: Of that answer: bytes, text, or what becomes JSON.
        work: The request is carried out all the same, before it goes wrong. That is so whenever
            neither `status` nor `drop` says otherwise.
        delay: Seconds of the service's time before the answer.
        drop: Close the connection instead of answering.
        truncate: Close it after so many bytes of the answer's body.
    """

    status: int | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = attrs.field(default=b"", converter=_bytes)
    work: bool = False
    delay: float = 0.0
    drop: bool = False
    truncate: int | None = None

    @property
    def works(self) -> bool:
        """The request is carried out."""
        return self.work or (self.status is None and not self.drop)

    def answer(self, usual: Answer | None) -> Answer | None:
        """What is sent instead of the usual answer; None closes the connection."""
        if self.drop:
            return None
        return usual if self.status is None else Answer(self.status, self.body, self.headers)


class FaultScript:
    """Faults in the order in which they are to happen, for each kind of request."""

    def __init__(self) -> None:
        """Nothing goes wrong."""
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Fault | None]] = {}

    def add(self, request: str, fault: Fault, *, times: int, after: int) -> None:
        """Have the next requests of a kind go wrong, once `after` of them went well."""
        with self._lock:
            self._waiting.setdefault(request, []).extend([None] * after + [fault] * times)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._waiting.clear()

    def take(self, request: str) -> Fault | None:
        """What happens to this request."""
        with self._lock:
            waiting = self._waiting.get(request)
            return waiting.pop(0) if waiting else None
