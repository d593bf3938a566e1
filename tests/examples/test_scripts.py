"""The examples that are scripts."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from talkgen import Image, LocalScheduler, MemoryStorage, Pipeline, Speech, codecs
from talkgen.generators.local import LocalGenerator
from talkgen.testing import check_stage

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples"


# --- batch -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, portrait_path, speech_path):
    """Three pairs, a photo of nobody, and a photo without a recording."""
    speech = Speech.open(speech_path)
    short = Speech(speech.samples[:, : speech.sample_rate], speech.sample_rate).original().data
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("anna", "Bérénice B.", "carl"):
        (folder / f"{name}.png").write_bytes(portrait_path.read_bytes())
        (folder / f"{name}.wav").write_bytes(short)
    (folder / "nobody.png").write_bytes(Image(np.full((200, 200, 3), 128, np.uint8)).encode("png"))
    (folder / "nobody.wav").write_bytes(short)
    (folder / "silent.png").write_bytes(portrait_path.read_bytes())
    return folder


def batch(folder, output):
    environment = {**os.environ, "TALKGEN_REMOVER": "embedded", "TALKGEN_DETECTOR": "embedded"}
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / "batch" / "batch.py"), str(folder), str(output)],
        env={**environment, "PYTHONPATH": str(ROOT / "src"), "STORAGE_MIN_FREE_SPACE_GB": "0.01"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_batch_that_was_killed_goes_on(folder, tmp_path, how):
    output = tmp_path / "out"
    first = batch(folder, output)
    begun = output / ".talkgen" / ".staging"
    deadline = time.monotonic() + 60
    while not (begun.is_dir() and any(begun.iterdir())):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(how)
    first.communicate()
    assert first.returncode == -how
    assert any(begun.iterdir()), "what was begun was discarded"

    second = batch(folder, output)
    _, complaints = second.communicate(timeout=100)
    assert second.returncode == 1, complaints
    assert "nobody.png: Nobody was found" in complaints
    videos = sorted(path.name for path in output.glob("*.mp4"))
    assert videos == ["Bérénice B..mp4", "anna.mp4", "carl.mp4"]
    for name in videos:
        assert codecs.first_frame((output / name).read_bytes()).ndim == 3

    (folder / "nobody.png").unlink()
    third = batch(folder, output)
    told, complaints = third.communicate(timeout=60)
    assert (third.returncode, told) == (0, ""), complaints


def test_a_batch_names_what_it_cannot_use_and_goes_on(folder, tmp_path):
    short = (folder / "carl.wav").read_bytes()
    (folder / "anna.jpg").write_bytes((folder / "anna.png").read_bytes())
    (folder / "carl.wav").rename(folder / "carl.WAV")
    (folder / "folder.png").mkdir()
    (folder / "empty.png").touch()
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for name in ("folder", "empty", "gone"):
        (folder / f"{name}.wav").write_bytes(short)
    (folder / "nobody.png").unlink()
    done = batch(folder, tmp_path / "out")
    told, complaints = done.communicate(timeout=100)
    assert done.returncode == 1
    assert len(told.splitlines()) == 2
    assert {path.stem for path in (tmp_path / "out").glob("*.mp4")} == {"Bérénice B.", "carl"}
    assert "anna: more than one photo" in complaints
    for name in ("folder.png: ", "empty.png: ", "gone.png: "):
        assert name in complaints
    assert "Traceback" not in complaints


@pytest.mark.parametrize("script", ["batch/batch.py", "custom_stage/grade.py"])
def test_a_script_says_what_it_wants(script):
    called = subprocess.run(
        [sys.executable, str(EXAMPLES / script), "nowhere"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert called.returncode == 1
    assert f"python {Path(script).name} " in called.stderr
    assert "Traceback" not in called.stderr


# --- a stage of one's own ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def grade():
    return runpy.run_path(str(EXAMPLES / "custom_stage" / "grade.py"))


async def test_the_stage_changes_colours_and_keeps_the_edges(grade, anyio_backend):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 200, np.arange(4) * 80
    stage = grade["Grade"](saturation=0.0, warmth=0.0)
    result = await Pipeline([stage], storage=MemoryStorage()).run(pixels)
    graded = result.draft.portrait.pixels
    assert (graded[..., 3] == pixels[..., 3]).all()
    assert (graded[..., :3] == round(200 * 0.2126)).all()
    assert "grading_complete" in result.stages_completed


async def test_the_stage_keeps_the_contract(grade, anyio_backend):
    await check_stage(grade["Grade"](), np.full((8, 8, 4), 128, np.uint8))


async def test_the_stage_runs_among_the_others(grade, anyio_backend, portrait_path, speech_path):
    speech = Speech.open(speech_path)
    short = Speech(speech.samples[:, : speech.sample_rate // 2], speech.sample_rate)
    *before, last = grade["stages"]()
    stages = [*before, type(last)(LocalGenerator(size=96))]
    scheduler = LocalScheduler(["cpu"])
    pipeline = Pipeline(stages, storage=MemoryStorage(), scheduler=scheduler)
    result = await pipeline.run(portrait_path, short)
    assert {"background_complete", "grading_complete"} <= set(result.stages_completed)
    corner = codecs.first_frame(await result.video.aread())[2, 2].astype(int)
    assert corner[0] - corner[2] > 0x20 - 0x3C, "warmer than the background was"
    await scheduler.aclose()


# --- load --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_locust_visits_the_web_example(serve):
    with serve(generator=LocalGenerator(size=96)) as site:
        visits = subprocess.run(
            [
                *(sys.executable, "-m", "locust", "--headless", "--json", "--loglevel", "ERROR"),
                *("--locustfile", str(EXAMPLES / "web" / "locustfile.py")),
                *("--host", str(site.http.base_url)),
                *(
                    "--users",
                    "5",
                    "--spawn-rate",
                    "5",
                    "--run-time",
                    "20s",
                    "--stop-timeout",
                    "30s",
                ),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
    assert visits.returncode == 0, visits.stderr + visits.stdout
    seen = {one["name"]: one for one in json.loads(visits.stdout)}
    assert seen["/api/pipeline/generate"]["num_requests"] > 0
    assert seen["/api/pipeline/video/[id]"]["num_requests"] > 0
    assert sum(one["num_failures"] for one in seen.values()) == 0


@pytest.mark.slow
def test_all_requests_of_the_load_benchmark_succeed():
    load = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "load.py"), "20"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert load.returncode == 0, load.stdout + load.stderr
    assert re.search(r"succeeded +20 of 20", load.stdout)
