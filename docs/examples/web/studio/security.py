"""What keeps browsers careful: headers, and no orders from other sites' pages."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs
from starlette.datastructures import Headers, MutableHeaders

from studio.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SecurityHeaders", "refuse_other_sites"]

HEADERS = {
    # Everything comes from here; `blob:` is what the page itself was given or has recorded.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",  # unless the answer itself says otherwise
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # an address holds a task's id
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(self)",
}


@attrs.frozen
class SecurityHeaders:
    """Adds them to every answer."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)


def refuse_other_sites(headers: Headers) -> None:
    """Let no other site's page give orders through its visitor's browser: one may cost money.

    There is no cookie to protect, but a browser reaches servers that the page's author cannot.
    What is no browser says neither where it comes from, and is not concerned.

    Raises:
        Problem: It comes from another origin.
    """
    origin = headers.get("origin")
    own = origin is None or urlsplit(origin).netloc == headers.get("host")
    if headers.get("sec-fetch-site", "same-origin" if own else "") not in ("same-origin", "none"):
        raise Problem(HTTPStatus.FORBIDDEN, "Another site's page may not begin a task here.")
