"""The runtime: quiet, and closed when told."""

import os
import subprocess
import sys

import numpy as np
import pytest

from talkgen.models._assets import FACE_LANDMARK
from talkgen.models._litert import Network, _without_banner, sigmoid

LOAD = """
import os, sys
from talkgen.models._assets import FACE_LANDMARK
from talkgen.models._litert import Network
{before}
Network(FACE_LANDMARK)
os.write(1, b"loaded")
"""


def load(before: str = "") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", LOAD.format(before=before)], capture_output=True, check=True
    )


def test_loading_writes_nothing_to_the_terminal():
    loaded = load()

    assert loaded.stdout == b"loaded"
    assert loaded.stderr == b""


def test_a_process_without_standard_error_may_load():
    assert load("os.close(2)").stdout == b"loaded"


OTHERS = """
import os
from talkgen.models._litert import _without_banner
own = open(os.devnull)
assert own.fileno() == 2
with _without_banner():
    assert os.path.sameopenfile(2, os.open(os.devnull, os.O_RDONLY))
"""


@pytest.mark.skipif(os.name != "posix", reason="its shell closes no file")
def test_what_took_standard_errors_place_is_left_alone():
    """Such as the file that an event loop waits on, which then would wait for ever."""
    subprocess.run(["sh", "-c", '"$0" "$@" 2>&-', sys.executable, "-c", OTHERS], check=True)


def test_what_others_write_meanwhile_is_passed_on(capfd):
    with _without_banner():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nmine\n")

    assert capfd.readouterr().err == "mine\n"


def test_without_standard_error_nothing_is_kept_clean(capfd):
    kept = os.dup(2)
    os.close(2)
    try:
        with _without_banner(), pytest.raises(OSError, match="Bad file descriptor"):
            os.write(2, b"nobody listens")
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def test_a_closed_network_is_gone():
    network = Network(FACE_LANDMARK)
    assert len(network.run(np.zeros((192, 192, 3), np.float32))) == 2

    network.close()

    with pytest.raises(AttributeError):
        network.run(np.zeros((192, 192, 3), np.float32))


def test_probabilities_of_extreme_logits():
    logits = np.array([-1e30, 0, 1e30], np.float32)

    assert sigmoid(logits) == pytest.approx([0, 0.5, 1])
