"""`import talkgen` costs next to nothing, and every public name is there."""

import subprocess
import sys

import talkgen

HEAVY = ("numpy", "cv2", "av", "scipy", "PIL", "httpx", "torch", "anyio", "rich", "opentelemetry")


def test_import_loads_nothing_heavy():
    code = f"import sys, talkgen; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_assembling_a_pipeline_loads_no_codec_and_no_network():
    heavy = ("cv2", "av", "scipy", "PIL", "httpx", "torch", "ai_edge_litert", "opentelemetry")
    code = (
        "import sys, talkgen; talkgen.Pipeline(); "
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_there():
    for name in talkgen.__all__:
        assert getattr(talkgen, name).__name__ == name
        assert name in dir(talkgen)
    assert not hasattr(talkgen, "Nothing")
