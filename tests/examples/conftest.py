"""The web example on loopback, and a client for it."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import attrs
import httpx
import pytest
import uvicorn
from anyio import to_thread
from httpx_sse import EventSource

from studio.app import create_app
from studio.config import Config
from talkgen import Settings, Speech
from talkgen.generators.local import LocalGenerator


@attrs.frozen
class Gated:
    """A generator that waits to be let through, so that a test decides what happens meanwhile."""

    gate: threading.Event = attrs.field(factory=threading.Event, eq=False)
    accepts_text = False
    key = "gated"

    async def generate(self, portrait, speech, context):
        context.report(0.0, "Before the gate", stage="gated_running")
        await to_thread.run_sync(self.gate.wait)
        return await LocalGenerator(size=96).generate(portrait, speech, context)


@attrs.frozen
class Site:
    """A server, and how to talk to it."""

    http: httpx.Client
    files: dict

    @property
    def socket(self):
        return str(self.http.base_url).replace("http", "ws", 1) + "/api/pipeline/progress"

    def post(self, *, later=False, files=None, **fields):
        return self.http.post(
            "/api/pipeline/generate",
            files=self.files if files is None else files,
            data=fields,
            headers={"Prefer": "respond-async"} if later else {},
        )

    def begin(self, **fields):
        answer = self.post(later=True, **fields)
        assert answer.status_code == 202, answer.text
        return answer.json()["task_id"]

    def status(self, task_id):
        return self.http.get(f"/api/pipeline/status/{task_id}")

    @contextmanager
    def events(self, task_id, after=None):
        headers = {"Last-Event-ID": after} if after else {}
        url = f"/api/pipeline/progress/{task_id}/sse"
        with self.http.stream("GET", url, headers=headers) as answer:
            yield EventSource(answer).iter_sse()

    def all_events(self, task_id, after=None):
        with self.events(task_id, after) as events:
            return list(events)


@contextmanager
def serving(folder, files, generator=None, **config):
    """The application, served by uvicorn in a thread until the block ends."""
    settings = Settings(
        storage_root=folder, min_free_space_gb=0.01, detector="embedded", remover="embedded"
    )
    app = create_app(settings, Config(**config), generator=generator or LocalGenerator(size=96))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    server.install_signal_handlers = lambda: None
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "it did not start"
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            yield Site(http, files)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def files(portrait_path, speech_path):
    """A photo, and a second of speech."""
    speech = Speech.open(speech_path)
    short = Speech(speech.samples[:, : speech.sample_rate], speech.sample_rate)
    return {
        "image": ("../../me.exe", portrait_path.read_bytes(), "text/plain"),
        "audio": ("con", short.original().data, "image/png"),
    }


@pytest.fixture
def serve(tmp_path, files):
    """Serve the folder of this test; more than once, one after the other."""
    return lambda **options: serving(tmp_path / "store", files, **options)


@pytest.fixture(scope="module")
def site(tmp_path_factory, files):
    """A server that all tests share which do not need one of their own."""
    with serving(tmp_path_factory.mktemp("site"), files) as site:
        yield site


@pytest.fixture
def gated():
    generator = Gated()
    yield generator
    generator.gate.set()
