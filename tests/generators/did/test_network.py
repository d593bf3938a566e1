"""What lies between the client and the service: TLS, proxies, HTTP/2."""

import json
import logging
import socket
import socketserver
import ssl
import sys
import threading
from contextlib import contextmanager, suppress

import httpx
import pytest
import trustme

from talkgen.errors import MissingDependency, ServiceUnavailable
from talkgen.generators.did import DIdClient
from talkgen.testing import FakeDId

from .conftest import CLOCK, SPEED, Bench


class Threads(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def serving(handler, **facts):
    """A server of sockets on loopback."""
    with Threads(("127.0.0.1", 0), type("Handler", (handler,), facts)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def secure(certificate):
    with FakeDId(speed=SPEED, tls=certificate) as service:
        yield service


async def test_the_whole_way_by_tls(anyio_backend, secure, trusting):
    client = DIdClient(secure.api_key, base_url=secure.base_url, clock=CLOCK, verify=trusting)
    bench = Bench(secure)
    async with client:
        assert (await bench.run(bench.generator(client=client))).success
    assert secure.base_url.startswith("https:")
    assert secure.ledger.downloads == 1


async def test_an_authority_that_nobody_trusts_gets_no_key(anyio_backend, secure):
    async with DIdClient(secure.api_key, base_url=secure.base_url, clock=CLOCK) as client:
        with pytest.raises(ServiceUnavailable, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await client.credits()
    assert not caught.value.sent
    assert not secure.ledger.requests


# --- proxies -----------------------------------------------------------------------------------


class Tunnels(socketserver.StreamRequestHandler):
    """A proxy that opens tunnels, and remembers to where."""

    def handle(self):
        method, target, _ = self.rfile.readline().decode().split(" ", 2)
        while self.rfile.readline().strip():
            pass
        self.asked.append((method, target))
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port))) as other:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=pipe, args=(other, self.connection))
            back.start()
            pipe(self.connection, other)
            back.join()


def pipe(source, target):
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


async def test_the_whole_way_through_a_proxy(anyio_backend, secure, trusting):
    """The tunnel to the host of the videos is asked for by its name, not by the link."""
    asked = []
    with serving(Tunnels, asked=asked) as port:
        async with (
            httpx.AsyncClient(proxy=f"http://127.0.0.1:{port}", verify=trusting) as http,
            DIdClient(secure.api_key, base_url=secure.base_url, clock=CLOCK, http=http) as client,
        ):
            bench = Bench(secure)
            assert (await bench.run(bench.generator(client=client))).success
    hosts = [server.base_url.removeprefix("https://") for server in secure._servers]
    assert {method for method, _ in asked} == {"CONNECT"}
    assert {target for _, target in asked} == set(hosts)
    assert secure.ledger.downloads == 1


# --- HTTP/2 ------------------------------------------------------------------------------------


class Frames(socketserver.BaseRequestHandler):
    """Answers each stream of HTTP/2 with the credits."""

    def handle(self):
        from h2.config import H2Configuration
        from h2.connection import H2Connection
        from h2.events import RequestReceived

        connection = self.certificate.wrap_socket(self.request, server_side=True)
        frames = H2Connection(config=H2Configuration(client_side=False, header_encoding="utf-8"))
        frames.initiate_connection()
        connection.sendall(frames.data_to_send())
        with suppress(OSError):
            while data := connection.recv(65536):
                for event in frames.receive_data(data):
                    if isinstance(event, RequestReceived):
                        self.asked.append(dict(event.headers))
                        frames.send_headers(event.stream_id, [(":status", "200")])
                        body = json.dumps({"remaining": 7, "total": 9}).encode()
                        frames.send_data(event.stream_id, body, end_stream=True)
                connection.sendall(frames.data_to_send())
        connection.close()


@pytest.fixture
def frames(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    asked = []
    with serving(Frames, certificate=context, asked=asked) as port:
        yield f"https://127.0.0.1:{port}", asked


@pytest.mark.parametrize("whose", ["its own", "the caller's"])
async def test_http2_is_spoken_and_its_log_shows_no_key(
    anyio_backend, frames, trusting, caplog, whose
):
    """hpack writes down every header at the level of debugging."""
    url, asked = frames
    caplog.set_level(logging.DEBUG)
    secret = "the-secret-half"
    async with httpx.AsyncClient(http2=True, verify=trusting) as http:
        given = {"http": http} if whose == "the caller's" else {"http2": True, "verify": trusting}
        async with DIdClient(f"user:{secret}", base_url=url, **given) as client:
            for _ in range(2):
                assert (await client.credits()).remaining == 7
    assert [headers["authorization"] for headers in asked] == [f"Basic user:{secret}"] * 2
    assert "HTTP/2" in caplog.text
    assert not [record for record in caplog.records if secret in record.getMessage()]


async def test_http2_without_its_package_names_the_command(
    anyio_backend, service, client_of, monkeypatch
):
    monkeypatch.setitem(sys.modules, "h2", None)
    async with client_of(service, http2=True) as client:
        with pytest.raises(MissingDependency) as caught:
            await client.credits()
    assert caught.value.hint == 'Install it: pip install "httpx[http2]"'
