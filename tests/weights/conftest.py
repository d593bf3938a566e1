"""A hub on loopback that speaks what the hub's own client needs, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

import attrs
import pytest

from talkgen.models.weights import Weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MEBI = 2**20

# Larger than the pieces of 10 MiB in which the client keeps what has come.
CONTENT = Random(0).randbytes(12 * MEBI)
CONFIG = b'{"model_type": "none"}'


@dataclass
class Hub:
    """What is on the hub, what is wrong with it, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    status: int | None = None  # answer everything with this
    error_code: str | None = None
    cuts: list[int] = field(default_factory=list)  # close each next download after so many bytes
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    url: str = ""

    def asked(self, method):
        return [(path, piece) for verb, path, piece in self.requests if verb == method]


class Handler(BaseHTTPRequestHandler):
    """Large files are redirected to where they are stored by their SHA-256, as on the real hub."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        self.hub.agents.add(self.headers["User-Agent"])
        if self.hub.status is not None:
            return self.refuse(self.hub.status, self.hub.error_code)
        if self.path.startswith("/stored/"):
            return self.send(self.stored(), body=body)
        repository, _, rest = self.path[1:].partition("/resolve/")
        revision, _, name = rest.partition("/")
        if revision not in {"main", COMMIT}:
            return self.refuse(404, "RevisionNotFound")
        if f"{repository}/{name}" not in self.hub.files:
            return self.refuse(404, "EntryNotFound")
        return self.resolve(self.hub.files[f"{repository}/{name}"], body=body)

    def resolve(self, content, *, body):
        if content is CONFIG:
            etag = hashlib.sha1(content).hexdigest()
            return self.send(content, body=body, ETag=f'"{etag}"')
        digest = hashlib.sha256(content).hexdigest()
        self.send_response(302)
        # Another host, as on the real hub: a redirect within the hub is followed for its facts.
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
        self.send_header("Location", f"{elsewhere}/stored/{digest}")
        self.send_header("X-Linked-ETag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        return self.end_with(b"", body=False)

    def stored(self):
        digest = self.path.rpartition("/")[2]
        contents = self.hub.files.values()
        return next(one for one in contents if hashlib.sha256(one).hexdigest() == digest)

    def send(self, content, *, body, **headers):
        first = int((self.headers.get("Range") or "bytes=0-")[len("bytes=") :].rstrip("-"))
        self.send_response(206 if first else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if first:
            size = len(content)
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.end_with(content[first:], body=body)

    def end_with(self, content, *, body):
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not body:
            return
        cut = self.hub.cuts.pop(0) if self.hub.cuts else None
        self.wfile.write(content[:cut])
        self.close_connection = cut is not None

    def refuse(self, status, code):
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *values):
        pass


@pytest.fixture
def hub():
    """A hub that has `someone/tiny`: a checkpoint, safetensors and a configuration."""
    hub = Hub({f"someone/tiny/{name}": CONTENT for name in ("tiny.pt", "model.safetensors")})
    hub.files["someone/tiny/config.json"] = CONFIG
    handler = type("Bound", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


DIGEST = hashlib.sha256(CONTENT).hexdigest()
TINY = Weights(
    name="tiny",
    repository="someone/tiny",
    revision="main",
    filename="tiny.pt",
    sha256=DIGEST,
    licence="AGPL-3.0-only",
    size=len(CONTENT),
)
SAFE = attrs.evolve(
    TINY,
    name="safe",
    filename="model.safetensors",
    licence="MIT",
    companions=("config.json",),
)


@pytest.fixture
def tiny():
    return TINY


@pytest.fixture
def safe():
    return SAFE


@pytest.fixture
def content():
    return CONTENT


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of one's own in this process; `cache(weights, content)` puts a file there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))

    def put(weights, content):
        home = tmp_path / "hub" / f"models--{weights.repository.replace('/', '--')}"
        commit = COMMIT if weights.revision == "main" else weights.revision
        snapshot = home / "snapshots" / commit
        for folder in (snapshot, home / "blobs", home / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        (home / "refs" / "main").write_text(commit)
        blob = home / "blobs" / DIGEST
        blob.write_bytes(content)
        path = snapshot / weights.filename
        path.symlink_to(blob)
        for companion in weights.companions:
            (snapshot / companion).write_bytes(CONFIG)
        return path

    return put


# What the command runs in: it knows two files more, and dies of an attempt to reach any other
# host than loopback, whoever would swallow the error.
GUARDED = """
import json, os, sys

LOOPBACK = ("127.0.0.1", "::1", "localhost")

def only_loopback(event, values):
    host = {"socket.connect": lambda: values[1], "socket.getaddrinfo": lambda: values}.get(event)
    if host is not None and isinstance(host(), tuple) and host()[0] not in LOOPBACK:
        os.write(2, f"reached out to {host()}\\n".encode())
        os._exit(99)

sys.addaudithook(only_loopback)
from talkgen.models import catalogue
from talkgen.__main__ import main
from talkgen.models.weights import Weights

known = [Weights(**facts) for facts in json.loads(os.environ["KNOWN"])]
catalogue._KNOWN = {weights.name: weights for weights in known}
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def talkgen(hub, tmp_path):
    """`python -m talkgen` with a home of its own and no way out but to the hub on loopback."""

    def run(*arguments, known=(TINY, SAFE), **environment):
        inherited = {name: value for name, value in os.environ.items() if "HF_" not in name}
        return subprocess.run(
            [sys.executable, "-c", GUARDED, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
            env={
                **inherited,
                "HF_HOME": str(tmp_path / "home"),
                "HF_ENDPOINT": hub.url,
                "KNOWN": json.dumps([attrs.asdict(weights) for weights in known]),
                **environment,
            },
        )

    return run
