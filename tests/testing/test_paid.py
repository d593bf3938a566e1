"""The paid service that is none, and the generator that never pays it twice."""

import anyio
import httpx
import numpy as np
import pytest

from talkgen import GenerateVideo, MemoryStorage, Pipeline, Text
from talkgen.draft import TaskState
from talkgen.testing import FakePaidGenerator, PaidServer, ServiceDown

PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def server():
    with PaidServer() as server:
        yield server


def pipeline(server, **options):
    return Pipeline(
        [GenerateVideo(FakePaidGenerator(server.url, **options))], storage=MemoryStorage()
    )


def test_every_request_is_paid_for(server):
    with httpx.Client(base_url=server.url) as client:
        ids = [client.post("/jobs", json={"token": "t"}).json()["id"] for _ in range(2)]
        assert client.get("/jobs", params={"token": "t"}).json() == {"ids": ids}
        assert client.get("/jobs", params={"token": "u"}).json() == {"ids": []}
        states = [client.get(f"/jobs/{ids[0]}").json()["status"] for _ in range(2)]
        assert client.get("/nothing").status_code == 404
    assert states == ["started", "done"]
    assert server.ledger == ["t", "t"]


async def test_a_text_becomes_a_video(anyio_backend, server):
    opened = pipeline(server)
    result = await opened.run(PICTURE, Text("Hello"), task_id="t")
    assert await result.video.aread() == server.video(server.ledger[0])
    record = await opened._journal.get("t")
    (operation,) = record.operations.values()
    assert (operation.facts["job"], operation.settled) == ("0", "collected")
    assert server.ledger == [operation.token]


class Breaking(httpx.AsyncHTTPTransport):
    """Loses the answer to the first request that pays."""

    broken = False

    async def handle_async_request(self, request):
        response = await super().handle_async_request(request)
        if request.method == "POST" and not Breaking.broken:
            Breaking.broken = True
            await response.aclose()
            raise httpx.ReadError("the connection was lost", request=request)
        return response


async def test_a_lost_answer_is_found_in_the_servers_list(anyio_backend, server):
    Breaking.broken = False
    async with pipeline(server, transport=Breaking) as opened:
        result = await opened.run(PICTURE, Text("Hello"), task_id="t")
        assert result.status is TaskState.DEFERRED
        (run,) = (await opened.recover()).runs
        assert (await run).success
    assert len(server.ledger) == 1


async def test_cancelled_while_it_pays_the_id_is_known(anyio_backend, server):
    """The request and its answer are one step that nobody interrupts."""

    class Cancelling(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request):
            if request.method == "POST":
                run.cancel()
                await anyio.lowlevel.cancel_shielded_checkpoint()
            return await super().handle_async_request(request)

    async with pipeline(server, transport=Cancelling) as opened:
        run = opened.start(PICTURE, Text("Hello"), task_id="t")
        await run.wait_ended()
        record = await opened._journal.get("t")
    assert record.state is TaskState.DEFERRED
    assert record.operations["paid_job"].facts["job"] == "0"
    assert len(server.ledger) == 1


async def test_a_service_that_is_down_charges_nothing(anyio_backend, server):
    server.down = True
    strict = Pipeline(
        [GenerateVideo(FakePaidGenerator(server.url))], storage=MemoryStorage(), defer=()
    )
    result = await strict.run(PICTURE, Text("Hello"))
    assert result.status is TaskState.DEFERRED, "it is not known whether the request arrived"
    assert server.ledger == []
    assert ServiceDown.outage
