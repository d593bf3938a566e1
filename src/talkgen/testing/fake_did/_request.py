"""What is asked of the service, and the answer that ends it early."""

from __future__ import annotations

import json
from email import message_from_bytes
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import attrs

from talkgen.testing.fake_did._faults import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from talkgen._types import JSON

__all__ = ["Part", "Refused", "Request", "invalid"]


@attrs.frozen
class Request:
    """An HTTP request."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """Without the query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The first value of each parameter."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def name(self) -> str:
        """What faults and the ledger call it: `GET /talks/{id}`."""
        parts = self.path.strip("/").split("/")
        known = {"face-detection", "voices"}
        path = [part if not at or part in known else "{id}" for at, part in enumerate(parts)]
        return f"{self.method} /{'/'.join(path)}"

    def json(self) -> JSON:
        """The body, if the header says that it is JSON.

        Raises:
            Refused: It is none, or no object.
        """
        kind = self.headers.get("Content-Type", "").partition(";")[0]
        if kind != "application/json":
            return {}
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Refused(400, "BadRequestError", "the body is no JSON object")
        return value

    @property
    def last(self) -> str:
        """The last part of the path: an id."""
        return self.path.rpartition("/")[2]

    def form(self) -> dict[str, Part]:
        """The fields of a multipart form."""
        head = f"Content-Type: {self.headers.get('Content-Type', '')}\r\n\r\n".encode()
        parts: Any = message_from_bytes(head + self.body).get_payload()
        if isinstance(parts, str):
            return {}
        return {
            part.get_param("name", header="content-disposition"): Part(
                part.get_payload(decode=True), part.get_content_type(), part.get_filename()
            )
            for part in parts
        }


@attrs.frozen
class Part:
    """A field of a form."""

    data: bytes
    type: str
    file_name: str | None


class Refused(Exception):
    """Ends a request with an answer."""

    def __init__(self, status: int, kind: str, description: str, details: JSON = None) -> None:
        super().__init__(description)
        self.answer = Answer.error(status, kind, description, details)


def invalid(field: str, message: str) -> Refused:
    """A field of a JSON body is not as documented."""
    return Refused(400, "ValidationError", "validation failed", {field: {"message": message}})
