"""The embedded segmentation on a photo whose regions were marked by hand."""

import numpy as np
import pytest

from talkgen.media import Image
from talkgen.models.segmentation import SelfieRemover, SelfieSegmentationModel

from ..memory import growth, on_linux

FACE = np.s_[90:170, 200:255]
HAIR = np.s_[20:40, 200:260]
SUIT = np.s_[260:340, 80:320]
SHUTTLE = np.s_[10:250, 370:460]


async def test_the_alpha_is_of_the_picture_and_tells_person_from_things(portrait, scheduler):
    alpha = await scheduler.run(SelfieSegmentationModel(), portrait)

    assert alpha.shape == (512, 512)
    assert alpha.dtype == np.float32
    assert 0 <= alpha.min() <= alpha.max() <= 1
    assert alpha[FACE].min() > 0.95
    assert alpha[HAIR].mean() > 0.9
    assert alpha[SUIT].mean() > 0.95
    assert alpha[SHUTTLE].mean() < 0.05


@pytest.mark.parametrize("size", [(200, 300), (301, 97), (1, 1)])
async def test_any_shape_gives_an_alpha_of_that_shape(portrait, scheduler, size):
    picture = portrait.resized(*size)

    alpha = await scheduler.run(SelfieSegmentationModel(), picture)

    assert alpha.shape == (picture.height, picture.width)


@on_linux
def test_a_photo_takes_as_much_as_two_alphas_of_its_size():
    """Of 12 megapixels; the mean of several looks needs no more than two of them at a time."""
    grown = growth(
        """
        import numpy as np
        from talkgen import Image
        from talkgen.models.segmentation import SelfieSegmentationModel
        loaded = SelfieSegmentationModel().load("cpu")
        loaded.run([Image(np.zeros((300, 400, 3), np.uint8))])
        photo = Image(np.zeros((3000, 4000, 3), np.uint8))
        """,
        "loaded.run([photo])",
    )

    assert grown < 140


async def test_removing_keeps_the_colours_and_gives_rgba(portrait, scheduler):
    cut = await SelfieRemover().remove(portrait, scheduler=scheduler)

    assert cut.pixels.shape == (512, 512, 4)
    assert np.array_equal(cut.pixels[..., :3], portrait.pixels)
    assert cut.pixels[FACE][..., 3].min() > 240


async def test_transparency_that_is_there_is_kept(portrait, scheduler):
    half = np.full((512, 512), 255, np.uint8)
    half[:, 256:] = 100
    clear = Image(np.dstack([portrait.pixels, half]))

    whole = await SelfieRemover().remove(portrait, scheduler=scheduler)
    cut = await SelfieRemover().remove(clear, scheduler=scheduler)

    wanted = whole.pixels[..., 3].astype(float) * half / 255
    assert cut.pixels[..., 3] == pytest.approx(wanted, abs=1)


def test_the_remover_is_a_value_with_a_key():
    assert SelfieRemover() == SelfieRemover()
    assert SelfieRemover().key == SelfieSegmentationModel().key
