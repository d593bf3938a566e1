"""Cut out, and put on something else."""

import io

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Photo

from talkgen.errors import Degraded, NoPersonDetected
from talkgen.media import Image
from talkgen.models.segmentation import SelfieRemover
from talkgen.stages.background import RemoveBackground, ReplaceBackground, cover
from talkgen.stages.detection import DetectPersons

WALL = np.s_[5:40, 5:25]  # of the demo's head-and-shoulders crop, 253x253
FACE = np.s_[100:180, 100:150]
HAIR = np.s_[20:35, 110:150]
SHOULDERS = np.s_[235:253, 60:180]


@attrs.frozen
class Told:
    """A remover whose alpha is told."""

    alpha: np.ndarray = attrs.field(eq=False)

    async def remove(self, image, *, scheduler):
        return Image(np.dstack([image.pixels[..., :3], self.alpha]))


@pytest.fixture
async def framed(draft, context):
    return await DetectPersons().run(draft, context)


@pytest.fixture
async def cut(framed, context):
    return await RemoveBackground().run(framed, context)


def pixels_in_file(data: bytes) -> np.ndarray:
    return np.asarray(Photo.open(io.BytesIO(data)))


# --- cutting out -------------------------------------------------------------------------------


async def test_the_person_is_kept_and_the_wall_is_gone(cut):
    alpha = cut.portrait.pixels[..., 3]

    assert alpha[WALL].max() == 0
    assert alpha[FACE].min() == 255
    assert alpha[HAIR].mean() > 245
    assert alpha[SHOULDERS].mean() > 245


async def test_the_edge_is_soft(cut):
    alpha = cut.portrait.pixels[..., 3]

    soft = ((alpha > 20) & (alpha < 235)).mean()
    assert 0.003 < soft < 0.05


async def test_smoothing_clears_the_mask_and_without_it_the_networks_own_is_left(framed, context):
    smooth = await RemoveBackground().run(framed, context)
    raw = await RemoveBackground(smoothing=False).run(framed, context)
    network = await SelfieRemover().remove(framed.portrait, scheduler=context.scheduler)

    assert np.array_equal(raw.portrait.pixels, network.pixels)
    assert not np.array_equal(smooth.portrait.pixels, network.pixels)
    # The network is nowhere quite certain; the smoothed alpha has clean ends.
    certain = [np.isin(one.portrait.pixels[..., 3], (0, 255)).mean() for one in (smooth, raw)]
    assert certain[0] > 0.9
    assert certain[0] > certain[1] + 0.02


async def test_smoothing_takes_the_wall_out_of_the_hair(framed, context):
    """Laid on black, the edge of a cut-out must not glow with the bright wall behind it."""
    smooth = await RemoveBackground().run(framed, context)
    mixed = framed.portrait.pixels.astype(float)
    alpha = smooth.portrait.pixels[..., 3]

    edge = (alpha > 60) & (alpha < 200)
    edge[150:] = False  # the hair alone: the ring of the suit is as bright as the wall
    own = smooth.portrait.pixels[..., :3].astype(float)
    assert own[edge].mean() < mixed[edge].mean() - 10


async def test_both_files_are_kept(cut, context):
    manifest = await context.files.publish()

    files = {file.name: file for file in manifest.files}
    assert {"task_transparent.png", "task_mask.png"} < set(files)
    assert files["task_mask.png"].tier == files["task_transparent.png"].tier == "processed"


async def test_the_mask_is_the_final_alpha_in_eight_bits(framed, context):
    kept = {}

    @attrs.frozen
    class Files:
        async def put_all(self, *files):
            kept.update({suffix: data for _, suffix, data in files})

    context.files = Files()
    cut = await RemoveBackground().run(framed, context)

    mask = pixels_in_file(kept["mask.png"])
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, cut.portrait.pixels[..., 3])
    assert np.array_equal(pixels_in_file(kept["transparent.png"]), cut.portrait.pixels)


async def test_it_tells_that_it_is_done(cut, context):
    assert context.reports[-1] == {
        "fraction": 1.0,
        "message": "Background removed successfully",
        "stage": "background_removal_complete",
        "metadata": {},
    }


@pytest.mark.parametrize("smoothing", [True, False])
async def test_a_mask_of_nobody_is_an_error_and_no_empty_portrait(framed, context, smoothing):
    nobody = Told(np.full((framed.portrait.height, framed.portrait.width), 9, np.uint8))

    with pytest.raises(NoPersonDetected, match="nobody to cut out"):
        await RemoveBackground(nobody, smoothing).run(framed, context)


async def test_what_was_transparent_stays_so(framed, context):
    given_alpha = np.full((framed.portrait.height, framed.portrait.width), 255, np.uint8)
    given_alpha[:, 125:] = 0
    half = Image(np.dstack([framed.portrait.pixels, given_alpha]))

    cut = await RemoveBackground().run(attrs.evolve(framed, portrait=half), context)

    assert cut.portrait.pixels[:, 125:, 3].max() == 0
    assert cut.portrait.pixels[100:180, 100:110, 3].min() > 200


def test_removal_as_a_value():
    stage = RemoveBackground()

    assert (stage.name, stage.optional) == ("background_removal", True)
    assert stage.requires == stage.provides == {"portrait"}
    assert not stage.resets
    keys = {stage.key, RemoveBackground(SelfieRemover()).key, RemoveBackground(smoothing=False).key}
    assert len(keys) == 3


# --- putting on --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("colour", "rgb"),
    [("#00a000", (0, 160, 0)), ("white", (255, 255, 255)), ("rgb(1, 2, 3)", (1, 2, 3))],
)
async def test_a_colour_goes_behind(cut, context, colour, rgb):
    done = await ReplaceBackground(colour).run(cut, context)

    assert done.portrait.pixels.shape == cut.portrait.pixels[..., :3].shape
    assert (done.portrait.pixels[WALL] == rgb).all()
    assert np.array_equal(done.portrait.pixels[FACE], cut.portrait.pixels[FACE][..., :3])


async def test_a_picture_goes_behind_from_its_middle(cut, context):
    wide = np.zeros((100, 400, 3), np.uint8)
    wide[:, 150:250] = (10, 200, 30)

    done = await ReplaceBackground(Image(wide)).run(cut, context)

    assert np.abs(done.portrait.pixels[WALL].astype(int) - (10, 200, 30)).max() <= 3


async def test_transparent_parts_of_a_picture_are_white(cut, context):
    clear = Image(np.zeros((50, 50, 4), np.uint8))

    done = await ReplaceBackground(clear).run(cut, context)

    assert (done.portrait.pixels[WALL] == 255).all()


async def test_blur_is_what_was_there_out_of_focus(cut, context):
    done = await ReplaceBackground("blur").run(cut, context)

    behind, before = done.portrait.pixels[WALL], cut.image.cropped(cut.portrait_box).pixels[WALL]
    assert behind.mean(axis=(0, 1)) == pytest.approx(before.mean(axis=(0, 1)), abs=6)
    assert behind.std(axis=(0, 1)).max() < before.std(axis=(0, 1)).max()


async def test_blur_fits_a_portrait_of_another_size(cut, context):
    larger = attrs.evolve(cut, portrait=cut.portrait.resized(300, 300))

    done = await ReplaceBackground("blur").run(larger, context)

    assert done.portrait.pixels.shape == (300, 300, 3)


async def test_a_portrait_that_is_not_cut_out_is_left_and_said_so(framed, context):
    done = await ReplaceBackground("white").run(framed, context)

    assert done is framed
    (shortfall,) = context.shortfalls
    assert "not cut out" in shortfall


async def test_strictly_it_is_refused(framed, context):
    context.strict = True

    with pytest.raises(Degraded):
        await ReplaceBackground("white").run(framed, context)


@pytest.mark.parametrize("wrong", ["no colour", "", "#12345", "transparent", "#ffffff80"])
def test_what_is_no_opaque_colour_is_refused_at_once(wrong):
    with pytest.raises(ValueError, match="background="):
        ReplaceBackground(wrong)


def test_an_opaque_colour_with_an_alpha_is_a_colour():
    assert ReplaceBackground("#102030ff").background == "#102030ff"


def test_what_is_nothing_of_the_kind_is_a_type_error():
    with pytest.raises(TypeError, match="background=7"):
        ReplaceBackground(7)


def test_replacement_as_a_value():
    picture = Image(np.zeros((4, 4, 3), np.uint8))
    stage = ReplaceBackground("white")

    assert stage.name == "background"
    assert stage.requires == stage.provides == {"portrait"}
    keys = {stage.key, ReplaceBackground("blur").key, ReplaceBackground(picture).key}
    assert len(keys) == 3
    assert ReplaceBackground(picture).key == ReplaceBackground(Image(picture.pixels.copy())).key


sides = st.integers(1, 60)


@given(sides, sides, sides, sides)
def test_a_cover_has_the_size_asked_for(width, height, wanted_width, wanted_height):
    picture = Image(np.zeros((height, width, 3), np.uint8))

    covering = cover(picture, wanted_width, wanted_height)

    assert (covering.width, covering.height) == (wanted_width, wanted_height)


def test_a_cover_is_cut_from_the_middle_and_not_squeezed():
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60] = 255

    assert cover(Image(pixels), 40, 40).pixels.min() == 255
