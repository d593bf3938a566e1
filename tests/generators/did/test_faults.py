"""Every request times every kind of fault: one talk and a whole video, or the right error."""

import io
from datetime import timedelta

import av
import pytest

from talkgen._clock import utc_now
from talkgen.draft import TaskState
from talkgen.errors import (
    DIdError,
    InsufficientCredits,
    InvalidMedia,
    Moderated,
    OutcomeUnknown,
    PermissionDenied,
    ResultExpired,
    Unauthorized,
)
from talkgen.generators.did import DIdClient
from talkgen.testing.fake_did import Fault

from .conftest import CLOCK, hasty

IMAGES, AUDIOS, POST = "POST /images", "POST /audios", "POST /talks"
GET, LIST, RESULT = "GET /talks/{id}", "GET /talks", "GET result"

GATEWAY = {"message": "Endpoint request timed out"}
XML = "<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"
VIDEO, DEFERRED = "video", "deferred"


def refusal(status, kind=None, description="because"):
    body = {"message": description} if kind is None else {"kind": kind, "description": description}
    return Fault(status=status, body=body)


PASSING = {
    "dropped before the work": Fault(drop=True),
    "dropped after the work": Fault(drop=True, work=True),
    "500 in JSON": refusal(500, "InternalServerError"),
    "502 in HTML": Fault(status=502, body="<html><h1>Bad gateway</h1></html>"),
    "503 without a body": Fault(status=503),
    "504 of the gateway, before the work": Fault(status=504, body=GATEWAY),
    "504 of the gateway, after the work": Fault(status=504, body=GATEWAY, work=True),
    "429 without a hint": Fault(status=429),
    "429 with seconds": Fault(status=429, headers={"Retry-After": "7"}, body="slow down"),
    "429 with a date": Fault(
        status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, body="[1, 2"
    ),
    "truncated": Fault(truncate=9),
    "unreadable": Fault(status=200, body="<html>welcome</html>", work=True),
    "late": Fault(delay=400.0),
}
REFUSALS = {
    "400": (refusal(400, "BadRequestError"), InvalidMedia),
    "400 of a field": (refusal(400, "ValidationError"), DIdError),
    "400 of the size": (refusal(400, "InvalidFileSizeError"), InvalidMedia),
    "401": (refusal(401, "AuthorizationError"), Unauthorized),
    "402": (refusal(402, "InsufficientCreditsError"), InsufficientCredits),
    "403 of the plan": (
        refusal(403, "PermissionError", "user has no permission for stitch"),
        PermissionDenied,
    ),
    "403 of the gateway": (refusal(403), Unauthorized),
    "404": (refusal(404, "NotFoundError"), DIdError),
    "415": (refusal(415, "UnsupportedMimeTypeError"), InvalidMedia),
    "451": (refusal(451, "ImageModerationError"), Moderated),
    "451 of a celebrity": (refusal(451, "CelebrityRecognizedError"), Moderated),
}

# A video in the end, and one talk: whatever happens once.
ROWS = [
    (request, name, fault, VIDEO)
    for request in (IMAGES, AUDIOS, POST, GET, RESULT)
    for name, fault in PASSING.items()
    # A result that is sent as a web page is no video, and is asked for again.
    if not (request is RESULT and name == "429 with a date")
]
# Refused before anything was made: its class, and nothing charged.
ROWS += [
    (request, name, fault, error)
    for request in (IMAGES, AUDIOS, POST)
    for name, (fault, error) in REFUSALS.items()
]
# A look that fails ends nothing, whatever it says.
ROWS += [(GET, name, fault, VIDEO) for name, (fault, _) in REFUSALS.items()]
# A link that is refused once is replaced.
ROWS += [(RESULT, "403 in XML", Fault(status=403, body=XML), VIDEO)]


COLUMNS = ("anyio_backend", "request_", "name", "fault", "outcome")


def named(rows):
    """The rows that ask for a talk on both loops, the others on one and the other in turn."""
    params = []
    for number, row in enumerate(rows):
        loops = ("asyncio", "trio") if row[0] == POST else (("asyncio", "trio")[number % 2],)
        params += [pytest.param(loop, *row, id=f"{row[0]}, {row[1]}, {loop}") for loop in loops]
    return params


def seconds(data):
    with av.open(io.BytesIO(data)) as container:
        return sum(1 for _ in container.decode(video=0)) / container.streams.video[0].average_rate


async def check_video(result, service):
    assert result.success
    assert float(seconds(await result.video.aread())) == pytest.approx(1.0, abs=0.3)
    ledger = service.ledger
    assert len(ledger.talks) == ledger.charged == 1
    assert ledger.refunded == 0
    assert result.metadata["d_id"]["talk_id"] == ledger.talks[0]
    assert result.metadata["d_id"]["credits"] == 1


@pytest.mark.parametrize(COLUMNS, named(ROWS))
async def test_one_fault(anyio_backend, bench, request_, name, fault, outcome):
    bench.service.fail(request_, fault)
    http = hasty() if name == "late" else None
    async with DIdClient(
        bench.service.api_key, base_url=bench.service.base_url, clock=CLOCK, http=http
    ) as client:
        generator = bench.generator(client=client)
        if outcome is VIDEO:
            await check_video(await bench.run(generator), bench.service)
        else:
            with pytest.raises(outcome) as caught:
                await bench.run(generator)
            assert type(caught.value) is outcome
            assert caught.value.status == fault.status
            assert bench.service.ledger.charged == 0
            assert all(each.settled == "refused" for each in await bench.operations())
    if http is not None:
        await http.aclose()


# --- what does not pass ------------------------------------------------------------------------

LASTING = {
    "dropped": Fault(drop=True),
    "503": Fault(status=503),
    "429": Fault(status=429),
    "504 of the gateway": Fault(status=504, body=GATEWAY),
}
LASTING_ROWS = [(r, n, f, None) for r in (IMAGES, AUDIOS, GET, RESULT) for n, f in LASTING.items()]


@pytest.mark.parametrize(
    ("anyio_backend", "request_", "name", "fault", "outcome"), named(LASTING_ROWS)
)
async def test_an_outage_defers_and_the_next_attempt_goes_on(
    anyio_backend, bench, request_, name, fault, outcome
):
    bench.service.fail(request_, fault, times=1000)
    result = await bench.run(bench.generator(timeout=30.0))
    assert result.status is TaskState.DEFERRED
    before = len(bench.service.ledger.talks)
    assert before == (0 if request_ in {IMAGES, AUDIOS} else 1)
    bench.service.heal()
    await check_video(await bench.run(), bench.service)


async def test_a_request_that_is_never_answered_is_not_repeated_for_ever(anyio_backend, bench):
    bench.service.fail(POST, Fault(status=503), times=1000)
    with pytest.raises(OutcomeUnknown) as caught:
        await bench.run()
    assert bench.service.ledger.requests[POST] == 2
    assert bench.service.ledger.charged == 0
    (operation,) = await bench.operations()
    assert operation.settled == "unknown"
    assert caught.value.token == f"talkgen:{operation.token}"
    assert operation.token in str(caught.value)


async def test_a_request_that_is_refused_for_now_defers_without_a_talk(anyio_backend, bench):
    bench.service.fail(POST, Fault(status=429), times=1000)
    assert (await bench.run()).status is TaskState.DEFERRED
    assert bench.service.ledger.requests[POST] == 4
    assert [each.settled for each in await bench.operations()] == ["refused"]
    bench.service.heal()
    await check_video(await bench.run(), bench.service)
    assert bench.service.ledger.requests[LIST] == 0


@pytest.mark.parametrize("work", [False, True])
@pytest.mark.parametrize("lost", ["504", "dropped"])
async def test_a_list_that_cannot_be_read_leaves_the_question_open(
    anyio_backend, bench, lost, work
):
    fault = Fault(drop=True, work=work) if lost == "dropped" else Fault(status=504, work=work)
    bench.service.fail(POST, fault)
    bench.service.fail(LIST, Fault(status=503), times=1000)
    assert (await bench.run()).status is TaskState.DEFERRED
    assert bench.service.ledger.requests[POST] == 1
    bench.service.heal()
    await check_video(await bench.run(), bench.service)
    assert bench.service.ledger.requests[POST] == (1 if work else 2)


@pytest.mark.parametrize("name", sorted(PASSING.keys() - {"late"}))
async def test_faults_of_the_search_itself(anyio_backend, bench, name):
    bench.service.fail(POST, Fault(drop=True, work=True))
    bench.service.fail(LIST, PASSING[name])
    await check_video(await bench.run(), bench.service)
    assert bench.service.ledger.requests[POST] == 1


@pytest.mark.parametrize("outcome", ["error", "rejected"])
async def test_a_talk_that_fails_is_given_back(anyio_backend, bench, outcome):
    bench.service.behaviour.outcome = outcome
    with pytest.raises(DIdError) as caught:
        await bench.run()
    assert (
        type(caught.value).__name__ == {"error": "TalkFailed", "rejected": "TalkRejected"}[outcome]
    )
    assert caught.value.kind == ("FaceError" if outcome == "error" else None)
    ledger = bench.service.ledger
    assert (ledger.charged, ledger.refunded) == (1, 1)
    assert [each.settled for each in await bench.operations()] == ["refused"]


async def test_a_link_that_is_not_taken_while_the_video_is_kept_defers(anyio_backend, bench):
    """The store may be in trouble, or not have it yet: it is paid for."""
    bench.service.fail(RESULT, Fault(status=403, body=XML), times=1000)
    assert (await bench.run()).status is TaskState.DEFERRED
    assert bench.service.ledger.requests[RESULT] == 5
    bench.service.heal()
    await check_video(await bench.run(), bench.service)


async def test_a_link_that_is_not_taken_after_a_day_is_reported(anyio_backend, bench, monkeypatch):
    later = lambda: utc_now() + timedelta(hours=26)  # noqa: E731
    monkeypatch.setattr("talkgen.generators.did.client.utc_now", later)
    bench.service.fail(RESULT, Fault(status=403, body=XML), times=1000)
    with pytest.raises(ResultExpired) as caught:
        await bench.run()
    assert caught.value.talk_id == bench.service.ledger.talks[0]
    assert bench.service.ledger.requests[RESULT] == 2
    bench.service.heal()
    assert (await bench.run()).success
    assert len(bench.service.ledger.talks) == 2


async def test_a_talk_that_somebody_deleted_is_reported(anyio_backend, bench):
    bench.service.behaviour.finish_after = 1e6
    gone = refusal(404, "NotFoundError", "talk not found")
    bench.service.fail(GET, gone, times=1000, after=1)
    with pytest.raises(ResultExpired) as caught:
        await bench.run()
    assert caught.value.talk_id == bench.service.ledger.talks[0]
    assert bench.service.ledger.requests[GET] == 4


async def test_a_talk_that_another_account_cannot_see_is_not_given_up(anyio_backend, bench):
    bench.service.fail(RESULT, Fault(status=503), times=1000)
    assert (await bench.run()).status is TaskState.DEFERRED
    bench.service.heal()
    gone = refusal(404, "NotFoundError", "talk not found")
    bench.service.fail(GET, gone, times=1000)
    assert (await bench.run(bench.generator(timeout=60.0))).status is TaskState.DEFERRED
    bench.service.heal()
    await check_video(await bench.run(), bench.service)


async def test_a_talk_that_does_not_show_up_within_a_day_is_reported(
    anyio_backend, bench, monkeypatch
):
    bench.service.fail(GET, refusal(404, "NotFoundError", "talk not found"), times=1000)
    generator = bench.generator(timeout=60.0)
    assert (await bench.run(generator)).status is TaskState.DEFERRED
    later = utc_now() + timedelta(hours=26)
    monkeypatch.setattr("talkgen.generators.did.job.utc_now", lambda: later)
    with pytest.raises(ResultExpired) as caught:
        await bench.run(generator)
    assert caught.value.talk_id == bench.service.ledger.talks[0]


async def test_a_talk_that_shows_up_late_is_waited_for(anyio_backend, bench):
    bench.service.fail(GET, refusal(404, "NotFoundError", "talk not found"), times=5)
    await check_video(await bench.run(), bench.service)


@pytest.mark.parametrize(
    "body", [b"", b"\0" * 4096, b"<html>"], ids=["empty", "zeroes", "a web page"]
)
async def test_a_damaged_video_is_fetched_again(anyio_backend, bench, body):
    bench.service.fail(RESULT, Fault(status=200, body=body), times=2)
    await check_video(await bench.run(), bench.service)


async def test_a_video_that_stays_damaged_defers(anyio_backend, bench):
    bench.service.fail(RESULT, Fault(status=200, body=b"\0" * 4096), times=1000)
    assert (await bench.run()).status is TaskState.DEFERRED
    bench.service.heal()
    await check_video(await bench.run(), bench.service)


async def test_a_video_without_end_defers(anyio_backend, bench, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("talkgen.generators.did.transport.LARGEST_VIDEO", 1000)
        assert (await bench.run()).status is TaskState.DEFERRED
    assert bench.service.ledger.requests[RESULT] == 1
    await check_video(await bench.run(), bench.service)


async def test_an_answer_without_end_counts_as_lost(anyio_backend, bench, monkeypatch):
    monkeypatch.setattr("talkgen.generators.did.transport.LARGEST_ANSWER", 5000)
    bench.service.fail(POST, Fault(status=201, body=b" " * 5001, work=True))
    await check_video(await bench.run(), bench.service)
    assert bench.service.ledger.requests[POST] == 1


def test_the_table_is_long_enough():
    assert len(ROWS) + len(LASTING_ROWS) >= 40
