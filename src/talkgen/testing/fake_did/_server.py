"""The stand-in's sockets: HTTP/1.1 on loopback, a thread for each connection."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from talkgen.testing.fake_did._request import Request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from talkgen.testing.fake_did._faults import Answer, Fault, FaultScript
    from talkgen.testing.fake_did._state import State

__all__ = ["Server"]

USUAL_HEADERS = {"Content-Type": "application/json"}


class Server:
    """Answers on a free port of loopback, in threads of its own."""

    def __init__(
        self,
        answer: Callable[[Request], Answer],
        *,
        state: State,
        faults: FaultScript,
        name: Callable[[Request], str],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Not started yet.

        Args:
            answer: Carries a request out.
            state: Counts requests, and knows the time.
            faults: What goes wrong.
            name: What faults and the ledger call a request.
            tls: Answer by https, with this certificate.
        """
        self._scheme = "https" if tls else "http"
        self.answer, self.state, self.faults, self.name = answer, state, faults, name
        self._http = _Http(self)
        if tls is not None:
            # The handshake waits for the connection's own thread.
            self._http.socket = tls.wrap_socket(
                self._http.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.02,), name="fake D-ID", daemon=True
        )

    @property
    def base_url(self) -> str:
        """Where it answers."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Close all connections."""
        self._http.stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.close_connections()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, server: Server) -> None:
        self.owner = server
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.owner.state.lock:
            self._open.add(request)
            self.owner.state.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self.owner.state.lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Wake every thread that reads."""
        with self.owner.state.lock:
            connections = list(self._open)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no news; anything else is a bug to be seen."""
        import ssl
        import sys

        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the head and the body are two writes
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - inherited
        """Say nothing."""

    def _serve(self) -> None:
        owner = self.server.owner
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        request = Request(self.command, self.path, dict(self.headers.items()), body)
        name = owner.name(request)
        with owner.state.lock:
            owner.state.requests[name] += 1
        fault = owner.faults.take(name)
        if fault is None:
            self._send(owner.answer(request))
        else:
            self._fail(fault, request)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - names that the library asks for

    def _fail(self, fault: Fault, request: Request) -> None:
        owner = self.server.owner
        usual = owner.answer(request) if fault.works else None
        if fault.delay:
            self.server.stopping.wait(fault.delay / owner.state.clock.speed)
        answer = fault.answer(usual)
        if answer is None:
            self.close_connection = True
        else:
            self._send(answer, fault.truncate)

    def _send(self, answer: Answer, most: int | None = None) -> None:
        self.send_response(answer.status)
        for name, value in {**USUAL_HEADERS, **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body if most is None else answer.body[:most])
        if most is not None:
            self.close_connection = True
