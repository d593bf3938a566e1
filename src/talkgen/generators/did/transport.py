"""HTTP, and what it means when it does not work: the only module that knows httpx."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
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
    from collections.abc import Iterator, Mapping

    from talkgen._types import JSON, Secret

__all__ = ["Transport"]

TIMEOUTS = httpx.Timeout(connect=10.0, read=60.0, write=60.0, pool=None)
CHUNK = 1 << 16
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
        with telemetry.request(method, self._base_url, route) as span:
            with _explained(doing), _read_whole(doing):
                response = await self._http.request(
                    method,
                    self._base_url + route.replace("{id}", quote(item, safe="")),
                    json=body,
                    params=params,
                    headers={"Authorization": self._header},
                    auth=None,
                    follow_redirects=False,
                    **form,
                )
            span.set("http.response.status_code", response.status_code)
            if not response.is_success:
                raise failure(
                    response.status_code,
                    response.headers,
                    response.content,
                    doing=doing,
                    key=self._header,
                )
        return _read(response.content, doing) if response.content else None

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
        with telemetry.request("GET", url) as span, _explained(doing):
            response = await self._http.send(
                request, stream=True, auth=None, follow_redirects=False
            )
            span.set("http.response.status_code", response.status_code)
            try:
                if not response.is_success:
                    _refuse(response.status_code, await response.aread(), doing)
                async with await anyio.open_file(path, "wb") as file:
                    async for chunk in response.aiter_bytes(CHUNK):
                        await file.write(chunk)
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()

    def _link(self, url: str) -> httpx.Request:
        """A request whose target is the link, byte for byte."""
        parts = urlsplit(url)
        allowed = {"https", urlsplit(self._base_url).scheme}
        if parts.scheme not in allowed or not parts.netloc or not url.isascii():
            raise DIdError("D-ID gave a link to the video that is no https link.")
        origin = f"{parts.scheme}://{parts.netloc}"
        request = self._http.build_request("GET", origin)
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


def _refuse(status: int, body: bytes, doing: str) -> None:
    error = failure(status, {}, body, doing=doing)
    if status in GONE:
        raise ResultExpired(error.message, status=status)
    raise error


def _read(content: bytes, doing: str) -> JSON:
    try:
        return json.loads(content)
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
    """Map what sockets raise and httpx lets through, like errors of TLS amid an answer."""
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
