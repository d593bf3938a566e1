"""A host on loopback that the stand-in posts to, and that hands over what it gets."""

import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import attrs
import httpx
import pytest

from talkgen.draft import TaskState
from talkgen.generators.did import Polling
from talkgen.testing import FakeDId
from talkgen.testing.fake_did import Fault

from .conftest import SPEED, Bench
from .test_fake import body, validate

PATH = "/hooks/a-path-nobody-guesses"


class Hook(BaseHTTPRequestHandler):
    """What a host does: takes what came to the right address, and answers at once."""

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        known = secrets.compare_digest(self.path, PATH)
        if known:
            self.server.got.append(json.loads(sent))
            self.server.woken.append(self.server.notify(sent))
        self.send_response(204 if known else 404)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def host():
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        server.url = f"http://127.0.0.1:{server.server_port}{PATH}"
        server.got, server.woken, server.notify = [], [], lambda sent: False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def waiting(bench, host):
    """A generator that never looks of its own accord."""
    polling = Polling(first=1e6, longest=1e6, webhook=1e6, jitter=0)
    generator = bench.generator(webhook=host.url, polling=polling, timeout=1e5)
    host.notify = generator.notify
    return generator


def statuses(host):
    return [each["status"] for each in host.got]


async def test_a_webhook_brings_the_video(anyio_backend, bench, host, waiting):
    """Each wakes the run, which asks D-ID instead of believing it."""
    result = await bench.run(waiting)
    assert result.success
    assert statuses(host)[-1] == "done"
    assert any(host.woken)
    assert bench.service.ledger.requests["GET /talks/{id}"] <= len(host.got)
    assert [each.status for each in bench.service.ledger.webhooks] == [204] * len(host.got)
    for each in host.got:
        validate(each, "WebhookTalk")


async def test_each_twice(anyio_backend, bench, host, waiting):
    bench.service.behaviour.webhooks = "twice"
    assert (await bench.run(waiting)).success
    assert bench.service.ledger.downloads == len(bench.service.ledger.talks) == 1
    assert statuses(host)[:2] == ["created", "created"]


async def test_in_reverse(anyio_backend, bench, host, waiting):
    bench.service.behaviour.webhooks = "reversed"
    assert (await bench.run(waiting)).success
    assert statuses(host)[0] == "done"


async def test_late(anyio_backend, bench, host, waiting):
    bench.service.fail("webhook", Fault(delay=100.0), times=3)
    assert (await bench.run(waiting)).success
    assert all(each["status"] in {"created", "started", "done"} for each in host.got)
    late = bench.service._clock.now() - bench.service._state.talks[host.got[0]["id"]].created
    assert late >= 100


async def test_lost_the_run_looks_by_itself(anyio_backend, bench, host):
    bench.service.fail("webhook", Fault(drop=True), times=3)
    generator = bench.generator(webhook=host.url)
    assert (await bench.run(generator)).success
    assert host.got == []
    assert bench.service.ledger.webhooks == ()


async def test_forged_it_only_makes_it_look(anyio_backend, bench, host, waiting):
    bench.service.behaviour.finish_after = 1e5
    bench.service.behaviour.webhooks = "none"
    async with bench.pipeline(waiting) as pipeline:
        run = pipeline.start(*bench.inputs())
        with anyio.fail_after(20):
            while not any(host.woken):
                if bench.service.ledger.talks:
                    number = bench.service.ledger.talks[0]
                    link = "http://127.0.0.1:9/evil.mp4"
                    assert (
                        bench.service.forge_webhook(number, status="done", result_url=link) == 204
                    )
                await anyio.sleep(0.005)
        assert not run.done
        bench.service.advance(1e5)
        bench.service.forge_webhook(number, status="error")
        assert (await run).success


async def test_nonsense_wakes_nobody(anyio_backend, bench, host):
    bench.service.fail("webhook", Fault(body={"hello": 1}), times=2)
    bench.service.fail("webhook", Fault(body=[1]))
    generator = bench.generator(webhook=host.url)
    host.notify = generator.notify
    assert (await bench.run(generator)).success
    assert not any(host.woken)


async def test_without_a_word_the_deadline_looks_and_then_defers(
    anyio_backend, bench, host, waiting
):
    bench.service.behaviour.webhooks = "none"
    waiting = attrs.evolve(waiting, timeout=30.0)
    assert (await bench.run(waiting)).success
    bench.service.behaviour.finish_after = 1e6
    assert (await bench.run(waiting, task_id="slow")).status is TaskState.DEFERRED
    bench.service.advance(1e6)
    assert (await bench.run(waiting, task_id="slow")).success
    assert len(bench.service.ledger.talks) == 2


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("https://example.com/hook", 201),
        ("http://example.com/hook", 400),
        ("http://127.0.0.1.example.com/hook", 400),
        ("ftp://127.0.0.1/", 400),
        (7, 400),
    ],
)
def test_addresses_are_checked_and_none_but_loopback_is_reached(address, status):
    with FakeDId(speed=SPEED, api_key="a:b") as service:
        auth = {"Authorization": "Basic a:b"}
        with httpx.Client(base_url=service.base_url, headers=auth) as http:
            answer = http.post("/talks", json=body(http, webhook=address))
            assert answer.status_code == status
            if status == 201:
                service.advance(60)
                assert service.forge_webhook(answer.json()["id"]) is None
                assert http.get("/credits").status_code == 200


async def test_a_host_that_is_not_there_is_nobodys_trouble(anyio_backend, bench: Bench):
    generator = bench.generator(webhook="http://127.0.0.1:9/hook")
    assert (await bench.run(generator)).success
    assert {each.status for each in bench.service.ledger.webhooks} <= {None}
