"""The generator in a pipeline."""

import copy
import io
import logging
import pickle
from itertools import pairwise
from pathlib import Path

import anyio
import attrs
import numpy as np
import PIL.Image
import pytest

from talkgen import DetectPersons, GenerateVideo, Image, MemoryStorage, Pipeline, Settings, Speech
from talkgen import Text as Words
from talkgen.choice import choose_backends
from talkgen.draft import TaskState
from talkgen.errors import (
    BudgetExceeded,
    InsufficientCredits,
    InsufficientStorage,
    InvalidMedia,
    NoFaceInPortrait,
    PermissionDenied,
    RunCancelled,
    ServiceUnavailable,
    TalkFailed,
    TalkgenError,
    Unauthorized,
)
from talkgen.generators.did import DIdClient, DIdGenerator, Expression, job
from talkgen.generators.local import LocalGenerator
from talkgen.storage.scratch import Scratch
from talkgen.testing.fake_did import Fault

from .conftest import CLOCK, face, tone

POST = "POST /talks"


def sent(service, request=POST):
    return [each.sent for each in service.exchanges if each.request == request]


# --- what is asked for -------------------------------------------------------------------------


async def test_the_usual_request(anyio_backend, bench):
    await bench.run()
    (request,) = sent(bench.service)
    (operation,) = await bench.operations()
    assert request["config"] == {"stitch": True, "result_format": "mp4"}
    assert request["user_data"] == f"talkgen:{operation.token}"
    assert request["name"] == f"talkgen {operation.token[:8]}"
    assert request["script"]["type"] == "audio"
    assert request["source_url"].startswith("s3://")
    assert "webhook" not in request
    assert bench.service.ledger.requests["GET /talks"] == 0  # an answer that came needs no search


async def test_every_option_reaches_the_request(anyio_backend, bench):
    generator = bench.generator(
        stitch=False,
        fluent=True,
        pad_audio=2,
        result_format="mov",
        driver_expressions=[Expression("happy", 10, 0.5)],
        name="greeting",
        webhook="https://example.com/hook/secret",
    )
    result = await bench.run(generator)
    (request,) = sent(bench.service)
    assert request["config"] == {
        "stitch": False,
        "fluent": True,
        "pad_audio": 2,
        "result_format": "mov",
        "driver_expressions": {
            "expressions": [{"expression": "happy", "start_frame": 10, "intensity": 0.5}]
        },
    }
    assert request["webhook"] == "https://example.com/hook/secret"
    assert request["name"].startswith("greeting ")
    assert result.video.file.name.endswith("_final.mov")


async def test_silence_that_was_asked_for_makes_no_video_too_long(anyio_backend, bench):
    result = await bench.run(bench.generator(pad_audio=40))
    assert result.video.duration == pytest.approx(41, abs=0.5)
    assert result.metadata["d_id"]["credits"] == bench.service.ledger.charged == 3


async def test_a_text_is_spoken(anyio_backend, bench):
    result = await bench.run(speech=Words("Hello there", voice="en-US-JennyNeural"))
    assert result.success
    (request,) = sent(bench.service)
    assert request["script"] == {
        "type": "text",
        "input": "Hello there",
        "provider": {"type": "microsoft", "voice_id": "en-US-JennyNeural"},
    }
    assert bench.service.ledger.requests["POST /audios"] == 0


async def test_what_leaves_the_machine(anyio_backend, bench):
    """A JPEG on the background, without metadata; the recording as it is."""
    pixels = np.zeros((2500, 200, 4), np.uint8)
    pixels[:, :100] = (0, 0, 0, 255)
    speech = tone()
    await bench.pipeline(bench.generator(background="teal")).run(Image(pixels), speech)
    (image,) = bench.service._state.images.values()
    with PIL.Image.open(io.BytesIO(image.data)) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (164, 2048)
        assert not picture.getexif()
        left, right = picture.getpixel((20, 1000)), picture.getpixel((140, 1000))
    assert np.abs(np.array(left) - 0).max() < 8
    assert np.abs(np.array(right) - (0, 128, 128)).max() < 8
    (audio,) = bench.service._state.audios.values()
    assert audio.data == speech.original().data
    assert image.url.endswith("/portrait.jpg")


async def test_nothing_is_kept_there_when_asked(anyio_backend, bench):
    assert (await bench.run(bench.generator(keep_remote=False))).success
    assert there(bench.service) == ([], [], [])


def there(service):
    """What the service keeps."""
    state = service._state
    return list(state.images), list(state.audios), list(state.there())


@pytest.mark.parametrize(
    "prepare",
    [
        lambda service: service.fail("POST /audios", Fault(status=451), times=9),
        lambda service: service.fail("POST /talks", Fault(status=402), times=9),
        lambda service: setattr(service.behaviour, "faces", 0),
        lambda service: setattr(service.behaviour, "outcome", "rejected"),
    ],
    ids=["one upload is refused", "the talk is", "there is no face", "the talk fails"],
)
async def test_nothing_is_kept_there_either_of_what_came_to_nothing(anyio_backend, bench, prepare):
    prepare(bench.service)
    with pytest.raises(TalkgenError):
        await bench.run(bench.generator(keep_remote=False, detect_faces=True))
    assert bench.service.ledger.requests["POST /images"] == 1
    assert there(bench.service) == ([], [], [])


async def test_nothing_is_kept_there_of_what_is_cancelled_before_it_is_paid_for(
    anyio_backend, bench
):
    bench.service.fail("POST /audios", Fault(delay=1e4))
    async with bench.pipeline(bench.generator(keep_remote=False)) as pipeline:
        run = pipeline.start(*bench.inputs(), task_id="task")
        with anyio.fail_after(20):
            while not bench.service.ledger.requests["POST /audios"]:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        run.cancel()
        with pytest.raises(RunCancelled):
            await run
    assert not bench.service._state.images
    assert not bench.service.ledger.requests["POST /talks"]


async def test_failing_to_tidy_up_harms_nothing(anyio_backend, bench):
    for request in ("DELETE /talks/{id}", "DELETE /images/{id}", "DELETE /audios/{id}"):
        bench.service.fail(request, Fault(status=400), times=9)
    assert (await bench.run(bench.generator(keep_remote=False))).success


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
async def test_a_disk_that_fills_up_amid_the_download_is_told_as_that(
    anyio_backend, bench, monkeypatch
):
    make, alerts = Scratch._make, []

    def full(self, path):
        make(self, path)
        (path / "video.mp4").symlink_to("/dev/full")

    with monkeypatch.context() as patch:
        patch.setattr(Scratch, "_make", full)
        result = await bench.run(on_alert=alerts.append)
    assert result.status is TaskState.DEFERRED
    assert [type(error) for error in alerts] == [InsufficientStorage]
    assert (await bench.run()).success
    assert len(bench.service.ledger.talks) == 1


# --- refused before anything is spent ----------------------------------------------------------


def recording(seconds, peak=0.5):
    return Speech(np.full((1, round(seconds * 8000)), peak, np.float32), 8000)


@pytest.mark.parametrize(
    ("speech", "message"),
    [
        (recording(301), "301.0 s long"),
        (recording(1, peak=0), "silent"),
        (Words("Hi"), "2 characters"),
        (Words("x" * 10_001), "10001 characters"),
    ],
    ids=["long", "silent", "short text", "long text"],
)
async def test_what_d_id_would_refuse_is_refused_before_any_stage(
    anyio_backend, bench, speech, message
):
    with pytest.raises(InvalidMedia, match=message) as caught:
        await bench.run(speech=speech)
    assert caught.value.hint
    assert not bench.service.ledger.requests


async def test_a_small_portrait_is_refused(anyio_backend, bench):
    with pytest.raises(InvalidMedia, match="120x300"):
        await bench.pipeline().run(np.zeros((300, 120, 3), np.uint8), tone())
    assert not bench.service.ledger.requests


async def test_a_portrait_without_a_face_is_refused(anyio_backend, bench):
    with pytest.raises(NoFaceInPortrait):
        await bench.run(bench.generator(check_face=True))
    assert not bench.service.ledger.requests


async def test_d_ids_own_look_for_a_face_on_request(anyio_backend, bench):
    bench.service.behaviour.faces = 0
    with pytest.raises(NoFaceInPortrait, match="D-ID"):
        await bench.run(bench.generator(detect_faces=True))
    assert bench.service.ledger.requests[POST] == 0
    bench.service.behaviour.faces = 1
    assert (await bench.run(bench.generator(detect_faces=True))).success


async def test_a_generator_without_texts_refuses_before_any_work(anyio_backend):
    pipeline = Pipeline([DetectPersons(), GenerateVideo(LocalGenerator())], storage=MemoryStorage())
    with pytest.raises(Exception, match="cannot speak a text"):
        await pipeline.run(face().pixels, Words("Hello"))


async def test_without_a_key_it_says_so(anyio_backend, bench):
    with pytest.raises(Unauthorized, match="no key") as caught:
        await bench.run(bench.generator(api_key=None))
    assert "D_ID_API_KEY" in caught.value.hint


# --- money -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "pad", "cost"), [(0.1, 0, 1), (15, 0, 1), (15.1, 0, 2), (14, 2, 2), (300, 0, 20)]
)
def test_cost_in_blocks_of_15_seconds(seconds, pad, cost):
    assert DIdGenerator("a:b", pad_audio=pad).cost(recording(seconds)) == cost


def test_cost_of_a_text_is_an_estimate():
    assert DIdGenerator("a:b").cost(Words("x" * 188)) == 2


async def test_max_credits_of_a_run(anyio_backend, bench):
    with pytest.raises(BudgetExceeded, match=r"costs 2 credits, and max_credits is 1\."):
        await bench.run(bench.generator(max_credits=1), speech=recording(16))
    assert not bench.service.ledger.requests


async def test_a_text_costs_what_it_took_to_speak_it(anyio_backend, bench):
    """The estimate is not what is told, nor what the budget keeps."""
    text = Words("x" * 200)  # 16 s by the estimate, 14.3 s of the stand-in's voice
    generator = bench.generator(budget=2)
    result = await bench.pipeline(generator).run(face(), text)
    assert result.metadata["d_id"]["credits"] == bench.service.ledger.charged == 1
    assert (await bench.pipeline(generator).run(face(), tone())).success
    with pytest.raises(BudgetExceeded):
        await bench.pipeline(generator).run(face(), tone())


async def test_a_later_attempt_gives_back_to_the_budget(anyio_backend, bench):
    bench.service.behaviour.outcome = "error"
    generator = bench.generator(budget=1, timeout=400.0)
    bench.service.behaviour.finish_after = 1e6
    assert (await bench.run(generator)).status is TaskState.DEFERRED
    with pytest.raises(BudgetExceeded):
        await bench.run(generator, task_id="other")
    bench.service.advance(1e6)
    with pytest.raises(TalkFailed):
        await bench.run(generator)
    bench.service.behaviour.outcome, bench.service.behaviour.finish_after = "done", 12.0
    assert (await bench.run(generator, task_id="other")).success


@pytest.mark.parametrize("field", ["timeout", "max_credits", "budget"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_limit_that_limits_nothing_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        DIdGenerator("a:b", **{field: value})


async def test_a_402_of_another_run_ends_one_that_is_between_two_requests(
    anyio_backend, bench, monkeypatch
):
    prepared = job.Job._prepared

    async def meanwhile(self):
        bench.service.fail("POST /images", Fault(status=402))
        with pytest.raises(InsufficientCredits):
            await self._client.upload_image(face().encode("jpeg"))
        return await prepared(self)

    monkeypatch.setattr(job.Job, "_prepared", meanwhile)
    with pytest.raises(InsufficientCredits, match="another run"):
        await bench.run()
    assert bench.service.ledger.requests == {"POST /images": 1}
    monkeypatch.undo()
    assert (await bench.run()).success  # the next run asks again


async def test_budget_of_a_pipeline(anyio_backend, bench):
    generator = bench.generator(budget=2)
    pipeline = bench.pipeline(generator)
    bench.service.fail(POST, Fault(status=402, body={"kind": "InsufficientCreditsError"}))
    with pytest.raises(InsufficientCredits):
        await pipeline.run(face(), tone())
    for _ in range(2):  # what was refused cost nothing
        assert (await pipeline.run(face(), tone())).success
    with pytest.raises(BudgetExceeded, match="costs 1 credits; 2 of the budget of 2"):
        await pipeline.run(face(), tone())
    assert len(bench.service.ledger.talks) == 2


async def test_a_failed_talk_is_given_back_to_the_budget(anyio_backend, bench):
    generator = bench.generator(budget=1)
    bench.service.behaviour.outcome = "error"
    for _ in range(3):
        with pytest.raises(Exception, match="FaceError"):
            await bench.pipeline(generator).run(face(), tone())
    bench.service.behaviour.outcome = "done"
    assert (await bench.pipeline(generator).run(face(), tone())).success


async def test_a_plan_without_stitching_is_told_what_to_do(anyio_backend, bench):
    bench.service.behaviour.denied = frozenset({"stitch"})
    with pytest.raises(PermissionDenied) as caught:
        await bench.run()
    assert caught.value.feature == "stitch"
    assert "stitch=False" in caught.value.hint
    assert (await bench.run(bench.generator(stitch=False), task_id="other")).success


# --- events ------------------------------------------------------------------------------------


async def test_events(anyio_backend, bench):
    async with bench.pipeline() as pipeline:
        run = pipeline.start(face(), tone())
        told = [event async for event in run]
        assert (await run).stages_completed == ("upload_complete", "did_complete", "completed")
    steps = [(event.stage, event.progress) for event in told if event.stage.startswith("did")]
    assert steps[0] == ("did_upload", 70)
    assert steps[1] == ("did_processing", 75)
    assert steps[-1] == ("did_complete", 80)
    processing = next(event for event in told if event.stage == "did_processing")
    assert processing.metadata["expected"] == pytest.approx(16)


async def test_processing_is_told_of_while_d_id_is_silent(anyio_backend, bench, monkeypatch):
    """Looks never come back; the events do not wait for them."""
    monkeypatch.setattr(job, "TICK", 0.02)
    monkeypatch.setattr("talkgen.context.THINNING", 0.0)
    bench.service.fail("GET /talks/{id}", Fault(delay=0.5 * 400))
    async with bench.pipeline() as pipeline:
        run = pipeline.start(face(), tone())
        told = [event async for event in run if event.stage == "did_processing"]
    assert len(told) >= 10
    assert all(0 <= later.progress - event.progress <= 5 for event, later in pairwise(told))
    assert told[-1].progress == 79
    assert told[-1].metadata["elapsed"] > told[0].metadata["elapsed"]


def test_ticks_are_frequent_enough():
    assert job.TICK <= 4


# --- settings, keys, sharing -------------------------------------------------------------------


def test_settings_with_a_key_take_d_id():
    with_key = Settings.from_env({"D_ID_API_KEY": "a:b", "D_ID_TIMEOUT_SECONDS": "7"})
    assert isinstance(choose_backends(with_key).backends.generator, DIdGenerator)
    assert isinstance(choose_backends(Settings()).backends.generator, LocalGenerator)
    assert with_key.d_id_timeout_seconds == 7
    with pytest.raises(ValueError, match="D_ID_TIMEOUT_SECONDS"):
        Settings.from_env({"D_ID_TIMEOUT_SECONDS": "-1"})


async def test_the_key_and_the_timeout_of_the_settings_are_used(anyio_backend, bench):
    settings = Settings(d_id_api_key=bench.service.api_key, d_id_timeout_seconds=40)
    bench.service.behaviour.finish_after = 1e6
    generator = bench.generator(api_key=None, timeout=None)
    result = await bench.run(generator, settings=settings)
    assert result.status is TaskState.DEFERRED
    with pytest.raises(Exception, match="not made yet"):
        _ = result.video
    bench.service.advance(1e6)
    assert (await bench.run(generator, settings=settings)).success


async def test_pipelines_of_different_settings_share_no_account(anyio_backend, bench):
    """The generator has no key of its own: each pipeline pays by its own."""
    generator = bench.generator(api_key=None)
    bench.service.behaviour.finish_after = 1e5
    theirs = Settings(d_id_api_key=bench.service.api_key)
    async with bench.pipeline(generator, settings=theirs) as pipeline:
        run = pipeline.start(face(), tone())
        with anyio.fail_after(20):
            while not bench.service.ledger.talks:  # noqa: ASYNC110 - another thread's work
                await anyio.sleep(0.005)
        with pytest.raises(Unauthorized):
            await bench.run(generator, settings=Settings(d_id_api_key="other:account"))
        bench.service.advance(1e5)
        assert (await run).success
    assert len(bench.service.ledger.talks) == 1


async def test_the_key_is_in_no_event_journal_result_or_pickle(anyio_backend, bench, caplog):
    caplog.set_level(logging.DEBUG)
    secret = bench.service.api_key.partition(":")[2]
    generator = bench.generator()
    settings = Settings(d_id_api_key=bench.service.api_key)
    bench.service.fail(POST, Fault(status=504, body=f"Basic {bench.service.api_key}", work=True))
    async with bench.pipeline(generator, settings=settings) as pipeline:
        run = pipeline.start(face(), tone(), task_id="task")
        told = [event.to_dict() async for event in run]
        result = await run
    record = await bench.journal.get("task")
    shown = [told, record, result.to_dict(), caplog.text, generator, generator.key, settings]
    shown += [pickle.dumps(each) for each in (generator, settings, result.video, record.spec)]
    assert not [each for each in shown if secret in repr(each)]
    signed = [talk.link for talk in bench.service._state.talks.values()]
    assert signed[0].partition("Signature=")[2] not in repr(record) + caplog.text + repr(told)


def test_a_pickled_generator_has_lost_its_key_and_nothing_else():
    generator = DIdGenerator("a:b", background="teal", budget=3)
    again = pickle.loads(pickle.dumps(generator))
    assert not again.api_key
    assert (again.background, again.budget, again.key) == ("teal", 3, generator.key)
    assert copy.deepcopy(generator).api_key == "a:b"
    assert attrs.evolve(generator, stitch=False).api_key == "a:b"


def test_the_key_of_a_generator_is_its_parameters():
    usual = DIdGenerator("a:b")
    assert usual.key == DIdGenerator("c:d", name="other", budget=3).key
    assert usual.key != DIdGenerator("a:b", background="teal").key
    assert usual.key != DIdGenerator("a:b", fluent=True).key


def test_what_is_no_key_is_refused_at_once():
    with pytest.raises(ValueError, match="API key"):
        DIdGenerator("my key")
    with pytest.raises(ValueError, match="API key"):
        choose_backends(Settings(d_id_api_key="my key"))


@pytest.mark.parametrize(
    "options",
    [
        {"background": " "},
        {"background": "no colour"},
        {"background": "#ffffff80"},
        {"pad_audio": 61},
        {"result_format": "gif"},
        {"base_url": "api.d-id.com"},
        {"base_url": "https://"},
        {"base_url": "https://[::1"},
        {"base_url": "https://api.d-id.com "},
        {"base_url": "https://api.d-id.com\n"},
    ],
    ids=str,
)
def test_bad_options_are_refused_at_once(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DIdGenerator("a:b", **options)


async def test_runs_share_one_client_and_leave_none_open(anyio_backend, bench):
    generator = bench.generator()
    async with bench.pipeline(generator) as pipeline:
        runs = [pipeline.start(face(), tone()) for _ in range(20)]
        results = [await run for run in runs]
        assert not generator.notify({"id": "tlk_1", "status": "done"})
    assert all(result.success for result in results)
    assert bench.service.ledger.connections <= 14
    assert generator._clients._clients == {}


async def test_a_client_of_the_callers_stays_open(anyio_backend, bench):
    base_url = bench.service.base_url
    async with DIdClient(bench.service.api_key, base_url=base_url, clock=CLOCK) as client:
        assert (await bench.run(bench.generator(client=client))).success
        assert (await client.credits()).remaining == 999
        assert not bench.generator(client=client).notify(b"{}")


async def test_out_of_reach_is_deferred_or_fails_as_the_pipeline_says(anyio_backend, bench):
    generator = bench.generator(base_url="http://127.0.0.1:9")
    assert (await bench.run(generator)).status is TaskState.DEFERRED
    with pytest.raises(ServiceUnavailable) as caught:
        await bench.run(generator, task_id="other", defer=())
    assert caught.value.outage
    assert not caught.value.sent


async def test_the_whole_job(anyio_backend, bench, portrait_path, speech_path):
    generator = bench.generator(check_face=True)
    pipeline = Pipeline([DetectPersons(), GenerateVideo(generator)], storage=MemoryStorage())
    result = await pipeline.run(portrait_path, speech_path)
    assert result.success
    assert result.video.duration == pytest.approx(10, abs=0.5)
    assert result.metadata["d_id"]["credits"] == 1
    assert set(result.metadata["d_id"]["timings"]) == {
        "upload", "asking", "processing", "download",
    }  # fmt: skip
    assert result.metadata["person_detection"]["total_persons"] == 1


@pytest.mark.parametrize("requests", range(6))
async def test_cancelled_after_any_request_the_next_attempt_ends_it(anyio_backend, bench, requests):
    async with bench.pipeline() as pipeline:
        run = pipeline.start(face(), tone(), task_id="task")
        with anyio.fail_after(30):
            while sum(bench.service.ledger.requests.values()) < requests:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        run.cancel()
        last = [event async for event in run][-1]
    assert last.event_type in {"cancelled", "complete"}
    paid = bool(bench.service.ledger.talks)
    assert last.event_type == "complete" or last.recoverable >= paid
    assert (await bench.run()).success
    assert len(bench.service.ledger.talks) == 1
