"""What the tests of the models share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from talkgen.media import Image
from talkgen.scheduling import LocalScheduler


@pytest.fixture
async def scheduler() -> AsyncIterator[LocalScheduler]:
    scheduler = LocalScheduler()
    yield scheduler
    await scheduler.aclose()


@pytest.fixture(scope="session")
def portrait(portrait_path: Path) -> Image:
    """512x512; the eyes were measured by hand at (204, 103) and (247, 104)."""
    return Image.open(portrait_path)
