"""Fixtures that every test may use."""

import os
import tempfile
from pathlib import Path

import pytest

# No test asks the real hub, or finds what its user has fetched. Set before anybody reads them.
os.environ["HF_HOME"] = str(Path(tempfile.gettempdir()) / "talkgen-tests-hub")
os.environ["HF_HUB_OFFLINE"] = "1"

DEMO = Path(__file__).parent.parent / "docs" / "assets" / "demo"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def portrait_path() -> Path:
    return DEMO / "portrait.png"


@pytest.fixture(scope="session")
def speech_path() -> Path:
    return DEMO / "speech.wav"


@pytest.fixture(scope="session")
def media() -> Path:
    """More portraits and recordings than the project carries."""
    folder = os.environ.get("TALKGEN_TEST_MEDIA")
    if not folder:
        pytest.skip("TALKGEN_TEST_MEDIA names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def weights() -> Path:
    """Networks that the project does not carry, like yolov8n.pt."""
    folder = os.environ.get("TALKGEN_TEST_WEIGHTS")
    if not folder:
        pytest.skip("TALKGEN_TEST_WEIGHTS names no folder")
    return Path(folder)
