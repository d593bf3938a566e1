"""The face networks on a photo whose face was measured by hand."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Photo

from talkgen.media import Image
from talkgen.models.face import find_mesh, find_meshes
from talkgen.scheduling import LocalScheduler


@pytest.fixture
async def scheduler() -> AsyncIterator[LocalScheduler]:
    scheduler = LocalScheduler()
    yield scheduler
    await scheduler.aclose()


@pytest.fixture
def portrait(portrait_path: Path) -> Image:
    return Image(np.asarray(Photo.open(portrait_path).convert("RGB")))


async def test_finds_the_face_of_the_portrait(portrait, scheduler):
    (face,) = await find_meshes(portrait, scheduler=scheduler)

    x0, y0, x1, y1 = face.box
    assert face.confidence > 0.9
    assert (x0 + x1) / 2 == pytest.approx(225, abs=4)
    assert x1 - x0 == pytest.approx(94, abs=6)


async def test_meshes_the_face_of_the_portrait(portrait, scheduler):
    mesh = await find_mesh(portrait, scheduler=scheduler)

    assert mesh.points.shape == (468, 3)
    assert mesh.presence > 0.9
    assert mesh.eye_distance == pytest.approx(44, abs=2)
    assert mesh.right_eye == pytest.approx([204, 103], abs=3)
    assert mesh.left_eye == pytest.approx([247, 104], abs=3)
