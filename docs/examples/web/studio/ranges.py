"""`Range` as RFC 9110 has it, of all files: Starlette refuses too many, and in plain text."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import attrs
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from studio.problems import response_to

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Ranges"]

MALFORMED, BEYOND = HTTPStatus.BAD_REQUEST, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


@attrs.frozen
class Ranges:
    """Has a malformed range ignored (14.2), and one beyond the file told as a problem (15.5.17)."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or "range" not in Headers(scope=scope):
            await self.app(scope, receive, send)
            return
        refusal: Message | None = None

        async def judged(message: Message) -> None:
            nonlocal refusal
            if _refuses_a_range(message):
                refusal = message
            if refusal is None:
                await send(message)

        await self.app(dict(scope), receive, judged)  # which writes into it
        if refusal is None:
            return
        if refusal["status"] == MALFORMED:
            await self.app(_without_range(scope), receive, send)
        else:
            await response_to(_beyond(refusal))(scope, receive, send)


def _refuses_a_range(message: Message) -> bool:
    """Starlette's own words: those of this application are problem details."""
    if message["type"] != "http.response.start" or message["status"] not in (MALFORMED, BEYOND):
        return False
    return Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")


def _without_range(scope: Scope) -> Scope:
    return {**scope, "headers": [one for one in scope["headers"] if one[0] != b"range"]}


def _beyond(refusal: Message) -> HTTPException:
    extent = Headers(raw=refusal["headers"])["content-range"]  # like `bytes */1234`
    detail = f"The file ends before this range begins: it has {extent.rpartition('/')[2]} bytes."
    return HTTPException(BEYOND, detail, {"Content-Range": extent})
