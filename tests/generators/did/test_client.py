"""The client by itself."""

import base64
import logging
import pickle
import ssl
import subprocess
import sys
import traceback
from datetime import timedelta

import anyio
import attrs
import httpx
import pytest

from talkgen import Text
from talkgen._clock import utc_now
from talkgen.errors import (
    DIdError,
    InsufficientCredits,
    OutcomeUnknown,
    RateLimited,
    ResultExpired,
    ServiceUnavailable,
    TalkFailed,
    Unauthorized,
)
from talkgen.generators.did import (
    Clock,
    DIdClient,
    Polling,
    RetryPolicy,
    Talk,
    TalkRequest,
    Wanted,
    audio_script,
    find_talk,
    text_script,
)
from talkgen.generators.did.traffic import Traffic
from talkgen.testing.fake_did import Fault

from .conftest import CLOCK, SPEED, face, tone

JPEG = face().encode("jpeg")
WAV = tone().original().data


async def made(client, **options):
    image = await client.upload_image(JPEG)
    audio = await client.upload_audio(WAV)
    request = TalkRequest(source_url=image.url, script=audio_script(audio.url), **options)
    return await client.create_talk(request)


async def test_the_whole_way(anyio_backend, service, client_of, tmp_path):
    async with client_of(service) as client:
        image = await client.upload_image(JPEG, detect_faces=True)
        audio = await client.upload_audio(WAV)
        assert (image.faces, audio.duration) == (1, pytest.approx(1.0))
        assert len(await client.detect_faces(image.url)) == 1
        talk = await client.create_talk(
            TalkRequest(source_url=image.url, script=audio_script(audio.url), user_data="mine")
        )
        assert (await client.get_talk(talk.id)).user_data == "mine"
        done = await client.wait_talk(talk.id, seconds=1.0)
        assert (done.status, done.result_format) == ("done", "mp4")
        await client.download(done, tmp_path / "video.mp4")
        assert (tmp_path / "video.mp4").stat().st_size > 1000
        assert [each.id for each in (await client.list_talks()).talks] == [talk.id]
        assert (await client.credits()).remaining == 999
        for _ in range(2):  # what is gone already is no error
            await client.delete_talk(talk.id)
            await client.delete_image(image.id)
            await client.delete_audio(audio.id)
        with pytest.raises(ResultExpired):
            await client.get_talk(talk.id)
        assert (await client.voices("microsoft"))[0].id == "en-US-JennyNeural"


async def test_pages(anyio_backend, service, client_of):
    async with client_of(service) as client:
        ids = [(await made(client)).id for _ in range(3)]
        first = await client.list_talks(limit=2)
        second = await client.list_talks(limit=2, token=first.token)
        assert [talk.id for talk in (*first.talks, *second.talks)] == ids[::-1]
        assert second.token is None


async def test_a_text_is_spoken_by_a_voice(anyio_backend, service, client_of):
    async with client_of(service) as client:
        image = await client.upload_image(JPEG)
        script = text_script(Text("Hello there", voice="en-US-JennyNeural"), "microsoft")
        talk = await client.create_talk(TalkRequest(source_url=image.url, script=script))
        assert (await client.wait_talk(talk.id)).duration == pytest.approx(11 / 14)


async def test_a_talk_that_is_still_made_is_deleted_after_a_while(
    anyio_backend, service, client_of
):
    busy = {"kind": "NotReadyError", "description": "talk is in process, try again later"}
    service.fail("DELETE /talks/{id}", Fault(status=409, body=busy), times=3)
    async with client_of(service) as client:
        talk = await made(client)
        service.advance(60)
        await client.delete_talk(talk.id)
    assert service.ledger.requests["DELETE /talks/{id}"] == 4


# --- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{key}", " {key}\n", "Basic {key}", "Bearer {key}", "base64"])
async def test_every_form_of_the_key_is_taken(anyio_backend, service, client_of, form):
    key = form.format(key=service.api_key)
    if form == "base64":
        key = base64.b64encode(service.api_key.encode()).decode()
    async with client_of(service, api_key=key) as client:
        assert (await client.credits()).remaining == 1000


@pytest.mark.parametrize("key", ["", "two words", "user:pass\nX-Other: 1", "schlüssel", "\x00"])
def test_what_is_no_key_is_refused_without_repeating_it(key):
    with pytest.raises(ValueError, match="API key") as caught:
        DIdClient(key)
    assert not key or key not in str(caught.value)


async def test_the_key_is_nowhere(anyio_backend, service, client_of, caplog):
    """Not in a repr, a log line, an error, its traceback or a pickle, even where D-ID echoes it."""
    caplog.set_level(logging.DEBUG)
    key, secret = "somebody:the-secret-half", "the-secret-half"
    errors = []
    echo = {"message": f"Invalid key=value pair in Authorization header: 'Basic {key}'."}
    service.fail("GET /credits", Fault(status=403, body=echo))
    service.fail("GET /credits", Fault(status=500, body=f"{key} {secret}"), times=9)
    async with client_of(service, api_key=key) as client:
        for call in (client.credits, client.credits, client.voices):
            with pytest.raises(DIdError) as caught:
                await call()
            errors.append(caught.value)
        with pytest.raises(TypeError):
            pickle.dumps(client)
        shown = [repr(client), str(vars(client)), caplog.text]
    for error in errors:
        # As error reporters do it, with the variables of each frame below this one.
        inner = error.__traceback__.tb_next
        report = traceback.TracebackException(type(error), error, inner, capture_locals=True)
        lines = [*traceback.format_exception(error), *report.format()]
        shown += [repr(error), str(error), str(vars(error)), error.hint, *lines]
        shown.append(pickle.dumps(error).decode("latin-1"))
    assert [type(error) for error in errors] == [Unauthorized, ServiceUnavailable, Unauthorized]
    assert not [text for text in shown if secret in text]


async def test_signed_links_are_in_no_log_and_no_repr(
    anyio_backend, service, client_of, caplog, tmp_path
):
    caplog.set_level(logging.DEBUG)
    async with client_of(service) as client:
        talk = await client.wait_talk((await made(client)).id)
        service.fail("GET result", Fault(status=500), times=2)
        await client.download(talk, tmp_path / "video.mp4")
        signature = talk.result_url.partition("Signature=")[2]
    assert "GET" in caplog.text  # httpx and httpcore did write their lines
    assert signature not in caplog.text
    assert signature not in repr(talk)


async def test_the_link_is_sent_as_it_came_and_without_the_key(
    anyio_backend, service, client_of, tmp_path
):
    """The stand-in refuses a link that was encoded anew, and one that comes with a key."""
    options = {"headers": {"Authorization": "Basic other"}, "auth": ("a", "b")}
    async with httpx.AsyncClient(**options) as http:
        async with client_of(service, http=http) as client:
            talk = await client.wait_talk((await made(client)).id)
            assert "%2B" in talk.result_url or "%2F" in talk.result_url
            await client.download(talk, tmp_path / "video.mp4")
        assert not http.is_closed  # it is the caller's
    assert service.ledger.requests["GET result"] == 1


@pytest.mark.parametrize(
    "link",
    [
        "ftp://127.0.0.1/x.mp4",
        "file:///etc/passwd",
        "nothing",
        "https:///x.mp4",
        "https://[::1/x.mp4",
        "https://127.0.0.1:99999/x.mp4",
        "https://127.0.0.1:port/x.mp4",
    ],
)
async def test_a_link_that_is_none_is_not_followed(
    anyio_backend, service, client_of, tmp_path, link
):
    async with client_of(service) as client:
        talk = await client.wait_talk((await made(client)).id)
        with pytest.raises(DIdError, match="no https link"):
            await client.download(attrs.evolve(talk, result_url=link), tmp_path / "x")


async def test_an_expired_link_is_replaced(
    anyio_backend, service, client_of, tmp_path, monkeypatch
):
    async with client_of(service) as client:
        talk = await client.wait_talk((await made(client)).id)
        service.advance(25 * 3600)
        await client.download(talk, tmp_path / "video.mp4")
        service.behaviour.renews_links = False
        service.advance(25 * 3600)
        with pytest.raises(ServiceUnavailable, match="cannot be fetched") as refused:
            await client.download(talk, tmp_path / "video.mp4")
        assert (refused.value.talk_id, refused.value.status) == (talk.id, 403)
        later = utc_now() + timedelta(hours=50)
        monkeypatch.setattr("talkgen.generators.did.client.utc_now", lambda: later)
        with pytest.raises(ResultExpired) as caught:
            await client.download(talk, tmp_path / "video.mp4")
        assert caught.value.talk_id == talk.id


# --- trying again ------------------------------------------------------------------------------


async def test_first_try_and_three_retries(anyio_backend, service, client_of):
    service.fail("GET /credits", Fault(status=503), times=100)
    async with client_of(service) as client:
        with pytest.raises(ServiceUnavailable):
            await client.credits()
    assert service.ledger.requests["GET /credits"] == 4


async def test_out_of_reach_is_unavailable_and_nothing_was_sent(anyio_backend, client_of, service):
    async with client_of(service, base_url="http://127.0.0.1:9") as client:
        with pytest.raises(ServiceUnavailable) as caught:
            await made(client)
        assert not caught.value.sent
        with pytest.raises(ServiceUnavailable):
            await client.create_talk(TalkRequest(source_url="https://x/a.jpg", script={}))


async def test_a_lost_answer_is_not_asked_for_again(anyio_backend, service, client_of):
    service.fail("POST /talks", Fault(status=504, work=True), times=10)
    async with client_of(service) as client:
        with pytest.raises(OutcomeUnknown) as caught:
            await made(client, user_data="mine")
    assert caught.value.token == "mine"
    assert service.ledger.requests["POST /talks"] == 1


async def test_an_id_that_cannot_be_written_down_holds_up_nobody_for_ever(
    anyio_backend, service, client_of
):
    async def hang(talk):
        await anyio.sleep_forever()

    async with client_of(service, retry=RetryPolicy(post_deadline=0.2)) as client:
        image, audio = await client.upload_image(JPEG), await client.upload_audio(WAV)
        request = TalkRequest(source_url=image.url, script=audio_script(audio.url))
        with pytest.raises(TimeoutError):
            await client.create_talk(request, on_created=hang)
    assert len(service.ledger.talks) == 1


async def test_an_error_of_the_socket_is_no_end_of_the_waiting(anyio_backend, service, client_of):
    """anyio and httpx let some errors of TLS through as they are."""

    class Torn(httpx.AsyncHTTPTransport):
        left = 2

        async def handle_async_request(self, request):
            if request.method == "GET" and self.left:
                self.left -= 1
                raise ssl.SSLError("bad record mac")
            return await super().handle_async_request(request)

    async with httpx.AsyncClient(transport=Torn()) as http, client_of(service, http=http) as client:
        talk = await made(client)
        looks = []
        assert (await client.wait_talk(talk.id, on_look=looks.append)).status == "done"
    assert [type(look) for look in looks[:2]] == [ServiceUnavailable] * 2


class TornBody(httpx.AsyncByteStream):
    """Breaks off as some errors of TLS do, which httpx lets through as they are."""

    def __init__(self, whole):
        self._whole, self._pieces = whole, iter([b"the beginning"])

    def __aiter__(self):
        return self

    async def __anext__(self):
        for piece in self._pieces:
            return piece
        raise ssl.SSLError("bad record mac")

    async def aclose(self):
        await self._whole.aclose()


async def test_an_error_of_the_socket_amid_a_video_is_no_error_of_the_disk(
    anyio_backend, service, client_of, tmp_path
):
    class Torn(httpx.AsyncHTTPTransport):
        left = 2

        async def handle_async_request(self, request):
            response = await super().handle_async_request(request)
            if response.headers["Content-Type"] == "video/mp4" and self.left:
                self.left -= 1
                response.stream = TornBody(response.stream)
            return response

    path = tmp_path / "video.mp4"
    async with httpx.AsyncClient(transport=Torn()) as http, client_of(service, http=http) as client:
        talk = await client.wait_talk((await made(client)).id)
        await client.download(talk, path)
    assert path.stat().st_size > 1000
    assert service.ledger.requests["GET result"] == 3


class Dripping(httpx.AsyncByteStream):
    """Sends a blank a while, so that no timeout of a socket ends it."""

    def __aiter__(self):
        return self

    async def __anext__(self):
        await anyio.sleep(0.01)
        return b" "


async def test_no_answer_is_waited_for_without_end(anyio_backend, service, client_of, monkeypatch):
    async def drip(request):
        return httpx.Response(200, stream=Dripping())

    monkeypatch.setattr("talkgen.generators.did.transport.ANSWER_SECONDS", 0.1)
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(drip)) as http,
        client_of(service, http=http) as client,
    ):
        with anyio.fail_after(20), pytest.raises(ServiceUnavailable, match="TimeoutError"):
            await client.credits()


async def test_no_video_is_waited_for_without_end(
    anyio_backend, service, client_of, monkeypatch, tmp_path
):
    async def drip(request):
        return httpx.Response(200, stream=Dripping())

    monkeypatch.setattr("talkgen.generators.did.transport.VIDEO_SECONDS", 0.1)
    talk = Talk(id="tlk_1", status="done", result_url=f"{service.base_url}/video.mp4")
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(drip)) as http,
        client_of(service, http=http) as client,
    ):
        with anyio.fail_after(20), pytest.raises(ServiceUnavailable, match=r"within 0\.1 s"):
            await client.download(talk, tmp_path / "video.mp4")


async def test_no_answer_is_read_without_end(anyio_backend, service, client_of, monkeypatch):
    monkeypatch.setattr("talkgen.generators.did.transport.LARGEST_ANSWER", 5000)
    for status in (200, 403):
        service.fail("GET /credits", Fault(status=status, body=b" " * 5001))
    async with client_of(service) as client:
        assert (await client.credits()).remaining == 1000
        service.fail("GET /credits", Fault(status=200, body=b" " * 5001), times=4)
        with pytest.raises(ServiceUnavailable, match="larger than 5000 bytes"):
            await client.credits()


async def test_a_429_stops_all_runs_for_as_long_as_it_asks(anyio_backend, service, client_of):
    """While one waits, the others do not ask; afterwards one goes first."""
    service.fail("GET /credits", Fault(status=429, headers={"Retry-After": "60"}))
    async with client_of(service, retry=RetryPolicy(jitter=0)) as client:
        await client.voices()
        began = CLOCK.now()
        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(client.credits)
        assert CLOCK.now() - began >= 60
    # All that were let through before the answer came, and then each once more at most.
    assert service.ledger.requests["GET /credits"] <= 12


async def test_a_402_ends_those_who_wait_and_the_next_asks_again(anyio_backend, service, client_of):
    refusal = {"kind": "InsufficientCreditsError", "description": "not enough credits"}
    service.fail("POST /images", Fault(status=402, body=refusal, delay=20))
    errors = []

    async def upload(client):
        try:
            await client.upload_image(JPEG)
        except InsufficientCredits as error:
            errors.append(error)

    async with client_of(service, max_requests=1) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(upload, client)
        assert len(errors) == 10
        assert service.ledger.requests["POST /images"] == 1
        await client.upload_image(JPEG)


async def test_a_402_ends_what_was_begun_before_it_also_between_two_requests(
    anyio_backend, service, client_of
):
    async with client_of(service) as client:
        since = client.refusals
        image = await client.upload_image(JPEG, since=since)
        service.fail("POST /images", Fault(status=402))
        with pytest.raises(InsufficientCredits):
            await client.upload_image(JPEG)
        talk = TalkRequest(source_url=image.url, script={})
        for ask in (
            client.upload_image(JPEG, since=since),
            client.upload_audio(WAV, since=since),
            client.create_talk(talk, since=since),
        ):
            with pytest.raises(InsufficientCredits, match="another run"):
                await ask
        assert service.ledger.requests == {"POST /images": 2}
        assert (await client.upload_audio(WAV)).url  # begun later


async def test_a_402_does_not_end_reads(anyio_backend):
    traffic = Traffic(1, RetryPolicy(), Clock(SPEED))
    with pytest.raises(InsufficientCredits):
        async with traffic.turn(since=0):
            raise InsufficientCredits("none left")
    async with traffic.turn():
        pass
    async with traffic.turn(since=traffic.refusals):
        pass
    with pytest.raises(InsufficientCredits):
        async with traffic.turn(since=0):
            pass


async def test_after_a_429_one_at_a_time_and_then_more(anyio_backend):
    traffic = Traffic(8, RetryPolicy(), Clock(1e6))
    with pytest.raises(RateLimited):
        async with traffic.turn():
            raise RateLimited("slow down")
    most = at_once = 0

    async def request():
        nonlocal most, at_once
        async with traffic.turn():
            at_once += 1
            most = max(most, at_once)
            order.append(at_once)
            await anyio.lowlevel.checkpoint()
            at_once -= 1

    order = []
    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(request)
    assert order[0] == 1
    assert 1 < most <= 8


async def test_cancelled_while_it_waits_to_try_again(anyio_backend, service, client_of):
    service.fail("GET /credits", Fault(status=503), times=100)
    async with client_of(service, clock=Clock(0.01)) as client:
        with anyio.move_on_after(0.3) as scope:
            await client.credits()
        assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("outcomes", "taken"), [(("error", "done", "done"), 1), (("done", "error"), 0)]
)
async def test_of_several_talks_of_one_request_one_with_a_video_is_found(
    anyio_backend, service, client_of, outcomes, taken
):
    async with client_of(service) as client:
        talks = []
        for outcome in outcomes:
            service.behaviour.outcome = outcome
            talks.append(await made(client, user_data="mine"))
        service.advance(60)
        found = await find_talk(client, Wanted("mine", (), utc_now()))
    assert found.id == talks[taken].id


# --- waiting -----------------------------------------------------------------------------------


async def test_500_runs_need_a_handful_of_connections(anyio_backend, service, client_of):
    service.behaviour.finish_after = 30
    async with client_of(service) as client:
        talk = await made(client)
        done = []

        async def wait():
            done.append(await client.wait_talk(talk.id, timeout=1e5))

        async with anyio.create_task_group() as tasks:
            for _ in range(500):
                tasks.start_soon(wait)
    assert len(done) == 500
    assert service.ledger.connections <= 12


async def test_a_webhook_wakes_the_waiter_who_asks_for_himself(anyio_backend, service, client_of):
    polling = Polling(first=1e6, longest=1e6, webhook=1e6)
    async with client_of(service, polling=polling) as client:
        talk = await made(client)
        started, _, ended = service.webhook_bodies(talk.id)
        looks, done = [], []

        async def wait():
            done.append(
                await client.wait_talk(talk.id, timeout=1e9, webhook=True, on_look=looks.append)
            )

        assert not client.notify(ended)  # nobody waits yet
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            with anyio.fail_after(20):
                while not client.notify(started):  # noqa: ASYNC110 - until the waiter is there
                    await anyio.sleep(0.001)
                while not looks:  # noqa: ASYNC110
                    await anyio.sleep(0.001)
                service.advance(60)
                # From another thread, as a host's web server would.
                assert await anyio.to_thread.run_sync(client.notify, ended)
        assert done[0].status == "done"
        assert looks[-1] == done[0]
        assert not client.notify(b"no json")
        assert not client.notify(b"[" * 200_000)
        assert not client.notify(b"\xff")
        assert not client.notify({"id": 7})


async def test_a_forged_webhook_only_makes_it_look(anyio_backend, service, client_of):
    async with client_of(service) as client:
        talk = await made(client)
        looks = []

        def look(seen):
            looks.append(seen.status)
            client.notify({"id": talk.id, "status": "done", "result_url": "https://evil/x.mp4"})

        done = await client.wait_talk(talk.id, on_look=look)
        assert "evil" not in done.result_url
        assert looks[-1] == "done"


async def test_a_status_that_is_new_is_told_and_bounded(anyio_backend, service, client_of, caplog):
    service.behaviour.odd_status = "polishing"
    service.behaviour.finish_after = 1e6
    async with client_of(service) as client:
        talk = await made(client)
        service.advance(9e5)
        looks = []
        with pytest.raises(ServiceUnavailable, match="polishing") as caught:
            await client.wait_talk(talk.id, timeout=60, on_look=looks.append)
    assert caught.value.talk_id == talk.id
    assert {look.status for look in looks} == {"polishing"}
    assert "polishing" in caplog.text


@pytest.mark.parametrize("seen", [0, 1], ids=["never there", "there before"])
async def test_a_look_that_misses_a_talk_at_the_deadline(anyio_backend, service, client_of, seen):
    """One that was there is paid for: it is not given up for one bad look."""
    service.behaviour.finish_after = 1e6
    async with client_of(service, polling=Polling(first=5, growth=1, jitter=0)) as client:
        talk = await made(client)
        gone = Fault(status=404, body={"kind": "NotFoundError", "description": "not found"})
        service.fail("GET /talks/{id}", gone, times=9, after=seen)
        with pytest.raises(ServiceUnavailable if seen else ResultExpired) as caught:
            await client.wait_talk(talk.id, timeout=8)
    assert caught.value.talk_id == talk.id


async def test_a_talk_that_fails_says_why(anyio_backend, service, client_of):
    service.behaviour.outcome = "error"
    async with client_of(service) as client:
        talk = await made(client)
        with pytest.raises(TalkFailed, match="FaceError") as caught:
            await client.wait_talk(talk.id)
    assert (caught.value.kind, caught.value.talk_id) == ("FaceError", talk.id)


def test_importing_loads_no_http():
    code = (
        "import sys; from talkgen.generators.did import DIdClient, DIdGenerator; "
        "DIdClient('a:b'), DIdGenerator('a:b'); "
        "print([m for m in ('httpx', 'stamina', 'av', 'PIL', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
