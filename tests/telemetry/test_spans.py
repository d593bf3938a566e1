"""Spans of runs, stages, model calls and requests, as a host's SDK sees them."""

import json
import math
import threading

import numpy as np
import pytest

from talkgen import GenerateVideo, Image, LocalScheduler, Pipeline, Speech, run_sync
from talkgen.errors import InvalidImage, ModelUnavailable, RunCancelled, StageFailed, TalkgenError
from talkgen.generators.did import Clock, DIdGenerator
from talkgen.testing import FakeDId, FakeModel, Script
from talkgen.testing.fake_did import Fault

from ..scripted import PICTURE, Step, forever, pipeline, raising
from .conftest import until

SPEED = 400


async def test_a_whole_run(anyio_backend, sdk, portrait_path, speech_path):
    speech = Speech.open(speech_path)
    short = Speech(speech.samples[:, : speech.sample_rate // 2], speech.sample_rate)
    with sdk.traces.get_tracer("host").start_as_current_span("POST /videos"):
        result = await Pipeline().run(portrait_path, short)
    tree = sdk.tree()
    assert [name for name in tree if not name.startswith("...")] == [
        "POST /videos",
        ".talkgen.run",
        "..talkgen.stage detection",
        "..talkgen.stage background_removal",
        "..talkgen.stage video_generation",
    ]
    # Each call has its batch, which a worker's thread ran, below it.
    called = [name for name in tree if not name.startswith("....talkgen.load ")]
    calls = [index for index, name in enumerate(called) if name.startswith("...talkgen.model ")]
    assert len(calls) > 3
    for index in calls:
        assert called[index + 1] == "." + called[index].replace("model", "batch")
    assert "...talkgen.model selfie_segmentation" in tree
    assert len({span.context.trace_id for span in sdk.spans}) == 1

    (run,) = sdk.named("talkgen.run")
    assert run.attributes["talkgen.task.id"] == result.task_id
    assert run.attributes["talkgen.attempt"] == 1
    assert run.attributes["talkgen.outcome"] == "completed"
    assert run.attributes["talkgen.stages"] == (
        "detection",
        "background_removal",
        "video_generation",
    )
    detector, remover, generator = run.attributes["talkgen.backends"]
    assert detector.startswith("face_detection")
    assert remover.startswith("selfie_segmentation@")
    assert generator.startswith("local@")
    batch = sdk.named("talkgen.batch selfie_segmentation")[0]
    assert batch.attributes["talkgen.device"] == "cpu"
    assert batch.attributes["talkgen.batch.size"] == 1
    assert all(span.status.is_unset for span in sdk.spans)


async def test_a_run_without_a_loop_of_ones_own_is_below_its_callers_span(anyio_backend, sdk):
    with sdk.traces.get_tracer("host").start_as_current_span("job"):
        assert run_sync(PICTURE, pipeline=pipeline(Step())).success
    assert sdk.tree() == ["job", ".talkgen.run", "..talkgen.stage step"]


async def test_failed_runs(anyio_backend, sdk):
    own, foreign = TalkgenError("the lamp is off"), ValueError("https://x.example/?key=secret")
    stages = [Step(script=raising(own)), Step(script=raising(foreign))]
    async with pipeline(stages[0]) as first, pipeline(stages[1]) as second:
        for opened, kind in ((first, TalkgenError), (second, StageFailed)):
            with pytest.raises(kind):
                await opened.run(PICTURE)
        with pytest.raises(InvalidImage):
            await first.run(b"no picture")
    told = [
        (span.name, span.attributes["error.type"], span.status.description)
        for span in sdk.spans
        if not span.status.is_ok and not span.status.is_unset
    ]
    assert told[:4] == [
        ("talkgen.run", "TalkgenError", "the lamp is off"),
        ("talkgen.stage step", "TalkgenError", "the lamp is off"),
        ("talkgen.run", "StageFailed", None),
        ("talkgen.stage step", "ValueError", None),
    ]
    assert told[4][:2] == ("talkgen.run", "InvalidImage")
    assert "secret" not in "".join(span.to_json() for span in sdk.spans)
    assert not any(span.events for span in sdk.spans)


class Outage(TalkgenError):
    outage = True


async def test_other_outcomes(anyio_backend, sdk):
    waiting, failing = Step(script=forever), Step(script=raising(Outage("down")))
    async with pipeline(waiting) as first, pipeline(failing) as second, pipeline() as third:
        run = first.start(PICTURE)
        await waiting.entered.wait()
        run.cancel()
        with pytest.raises(RunCancelled):
            await run
        assert not (await second.run(PICTURE, task_id="task")).success
        failing.script = None
        recovery = await second.recover()
        assert (await recovery.runs[0]).success
        await third.run(PICTURE, task_id="again")
        await third.run(PICTURE, task_id="again")
    runs = [
        (span.attributes["talkgen.outcome"], span.attributes["talkgen.attempt"])
        for span in sdk.named("talkgen.run")
    ]
    assert runs == [
        ("cancelled", 1),
        ("deferred", 1),
        ("completed", 2),
        ("completed", 1),
        ("stored", 1),
    ]
    cancelled, deferred, _ = sdk.named("talkgen.stage step")
    assert cancelled.attributes["talkgen.cancelled"] is True
    assert cancelled.status.is_unset
    assert deferred.attributes["error.type"] == "Outage"
    assert all(span.status.is_unset for span in sdk.named("talkgen.run"))


async def test_a_batch_is_linked_to_all_its_callers(anyio_backend, sdk):
    opened = threading.Event()
    model = FakeModel("slow@1", device="cpu", max_batch=2, at_run=Script(opened))
    scheduler = LocalScheduler(["cpu"])
    stage = Step(script=lambda context: context.scheduler.run(model, None))

    def calls_that(do):
        return sum(getattr(model, do) for model in scheduler.stats().models)

    async with pipeline(stage, scheduler=scheduler) as busy:
        runs = [busy.start(PICTURE)]
        await until(lambda: calls_that("busy") == 1)  # those that come now wait for the next batch
        runs += [busy.start(PICTURE) for _ in range(2)]
        await until(lambda: calls_that("waiting") == 2)
        opened.set()
        for run in runs:
            await run
    await scheduler.aclose()
    calls = sdk.named("talkgen.model slow")
    first, second = sdk.named("talkgen.batch slow")
    assert first.attributes["talkgen.batch.size"] == 1
    assert not first.links
    assert second.attributes["talkgen.batch.size"] == 2
    assert second.parent.span_id == calls[1].context.span_id
    assert [link.context.span_id for link in second.links] == [calls[2].context.span_id]


async def test_a_load_is_below_the_call_that_needs_it(anyio_backend, sdk):
    model = FakeModel("slow@1", device="cpu")
    scheduler = LocalScheduler(["cpu"])
    stage = Step(script=lambda context: context.scheduler.run(model, None))
    async with pipeline(stage, scheduler=scheduler) as opened:
        for _ in range(2):
            await opened.run(PICTURE)
    await scheduler.aclose()
    first, _ = sdk.named("talkgen.model slow")
    (load,) = sdk.named("talkgen.load slow")  # once: the second run finds it warm
    assert load.parent.span_id == first.context.span_id
    assert load.attributes == {"talkgen.model": "slow@1", "talkgen.device": "cpu"}
    assert first.start_time <= load.start_time <= load.end_time <= first.end_time


async def test_a_load_that_fails(anyio_backend, sdk):
    error = ModelUnavailable("no weights")
    model = FakeModel("absent", device="cpu", at_load=Script(error))
    stage = Step(script=lambda context: context.scheduler.run(model, None))
    scheduler = LocalScheduler(["cpu"])
    with pytest.raises(ModelUnavailable):
        await pipeline(stage, scheduler=scheduler).run(PICTURE)
    await scheduler.aclose()
    (load,) = sdk.named("talkgen.load absent")
    assert load.attributes["error.type"] == "ModelUnavailable"
    assert load.status.description == "no weights"


async def test_a_model_that_fails(anyio_backend, sdk):
    model = FakeModel("bad", device="cpu", at_run=Script(ValueError("its own words")))
    stage = Step(script=lambda context: context.scheduler.run(model, None))
    scheduler = LocalScheduler(["cpu"])
    with pytest.raises(StageFailed):
        await pipeline(stage, scheduler=scheduler).run(PICTURE)
    await scheduler.aclose()
    for span in (*sdk.named("talkgen.model bad"), *sdk.named("talkgen.batch bad")):
        assert span.attributes["error.type"] == "ValueError"
        assert not span.status.is_ok
        assert span.status.description is None


async def test_requests_to_d_id(anyio_backend, sdk):
    time = np.arange(16_000) / 16_000
    speech = Speech(0.5 * np.sin(2 * math.pi * 220 * time, dtype=np.float32)[None], 16_000)
    face = Image(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    with FakeDId(speed=SPEED) as service:
        service.fail("POST /images", Fault(status=503), times=2)
        generator = DIdGenerator(
            service.api_key, base_url=service.base_url, clock=Clock(SPEED), check_face=False
        )
        await pipeline(GenerateVideo(generator)).run(face, speech)
        (talk_id,) = service.ledger.talks
        api, results = service.base_url, service._results.base_url
    requests = [span for span in sdk.spans if span.kind.name == "CLIENT"]
    names = [span.name for span in requests]
    looks = names.count("GET /talks/{id}")
    assert looks >= 1
    assert names == [
        *["POST /images"] * 3,
        "POST /audios",
        "POST /talks",
        *["GET /talks/{id}"] * looks,
        "GET",
    ]
    (stage,) = sdk.named("talkgen.stage video_generation")
    assert {span.parent.span_id for span in requests} == {stage.context.span_id}
    refused = dict(requests[0].attributes)
    assert refused == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": int(api.rpartition(":")[2]),
        "url.template": "/images",
        "http.response.status_code": 503,
        "error.type": "ServiceUnavailable",
    }
    resends = [span.attributes.get("http.request.resend_count") for span in requests]
    assert resends == [None, 1, 2, *[None] * (len(requests) - 3)]
    last = dict(requests[-1].attributes)
    assert last["server.port"] == int(results.rpartition(":")[2])
    assert last["http.response.status_code"] == 200
    assert "url.template" not in last

    everything = json.dumps([span.to_json() for span in sdk.spans])
    for secret in (service.api_key, "Signature", "AWSAccessKeyId", talk_id, "Basic"):
        assert secret not in everything
    assert max(len(span.to_json()) for span in sdk.spans) < 3000  # no picture, no sound
