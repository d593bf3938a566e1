"""Paid work without paying: a counting server on loopback, and a generator that uses it."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar, Self
from urllib.parse import parse_qs, urlsplit

import anyio
import attrs
import httpx

from talkgen._clock import utc_now
from talkgen.errors import TalkgenError
from talkgen.media import Video

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from talkgen._types import JSON
    from talkgen.media import Image, Speech, Text
    from talkgen.protocols import Operation, StageContext

__all__ = ["FakePaidGenerator", "PaidServer", "ServiceDown"]

NAME = "paid_job"


class ServiceDown(TalkgenError):
    """The paid service does not answer, or answers with an error."""

    retryable = True
    outage = True


@attrs.define
class _Job:
    token: str
    polls: int = 0


class PaidServer:
    """A service that is paid by the job: a real HTTP server on loopback, in a thread.

    `POST /jobs` with a token is paid for each time, whatever the token. `GET /jobs?token=` lists,
    `GET /jobs/{id}` tells the status, `GET /jobs/{id}/video` gives the video.

    Attributes:
        ledger: The tokens of all jobs that were paid, in order.
        asked: Set once somebody has asked for a job's status.
        polls: How often a job is asked for before it is done.
        down: It answers everything with 503, and charges nothing.
    """

    def __init__(self, *, polls: int = 1, size: int = 50_000) -> None:
        """Bind a port; `with` serves.

        Args:
            polls: How often a job is asked for before it is done.
            size: Bytes of a video.
        """
        self.ledger: list[str] = []
        self.asked = threading.Event()
        self.polls = polls
        self.down = False
        self._size = size
        self._lock = threading.Lock()
        self._jobs: list[_Job] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.service = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def video(self, token: str) -> bytes:
        """The video of a token's job: always the same."""
        return (token.encode() * (self._size // len(token) + 1))[: self._size]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        """Status and body; called in the server's threads."""
        path, query = urlsplit(target).path.strip("/").split("/"), parse_qs(urlsplit(target).query)
        with self._lock:
            if self.down:
                return 503, b"{}"
            match (method, *path):
                case ("POST", "jobs"):
                    return 201, _json(self._pay(json.loads(body)["token"]))
                case ("GET", "jobs"):
                    token = query["token"][0]
                    found = [str(n) for n, job in enumerate(self._jobs) if job.token == token]
                    return 200, _json({"ids": found})
                case ("GET", "jobs", number):
                    return 200, _json({"status": self._status(self._jobs[int(number)])})
                case ("GET", "jobs", number, "video"):
                    return 200, self.video(self._jobs[int(number)].token)
        return 404, b"{}"

    def _pay(self, token: str) -> JSON:
        self.ledger.append(token)
        self._jobs.append(_Job(token))
        return {"id": str(len(self._jobs) - 1)}

    def _status(self, job: _Job) -> str:
        self.asked.set()
        job.polls += 1
        return "done" if job.polls > self.polls else "started"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    service: PaidServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's
        """Say nothing."""

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content = self.server.service.answer(method, self.path, body)
        with suppress(ConnectionError):  # whoever asked may have been killed
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)


def _json(value: JSON) -> bytes:
    return json.dumps(value).encode()


def _plain_http() -> httpx.AsyncHTTPTransport:
    # No TLS on loopback: loading its certificates would take longer than all requests.
    return httpx.AsyncHTTPTransport(verify=False)


@attrs.frozen
class FakePaidGenerator:
    """Has a `PaidServer` make the video, and never pays twice for one.

    The order that every paid generator keeps: intend, request with the token, record the id,
    poll, download, settle. Where an attempt died between the intention and the id, the server's
    own list tells whether the request had arrived.

    Attributes:
        url: The server's.
        poll: Seconds between two questions.
        grace: How long after the intention a request may still be on its way.
        transport: Makes the HTTP transport, for tests.
    """

    accepts_text: ClassVar[bool] = True
    key: ClassVar[str] = "fake-paid@1"

    url: str
    poll: float = 0.01
    grace: timedelta = timedelta(seconds=0.2)
    transport: Callable[[], httpx.AsyncBaseTransport] = _plain_http

    async def generate(
        self,
        portrait: Image,
        speech: Speech | Text,
        context: StageContext,
    ) -> Video:
        """Make a video of anything; what it shows is not looked at.

        Raises:
            ServiceDown: The server does not answer, or answers with an error.
        """
        before = await context.operations.get(NAME)
        operation = await context.operations.intend(
            NAME, portrait=portrait.digest, speech=speech.digest
        )
        async with httpx.AsyncClient(base_url=self.url, transport=self.transport()) as client:
            job = operation.facts.get("job")
            if job is None and before is not None:
                job = await self._found(client, operation, context)
            if job is None:
                job = await self._requested(client, operation, context)
            context.report(0.3, "The job is under way", stage="paid_running")
            while not await _done(client, job):  # noqa: ASYNC110 - only asking tells
                await anyio.sleep(self.poll)
            data = (await _sent(client, "GET", f"/jobs/{job}/video")).content
        file = await context.files.put("videos", "final.mp4", data)
        await context.operations.settle(NAME, "collected")
        context.report(1.0, "The video is there", stage="paid_complete")
        return Video(file=file, duration=1.0, fps=25.0, size=(portrait.width, portrait.height))

    async def _found(
        self, client: httpx.AsyncClient, operation: Operation, context: StageContext
    ) -> str | None:
        """The id of the job, if the request of an attempt before has arrived."""
        late = operation.intended_at + self.grace - utc_now()
        await anyio.sleep(max(0.0, late.total_seconds()))
        found: list[str] = (await _asked(client, f"/jobs?token={operation.token}"))["ids"]
        for job in found:
            await context.operations.record(NAME, job=job)
            return job
        return None

    async def _requested(
        self, client: httpx.AsyncClient, operation: Operation, context: StageContext
    ) -> str:
        """Request the job; its id."""
        # Once it is sent, its id must be known: nobody may cancel in between.
        with anyio.CancelScope(shield=True):
            answer = await _sent(client, "POST", "/jobs", json={"token": operation.token})
            job: str = answer.json()["id"]
            await context.operations.record(NAME, job=job)
        return job


async def _done(client: httpx.AsyncClient, job: str) -> bool:
    return bool((await _asked(client, f"/jobs/{job}"))["status"] == "done")


async def _asked(client: httpx.AsyncClient, path: str) -> JSON:
    return (await _sent(client, "GET", path)).json()


async def _sent(
    client: httpx.AsyncClient, method: str, path: str, **options: JSON
) -> httpx.Response:
    try:
        return (await client.request(method, path, **options)).raise_for_status()
    except httpx.HTTPError as error:
        reason = type(error).__name__
        if isinstance(error, httpx.HTTPStatusError):
            reason = f"status {error.response.status_code}"
        raise ServiceDown(f"The paid service failed at {method} {path}: {reason}.") from error
