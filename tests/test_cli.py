"""The command line: exit codes, one line and a hint, JSON on standard output."""

import json
import subprocess
import sys
from types import SimpleNamespace

import av
import pytest

from talkgen import choice, doctor
from talkgen.__main__ import main


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


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--person", "7"], 2, "There is no person #7"),
        (["--background", "mauvish"], 2, "mauvish"),
        (["--size", "5000"], 2, "size must be"),
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
