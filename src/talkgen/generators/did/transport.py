"""HTTP, and what it means when it does not work: the only module that knows httpx."""

from __future__ import annotations

import json
import logging
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import anyio

from talkgen import telemetry
from talkgen.errors import DIdError, ResultExpired, ServiceUnavailable
from talkgen.generators.did.failures import failure
from talkgen.requirements import explained

with explained():
    import httpx

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import AsyncIterator, Iterator, Mapping

    from talkgen._types import JSON, Secret

__all__ = ["Transport"]

TIMEOUTS = httpx.Timeout(connect=10.0, read=60.0, write=60.0, pool=None)
ANSWER_SECONDS = 300.0  # a recording's way up may take long; what comes drop by drop ends, too
VIDEO_SECONDS = 1800.0  # as that; what came by then is given up, and fetched anew
CHUNK = 1 << 16
LARGEST_ANSWER = 8 << 20  # bytes; a list of a hundred talks takes a twentieth
LARGEST_VIDEO = 2 << 30  # bytes; six minutes of the largest size take a tenth
GONE = frozenset({403, 404, 410})

# Nothing of the request left this machine.
NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class Transport:
    """Sends one request once."""

    def __init__(
        self,
        header: Secret,
        *,
        base_url: str,
        http: httpx.AsyncClient | None,
        connections: int,
        verify: ssl.SSLContext | None,
        http2: bool,
    ) -> None:
        """Open no connection yet.

        Args:
            header: The value of `Authorization`.
            base_url: Of the API.
            http: The caller's client; it is not closed here.
            connections: The most at a time, of a client made here.
            verify: Which authorities a client made here trusts; None for the usual ones.
            http2: Whether a client made here may speak HTTP/2.

        Raises:
            talkgen.errors.MissingDependency: HTTP/2 needs a package that is absent.
        """
        self._header, self._base_url = header, base_url.rstrip("/")
        self._owned = http is None
        self._http = http or _client(connections, verify, http2=http2)
        # At the level of debugging, HTTP/2 writes down the headers, and the key with them.
        logging.getLogger("hpack.hpack").addFilter(_above_debug)

    async def aclose(self) -> None:
        """Close what was made here."""
        if self._owned:
            await self._http.aclose()

    async def send(
        self,
        method: str,
        route: str,
        *,
        doing: str,
        item: str = "",
        body: JSON = None,
        params: Mapping[str, str] | None = None,
        **form: Any,
    ) -> JSON:
        """Send a request of the API, and read its answer.

        Args:
            method: Like `GET`.
            route: Like `/talks/{id}`.
            doing: What it is for, like `upload the picture`.
            item: Stands for the route's `{id}`.
            body: Sent as JSON.
            params: Of the query.
            **form: `data` and `files` of a form.

        Returns:
            The JSON of the answer; None where it is empty.

        Raises:
            talkgen.errors.DIdError: The class for what went wrong. `ServiceUnavailable.sent`
                tells whether the request may have arrived.
        """
        with (
            telemetry.request(method, self._base_url, route) as span,
            _explained(doing),
            _read_whole(doing),
            anyio.fail_after(ANSWER_SECONDS),
        ):
            request = self._http.build_request(
                method,
                self._base_url + route.replace("{id}", quote(item, safe="")),
                json=body,
                params=params,
                headers={"Authorization": self._header},
                **form,
            )
            async with self._sent(request, span) as response:
                if not response.is_success:
                    raise await self._refusal(response, doing)
                return _read(await _content(response, doing), doing)

    async def _refusal(self, response: httpx.Response, doing: str) -> DIdError:
        """Of a function of its own, so that no frame of the traceback has the body."""
        body = await _content(response, doing)
        return failure(response.status_code, response.headers, body, doing=doing, key=self._header)

    async def download(self, url: str, path: str | os.PathLike[str]) -> None:
        """Fetch a result into a file, without the key and without touching the link.

        Args:
            url: As the API gave it.
            path: The file to write.

        Raises:
            talkgen.errors.ResultExpired: The link is not taken any more.
            talkgen.errors.DIdError: Anything else that went wrong.
        """
        doing = "send the video"
        request = self._link(url)
        with anyio.move_on_after(VIDEO_SECONDS) as limit:
            with telemetry.request("GET", url) as span, _explained(doing):
                await self._fetched(request, path, span, doing)
        if limit.cancelled_caught:
            raise ServiceUnavailable(f"D-ID did not {doing} within {VIDEO_SECONDS:g} s.")

    async def _fetched(
        self, request: httpx.Request, path: str | os.PathLike[str], span: telemetry.Span, doing: str
    ) -> None:
        async with self._sent(request, span) as response:
            if not response.is_success:
                refusal = await self._refusal(response, doing)
                if response.status_code in GONE:
                    raise ResultExpired(refusal.message, status=refusal.status)
                raise refusal
            await _written(response, path, doing)

    @asynccontextmanager
    async def _sent(
        self, request: httpx.Request, span: telemetry.Span
    ) -> AsyncIterator[httpx.Response]:
        """The answer to a request, its body unread; nobody is followed to another host."""
        response = await self._http.send(request, stream=True, auth=None, follow_redirects=False)
        try:
            span.set("http.response.status_code", response.status_code)
            yield response
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    def _link(self, url: str) -> httpx.Request:
        """A request whose target is the link, byte for byte."""
        allowed = {"https", urlsplit(self._base_url).scheme}
        try:
            parts = urlsplit(url)
            origin = f"{parts.scheme}://{parts.netloc}"
            request = self._http.build_request("GET", origin)
            named = parts.hostname and parts.port != 0  # a port that is none raises
            usable = named and parts.scheme in allowed and url.isascii()
        except (ValueError, httpx.InvalidURL):
            usable = False
        if not usable:
            raise DIdError("D-ID gave a link to the video that is no https link.")
        request.headers.pop("Authorization", None)
        request.url = _Link(origin, url[len(origin) :].partition("#")[0] or "/")
        return request


class _Link(httpx.URL):
    """Of an origin that everybody may see, with a target that nobody touches.

    httpx would encode the target anew, which breaks signatures, and write it to its log. Its own
    `target` extension reaches the CONNECT of a proxy, too, which then asks for the wrong host.
    """

    def __init__(self, origin: str, target: str) -> None:
        super().__init__(origin)
        self._target = target.encode()

    @property
    def raw_path(self) -> bytes:
        return self._target


def _client(connections: int, verify: ssl.SSLContext | None, *, http2: bool) -> httpx.AsyncClient:
    if http2:
        with explained():
            import_module("h2")
    return httpx.AsyncClient(
        timeout=TIMEOUTS,
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        verify=verify or True,
        http2=http2,
    )


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


async def _content(response: httpx.Response, doing: str) -> bytes:
    content = bytearray()
    async for piece in response.aiter_bytes(CHUNK):
        content += piece
        if len(content) > LARGEST_ANSWER:
            raise ServiceUnavailable(
                f"D-ID's answer to the request to {doing} is larger than {LARGEST_ANSWER} bytes."
            )
    return bytes(content)


async def _written(response: httpx.Response, path: str | os.PathLike[str], doing: str) -> None:
    """Write a body to a file; what goes wrong with the disk is not the service's."""
    pieces, size = response.aiter_bytes(CHUNK), 0
    async with await anyio.open_file(path, "wb") as file:
        while True:
            with _read_whole(doing):
                piece = await anext(pieces, b"")
            if not piece:
                return
            size += len(piece)
            if size > LARGEST_VIDEO:
                raise DIdError(
                    f"D-ID's video is larger than {LARGEST_VIDEO} bytes.",
                    hint="Look at the talk in D-ID's studio.",
                )
            await file.write(piece)


def _read(content: bytes, doing: str) -> JSON:
    try:
        return json.loads(content) if content else None
    except (ValueError, RecursionError) as error:
        raise ServiceUnavailable(
            f"D-ID's answer to the request to {doing} cannot be read: it is no JSON."
        ) from error


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Map what httpx raises."""
    try:
        yield
    except httpx.HTTPError as error:
        raise _unavailable(doing, error, sent=not isinstance(error, NEVER_SENT)) from error


@contextmanager
def _read_whole(doing: str) -> Iterator[None]:
    """Map what sockets raise and httpx lets through, like errors of TLS amid an answer.

    The end of the time is an `OSError`, too.
    """
    try:
        yield
    except OSError as error:
        raise _unavailable(doing, error, sent=True) from error


def _unavailable(doing: str, error: Exception, *, sent: bool) -> ServiceUnavailable:
    what = f"{type(error).__name__}: {_reason(error)}".rstrip(": ")
    unavailable = ServiceUnavailable(f"D-ID could not be asked to {doing}: {what}.")
    unavailable.sent = sent
    return unavailable


def _reason(error: BaseException | None) -> str:
    """What it says, or what it came from: on trio, httpx's own errors say nothing."""
    while error is not None and not str(error):
        error = error.__cause__ or error.__context__
    return str(error or "")
