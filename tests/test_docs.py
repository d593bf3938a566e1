"""What the pages say works."""

import re
from pathlib import Path

import numpy as np
import pytest

from talkgen import Image, LocalScheduler, MemoryStorage, Pipeline

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_on_the_pages_compiles(page):
    for code in blocks(page):
        # Snippets may await, as in a notebook.
        compile(
            f"async def snippet():\n{re.sub('^', '    ', code, flags=re.MULTILINE)}", page, "exec"
        )


async def test_the_pages_own_stage_works(anyio_backend):
    assemble, mirror = blocks(ROOT / "docs" / "stages.md")
    names = {}
    exec(assemble, names)
    exec(mirror, names)
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:, 0] = 255
    pipeline = Pipeline([names["Mirror"]()], storage=MemoryStorage())
    result = await pipeline.run(picture)
    assert (result.draft.portrait.pixels == picture[:, ::-1]).all()
    assert "mirror_complete" in result.stages_completed


async def test_the_pages_own_model_works(anyio_backend):
    sized, model, contract = blocks(ROOT / "docs" / "scheduling.md")
    names = {}
    exec(sized, names)
    exec(model, names)
    picture = Image(np.full((4, 4, 3), 51, np.uint8))
    scheduler = LocalScheduler(["cpu"])
    assert await scheduler.run(names["Brightness"](), picture) == pytest.approx(0.2)
    await scheduler.aclose()
    assert "check_scheduler" in contract
