"""The whole job on the embedded default, as a user runs it."""

import av
import pytest

import talkgen
from talkgen import LocalStorage, Pipeline, Speech
from talkgen.generators.local import LocalGenerator
from talkgen.stages.detection import DetectPersons
from talkgen.stages.generation import GenerateVideo

pytestmark = pytest.mark.integration


@pytest.fixture
def short(speech_path):
    speech = Speech.open(speech_path)
    return Speech(speech.samples[:, : speech.sample_rate], speech.sample_rate)


async def test_bare_pipeline_makes_a_video_that_outlives_it(
    anyio_backend, portrait_path, short, tmp_path
):
    result = await Pipeline().run(portrait_path, short)
    made = await result.video.asave(tmp_path / "made.mp4")
    with av.open(str(made)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 25
    assert result.video.duration == pytest.approx(1.0)
    assert result.stages_completed == (
        "upload_complete",
        "detection_complete",
        "background_removal_complete",
        "render_complete",
        "completed",
    )


async def test_percentages_and_files(anyio_backend, portrait_path, short, tmp_path):
    storage = LocalStorage(tmp_path)
    async with Pipeline(storage=storage) as pipeline:
        run = pipeline.start(portrait_path, short, task_id="task")
        reached = {event.stage: event.progress async for event in run}
        await run
    promised = {
        "initialized": 0,
        "upload_complete": 20,
        "detection_running": 25,
        "detection_complete": 40,
        "background_removal_running": 50,
        "background_removal_complete": 60,
        "render_complete": 80,
        "finalizing": 90,
        "completed": 100,
    }
    assert reached | promised == reached
    names = {info.file.name async for info in storage.list(task_id="task")}
    assert {
        "task_original.png",
        "task_audio.wav",
        "task_cropped.png",
        "task_transparent.png",
        "task_mask.png",
        "task_final.mp4",
    } <= names
    original = (tmp_path / "uploads" / "task_original.png").read_bytes()
    assert original == portrait_path.read_bytes()


async def test_a_text_is_refused_before_any_work(anyio_backend, portrait_path):
    async with Pipeline() as pipeline:
        run = pipeline.start(portrait_path, talkgen.Text("Hello"))
        stages = [event.stage async for event in run]
        with pytest.raises(talkgen.errors.TalkgenError, match="cannot speak a text"):
            await run
    assert "detection_running" not in stages


async def test_any_mixture_of_stages_works(anyio_backend, portrait_path, short):
    stages = [
        DetectPersons(framing="image"),
        GenerateVideo(LocalGenerator(size=96, fps=30)),
    ]
    result = await Pipeline(stages).run(portrait_path, short)
    assert (result.video.size, result.video.fps) == ((96, 96), 30)


def test_run_sync(portrait_path, short):
    pipeline = Pipeline([DetectPersons()])
    assert len(talkgen.run_sync(portrait_path, pipeline=pipeline).draft.persons) == 1


async def test_run_sync_inside_a_loop(anyio_backend, portrait_path):
    assert talkgen.run_sync(portrait_path, pipeline=Pipeline([DetectPersons()])).success


async def test_parallel_runs_do_not_meet(anyio_backend, portrait_path, short):
    quiet = Speech(short.samples * 0, short.sample_rate)
    # At some smaller sizes libx264 itself does not give the same bytes each time; see the docs.
    stages = [DetectPersons(), GenerateVideo(LocalGenerator(size=128))]
    async with Pipeline(stages) as pipeline:
        runs = [pipeline.start(portrait_path, speech) for speech in (short, quiet, short, quiet)]
        videos = [await (await run).video.aread() for run in runs]
    assert videos[0] == videos[2]
    assert videos[1] == videos[3]
    assert videos[0] != videos[1]
