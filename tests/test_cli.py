"""The command line: exit codes, one line and a hint, JSON on standard output."""

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
from rich.console import Console

from talkgen import Settings, choice, doctor
from talkgen.__main__ import main
from talkgen.commands import run as run_command
from talkgen.generators.did import Clock, DIdGenerator
from talkgen.testing import FakeDId
from talkgen.testing.fake_did import Fault


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "talkgen", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.e2e
def test_run_makes_a_video_and_says_where(portrait_path, speech_path, tmp_path):
    made = tmp_path / "a b.mp4"
    done = run("run", portrait_path, speech_path, "-o", made, "--size", 128)
    assert (done.returncode, done.stdout) == (0, f"{made}\n"), done.stderr
    assert "Using FaceDetector, SelfieRemover, LocalGenerator" in done.stderr
    assert "100% Completed" in done.stderr
    with av.open(str(made)) as container:
        assert container.streams.video[0].codec_context.width == 128
        assert container.streams.audio[0].codec_context.name == "aac"
        assert container.duration / 1e6 == pytest.approx(10, abs=0.05)


@pytest.mark.e2e
@pytest.mark.parametrize("background", ["blur", "teal", "file"])
def test_json_and_backgrounds(portrait_path, speech_path, tmp_path, capsys, background):
    behind = portrait_path if background == "file" else background
    made = tmp_path / "made.mp4"
    arguments = ["run", portrait_path, speech_path, "-o", made, "--size", 64, "--json"]
    code = main([*map(str, arguments), "--background", str(behind), "--seed", "3"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    assert report["success"] is True
    assert report["metadata"]["person_detection"]["total_persons"] == 1
    assert report["stages_completed"][-1] == "completed"
    assert made.stat().st_size > 0
    assert report["video_url"] == made.as_uri()


@pytest.mark.e2e
def test_run_keeps_its_task_in_a_folder(portrait_path, speech_path, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("STORAGE_MIN_FREE_SPACE_GB", "0.001")
    made, store = tmp_path / "made.mp4", tmp_path / "store"
    arguments = ["run", portrait_path, speech_path, "-o", made, "--size", 64, "--storage", store]
    assert main([*map(str, arguments), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["video_url"].startswith(store.as_uri())
    assert main(["tasks", "--storage", str(store), "--json"]) == 0
    (task,) = json.loads(capsys.readouterr().out)
    assert (task["task_id"], task["state"]) == (report["task_id"], "completed")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--person", "7"], 2, "There is no person #7"),
        (["--person", "0"], 2, "--person must be 1 or more"),
        (["--background", "mauvish"], 2, "mauvish"),
        (["--background", "beach.jpg"], 2, "no file that is there"),
        (["--size", "5000"], 2, "size must be"),
        (["--seed", "-1"], 2, "seed"),
    ],
)
def test_bad_options_are_one_line(
    portrait_path, speech_path, tmp_path, capsys, options, code, message
):
    made = tmp_path / "made.mp4"
    base = ["run", str(portrait_path), str(speech_path), "-o", str(made)]
    assert main([*base, *options]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not made.exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("no/a.mp4", "no: This folder does not exist"),
        (".", ".: This is a folder"),
        pytest.param(
            "/proc/a.mp4",
            "/proc: Nothing can be written",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="it has no /proc"),
        ),
    ],
)
def test_a_video_that_could_not_be_written_is_not_made(
    portrait_path, speech_path, tmp_path, capsys, monkeypatch, output, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(portrait_path), str(speech_path), "-o", output]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"talkgen: {message}")
    assert "Validating" not in error


@pytest.mark.parametrize("output", ["photo.png", "speech.wav"])
def test_the_video_never_replaces_what_it_is_made_of(
    portrait_path, speech_path, tmp_path, capsys, monkeypatch, output
):
    monkeypatch.chdir(tmp_path)
    for given, name in ((portrait_path, "photo.png"), (speech_path, "speech.wav")):
        Path(name).write_bytes(given.read_bytes())
    before = Path(output).read_bytes()
    inputs = [str(Path.cwd() / "photo.png"), str(Path.cwd() / "speech.wav")]
    assert main(["run", *inputs, "-o", output]) == 2
    assert "would replace" in capsys.readouterr().err
    assert Path(output).read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="it has no such pipes")
@pytest.mark.parametrize("command", ["doctor", "fetch"])
def test_a_reader_that_leaves_is_no_error(command):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [sys.executable, "-m", "talkgen", command]
    done = subprocess.run(arguments, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.fixture
def d_id(monkeypatch):
    """The stand-in makes the videos, 400 times as fast as the service."""
    monkeypatch.setenv("STORAGE_MIN_FREE_SPACE_GB", "0.001")
    with FakeDId(speed=400) as service:
        generator = DIdGenerator(service.api_key, base_url=service.base_url, clock=Clock(400))
        monkeypatch.setattr(run_command, "_generator", lambda *_: generator)
        yield service


@pytest.mark.e2e
def test_a_deferred_run_says_why_and_how_to_go_on(
    d_id, portrait_path, speech_path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(logging.root, "handlers", [])  # as where nobody has set up logging
    d_id.fail("POST /images", Fault(status=503), times=100)
    base = ["run", str(portrait_path), str(speech_path), "-o", str(tmp_path / "made.mp4")]
    store = tmp_path / "[prod] store"
    assert main([*base, "--storage", str(store)]) == 3
    error = capsys.readouterr().err
    assert "Deferred: D-ID refused to upload the picture" in error
    command = error.splitlines()[-1].partition("python -m talkgen ")[2]
    assert shlex.split(command) == ["recover", "--storage", str(store)]
    assert "stamina" not in error
    assert main(["recover", "--storage", str(store)]) == 3
    assert "deferred D-ID refused to upload the picture" in capsys.readouterr().out
    assert main(base) == 3
    assert "Nothing is left to go on with" in capsys.readouterr().err
    assert main(["stats", "--storage", str(store)]) == 0
    assert capsys.readouterr().out.startswith(f"{store}\n")
    assert main(["tasks", "--storage", str(store), "--json"]) == 0
    (task,) = json.loads(capsys.readouterr().out)
    assert main(["tasks", "--storage", str(store)]) == 0
    assert task["task_id"] in capsys.readouterr().out


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform == "win32", reason="one thread cannot signal another")
def test_an_interrupted_run_tells_of_what_is_paid_for(
    d_id, portrait_path, speech_path, tmp_path, capsys
):
    d_id.behaviour.finish_after = 1e9
    main_thread = threading.main_thread().ident

    def interrupt():
        end = time.monotonic() + 60
        while not d_id.ledger.talks and time.monotonic() < end:
            time.sleep(0.01)
        signal.pthread_kill(main_thread, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    base = ["run", str(portrait_path), str(speech_path), "-o", str(tmp_path / "made.mp4")]
    assert main([*base, "--storage", str(tmp_path / "store")]) == 1
    error = capsys.readouterr().err
    assert "Something is paid for and not collected yet. Go on with it later: " in error
    assert error.endswith("Cancelled.\n")


def test_bad_input_is_one_line_and_a_hint(portrait_path, tmp_path):
    done = run("run", tmp_path / "absent.png", portrait_path, "-o", tmp_path / "x.mp4")
    assert done.returncode == 2
    assert "absent.png: There is no such file.\n  Check the path." in done.stderr
    assert "Traceback" not in done.stderr
    assert run("run").returncode == 2


def test_debug_shows_the_traceback(portrait_path, tmp_path):
    with pytest.raises(FileNotFoundError):
        main(["run", str(tmp_path / "no"), str(portrait_path), "-o", "x.mp4", "--debug"])


def test_doctor_tells_what_is_usable(capsys):
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "ok  detection (embedded)" in told
    assert "opencv-python" in told
    assert "detection (YOLO)" in told


def test_doctor_tells_which_full_models_a_run_would_take(capsys, monkeypatch, tmp_path):
    (tmp_path / "mine.pt").touch()
    monkeypatch.setenv("YOLO_WEIGHTS", str(tmp_path / "mine.pt"))
    monkeypatch.setenv("TALKGEN_REMOVER", "embedded")
    monkeypatch.setattr(choice, "find_spec", lambda name: name)
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "  ok  detection (YOLO)" in told
    assert "  --  background removal (BiRefNet): the settings choose the embedded one." in told

    monkeypatch.setenv("YOLO_WEIGHTS", "yolov8s")
    main(["doctor"])
    assert "yolov8s is not on this machine" in capsys.readouterr().out


def test_doctor_names_the_gpus(monkeypatch):
    torch = pytest.importorskip("torch")
    gpu = SimpleNamespace(name="Tesla T4", total_memory=16 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert list(doctor._accelerators()) == ["cuda:0 Tesla T4, 16.0 GiB", "mps"]


def test_doctor_needs_no_extra(monkeypatch):
    for name in ("torch", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    assert list(doctor._accelerators()) == []
    assert doctor._cache() is None


def test_doctor_tells_why_not():
    finding = doctor.Finding("detection", "The system library libGL.so.1 is missing.")
    report = doctor.Report({"talkgen": "0"}, (finding,))
    assert not report.usable
    optional = doctor.Finding("detection (YOLO)", "YOLO is not installed.", optional=True)
    assert doctor.Report({"talkgen": "0"}, (optional,)).usable
    assert "  NO  detection: The system library libGL.so.1 is missing." in report.lines()


def test_doctor_does_not_stop_at_what_is_absent():
    def attempt():
        raise ModuleNotFoundError("No module named 'av'", name="av")

    finding = doctor._tried("x", attempt)
    assert 'pip install "av"' in finding.trouble
    assert doctor._version("no-such-package") == "is not installed"


@pytest.fixture
def broken_off(portrait_path, speech_path, tmp_path):
    """A storage with a task that was killed while it rendered."""
    environment = {**os.environ, "STORAGE_ROOT": str(tmp_path / "store")}
    arguments = [portrait_path, speech_path, "-o", tmp_path / "never.mp4", "--size", 64]
    process = subprocess.Popen(
        [sys.executable, "-m", "talkgen", "run", *map(str, arguments)],
        env=environment | {"STORAGE_MIN_FREE_SPACE_GB": "0.001"},
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if "Rendering" in line:
            break
    process.kill()
    process.communicate()
    return tmp_path / "store"


@pytest.mark.e2e
def test_tasks_and_recover(broken_off, capsys, monkeypatch):
    monkeypatch.setenv("STORAGE_MIN_FREE_SPACE_GB", "0.001")
    storage = ["--storage", str(broken_off)]
    assert main(["tasks", *storage, "--json"]) == 0
    (task,) = json.loads(capsys.readouterr().out)
    assert (task["state"], task["attempt"]) == ("running", 1)
    assert task["finished"] == ["upload", "detection", "background_removal"]
    assert main(["recover", *storage, "--json"]) == 0
    other_stages = json.loads(capsys.readouterr().out)
    assert list(other_stages["skipped"]) == [task["task_id"]]
    assert "begun by other stages" in other_stages["skipped"][task["task_id"]]
    assert main(["recover", *storage, "--size", "64"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{task['task_id']}: completed file://")
    (video,) = broken_off.glob("videos/*.mp4")
    with av.open(str(video)) as container:
        assert container.streams.video[0].codec_context.width == 64
    assert main(["recover", *storage]) == 0
    assert capsys.readouterr().out == "Nothing to recover.\n"
    assert main(["recover", *storage, "slip"]) == 0
    assert capsys.readouterr().out == "slip: left alone: nothing unfinished has this id\n"
    monkeypatch.setenv("COLUMNS", "40")  # a table is whole in any terminal
    assert main(["tasks", *storage]) == 0
    heads, row = capsys.readouterr().out.splitlines()
    assert heads.split() == ["task", "state", "attempt", "updated", "operations"]
    assert row.split()[:3] == [task["task_id"], "completed", "2"]


@pytest.mark.parametrize("command", ["tasks", "recover"])
def test_a_folder_without_a_journal_is_not_made(tmp_path, capsys, command):
    assert main([command, "--storage", str(tmp_path / "typo")]) == 2
    assert "holds no journal" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_a_key_in_the_settings_means_d_id(capsys):
    console = Console(stderr=True)
    options = SimpleNamespace(background=None, person=None, size=64, seed=0)
    for settings, name in (
        (Settings(), "LocalGenerator"),
        (Settings(d_id_api_key="a:b"), "DIdGenerator"),
    ):
        assert type(run_command.stages_of(options, settings)[-1].generator).__name__ == name
        run_command._name_backends(settings, console)
        assert name in capsys.readouterr().err
