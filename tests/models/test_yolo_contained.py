"""Ultralytics does nothing to the process, the disk or the network."""

import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("ultralytics") is None:
    pytest.skip("the extra yolo is not installed", allow_module_level=True)

BUS = Path(find_spec("ultralytics").origin).parent / "assets" / "bus.jpg"

FIND = """
import json, os, sys
from talkgen.media import Image
from talkgen.models.yolo import DetectionInput, YoloDetector, export

def find(weights):
    network = YoloDetector(weights).model().load("cpu")
    (found,) = network.run([DetectionInput(Image.open(sys.argv[2]), 0.5, 0.45)])
    network.close()
    assert len(found) == 3, found
"""

# Each step is told apart: what it reached for, which fails and is written down, and what it left
# changed. What torch and the like do when they are imported is not Ultralytics' doing.
WATCHED = (
    FIND
    + """
import logging, pathlib, socket, subprocess, warnings
import cv2, numpy, torch.onnx, torchvision
from talkgen.errors import ModelUnavailable

tried = []
def refused(what):
    def refuse(*args, **kwargs):
        tried.append([what, [arg for arg in args if isinstance(arg, (str, list, tuple))]])
        raise OSError("blocked")
    return refuse
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refused(name))
socket.getaddrinfo = refused("getaddrinfo")
socket.create_connection = refused("create_connection")
subprocess.Popen = refused("Popen")
os.system = refused("system")

def state():
    return {
        "environment": dict(os.environ),
        "torch.save": torch.save,
        "cv2 files": (cv2.imread, cv2.imwrite, cv2.imshow),
        "cv2 threads": cv2.getNumThreads(),
        "torch threads": torch.get_num_threads(),
        "torch modes": (torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()),
        "dtype": torch.get_default_dtype(),
        "prints": (numpy.get_printoptions(), torch._tensor_str.get_printoptions()),
        "filters": list(warnings.filters),
        "handlers": list(logging.getLogger().handlers),
        "hooks": (sys.excepthook, sys.stdout, sys.stderr),
        "folder": os.listdir(),
        "home": sorted(pathlib.Path.home().rglob("*")),
    }

steps = {}
def step(name, action, *args):
    tried.clear()
    before = state()
    try:
        said = str(action(*args))
    except ModelUnavailable as error:
        said = str(error)
    after = state()
    changed = [name for name in before if before[name] != after[name]]
    steps[name] = {"said": said, "tried": list(tried), "changed": changed}

step("find", find, sys.argv[1])
step("find again", find, sys.argv[1])
step("refuse", find, sys.argv[3])
import onnx, onnxruntime.transformers
step("export", export, sys.argv[4], "onnx")
step("find by onnx", find, steps["export"]["said"])
logger = logging.getLogger("ultralytics")
logger.error("unheard")  # without a handler of the host's: nowhere, not even on stderr
heard = []
host = logging.Handler()
host.emit = lambda record: heard.append(record.getMessage())
logging.getLogger().addHandler(host)
logger.error("heard")
steps["log"] = heard
pathlib.Path(sys.argv[5]).write_text(json.dumps(steps))
"""
)


def run(script: str, *args: object, home: Path, **environment: str):
    """A script in a process with a home of its own."""
    home.mkdir()
    # In a test run Ultralytics keeps quiet by itself.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV", "YOLO"))}
    places = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "APPDATA"), str(home))
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        env=kept | places | environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def watched(weights, tmp_path_factory):
    """What each step did; and the process, when it is over."""
    folder = tmp_path_factory.mktemp("watched")
    odd, mine, report = folder / "odd.pt", folder / "mine.pt", folder / "report.json"
    odd.write_bytes(pickle.dumps(1).replace(b"K\x01", b"cnowhere_to_be_found\nThing\n"))
    mine.write_bytes((weights / "yolov8n.pt").read_bytes())
    done = run(WATCHED, weights / "yolov8n.pt", BUS, odd, mine, report, home=folder / "home")
    assert done.returncode == 0, done.stderr
    return json.loads(report.read_text()), done


@pytest.mark.parametrize("step", ["find", "find again", "refuse", "export", "find by onnx"])
def test_everything_is_left_alone(watched, step):
    steps, _ = watched
    assert steps[step]["changed"] == []


@pytest.mark.parametrize("step", ["find", "find again", "refuse", "find by onnx"])
def test_no_network_and_no_other_program(watched, step):
    steps, _ = watched
    assert steps[step]["tried"] == []


def test_exporting_asks_for_gpus_at_most(watched):
    steps, _ = watched
    assert all(what == ["Popen", [["xpu-smi", "discovery"]]] for what in steps["export"]["tried"])
    assert Path(steps["export"]["said"]).name == "mine.onnx"


def test_a_checkpoint_that_needs_a_package_is_refused(watched):
    steps, _ = watched
    assert "odd.pt cannot be loaded" in steps["refuse"]["said"]
    assert "nowhere_to_be_found" in steps["refuse"]["said"]


def test_nothing_is_printed_and_the_log_goes_to_the_host(watched):
    steps, done = watched
    assert (done.stdout, done.stderr) == ("", "")
    assert steps["log"] == ["heard"]


def test_importing_the_module_imports_none_of_it(tmp_path):
    script = FIND + "print({'torch', 'ultralytics', 'cv2'}.intersection(sys.modules))"
    assert run(script, home=tmp_path / "home").stdout == "set()\n"


@pytest.mark.slow
def test_a_program_that_uses_ultralytics_itself_keeps_its_settings(tmp_path, weights):
    script = (
        FIND + "import ultralytics\n"
        "settings = ultralytics.settings\n"
        "before = dict(settings), settings.file_path\n"
        "find(sys.argv[1])\n"
        "assert (dict(settings), settings.file_path) == before\n"
    )
    home = tmp_path / "home"
    done = run(
        script,
        weights / "yolov8n.pt",
        BUS,
        home=home,
        YOLO_CONFIG_DIR=str(home),
        YOLO_OFFLINE="true",
    )
    assert done.returncode == 0, done.stderr
    assert (home / "Ultralytics" / "settings.json").is_file()
