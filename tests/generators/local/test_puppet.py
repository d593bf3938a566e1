"""A posed portrait, seen by the face mesh that a viewer's tracker would use."""

import anyio
import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkgen import GenerateVideo, Image, LocalScheduler, MemoryStorage, Pipeline, Speech
from talkgen.errors import Degraded
from talkgen.generators.local import LocalGenerator
from talkgen.generators.local.motion import Pose
from talkgen.generators.local.render import prepare
from talkgen.generators.local.rig import Box, Grid, Layer
from talkgen.models.face import FaceCrop, FaceMesh, FaceMeshModel

REST = Pose(opening=0, width=0, blink=0, x=0, y=0, roll=0, turn=0, breath=0)
UPPER_LIP, LOWER_LIP, RIGHT_CORNER, LEFT_CORNER = 13, 14, 61, 291
LIDS = ((160, 144), (158, 153), (385, 380), (387, 373))


@pytest.fixture(scope="module")
def portrait(portrait_path):
    return Image.open(portrait_path).cropped((99, 0, 352, 253))


def puppet_of(portrait):
    async def prepared():
        scheduler = LocalScheduler()
        try:
            return (await prepare(LocalGenerator(), portrait, scheduler)).puppet
        finally:
            await scheduler.aclose()

    return anyio.run(prepared)


@pytest.fixture(scope="module")
def puppet(portrait):
    return puppet_of(portrait)


@pytest.fixture(scope="module")
def look(puppet):
    """Where the mesh sees a frame's landmarks, in eye distances."""
    network = FaceMeshModel().load("cpu")
    points = puppet.face.points[:, :2]
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)

    def distances(frame, *pairs):
        (mesh,) = network.run([FaceCrop(Image(frame), (x0, y0, x1, y1), 0.05)])
        points = mesh.points[:, :2]
        return [np.hypot(*(points[a] - points[b])) / mesh.eye_distance for a, b in pairs]

    yield distances
    network.close()


def posed(puppet, **changes):
    return puppet.frame(attrs.evolve(REST, **changes))


def test_a_smile_is_closed_at_rest_and_opens_with_the_jaw(puppet, look):
    lips = (UPPER_LIP, LOWER_LIP)
    smiling, rest, half, full = (
        look(frame, lips)[0]
        for frame in (
            puppet.pixels,
            posed(puppet),
            posed(puppet, opening=0.6),
            posed(puppet, opening=1.0),
        )
    )
    assert smiling > 0.15
    assert rest < 0.02
    assert 0.08 < half < full < 0.25


def test_no_light_falls_through_a_narrow_gap(puppet):
    def brightest(opening):
        mouth = posed(puppet, opening=opening)[puppet.mouth.box.slices]
        return mouth[puppet.mouth.lips.slices].max(axis=-1)

    x, y = (puppet.face.origin - (puppet.mouth.box.x0, puppet.mouth.box.y0)).astype(int)
    x, y = x - puppet.mouth.lips.x0, y - puppet.mouth.lips.y0
    middle = slice(x - 3, x + 4)
    darkest = {opening: brightest(opening)[:, middle].min() for opening in (0, 0.3)}
    teeth = brightest(1.0)[y - 4 : y + 4, middle].max()
    assert darkest[0.3] < 40
    assert darkest[0] > 60
    assert teeth > 150


def test_rounding_narrows_the_mouth_and_spreading_widens_it(puppet, look):
    corners = (RIGHT_CORNER, LEFT_CORNER)
    widths = [look(posed(puppet, opening=0.4, width=width), corners)[0] for width in (-1, 0, 1)]
    assert widths[0] < widths[1] - 0.05
    assert widths[1] < widths[2]


def test_a_blink_is_seen(puppet, look):
    opened, shut = (np.mean(look(posed(puppet, blink=blink), *LIDS)) for blink in (0, 1))
    assert shut < 0.8 * opened


def test_a_mouth_that_is_shut_in_the_photo_opens_too(puppet, look):
    shut = puppet_of(Image(posed(puppet)))
    rest, opened = (
        look(posed(shut, opening=opening), (UPPER_LIP, LOWER_LIP))[0] for opening in (0, 1)
    )
    assert rest < 0.04
    assert opened > 0.1


def test_nothing_but_mouth_and_lids_changes_while_the_head_rests(puppet):
    rest = posed(puppet)
    talking = posed(puppet, opening=1, width=-1, blink=1)
    changed = np.flatnonzero((rest != talking).any(axis=(1, 2)))
    brow = puppet.face.origin[1] - 1.5 * puppet.face.unit
    assert changed.min() > brow
    assert (rest[:, :100] == talking[:, :100]).all()


def test_the_head_moves_where_it_is_told(puppet):
    unit = puppet.face.unit
    moved = posed(puppet, x=4 / unit).astype(int)
    rest = posed(puppet).astype(int)
    face = slice(150, 250), slice(200, 300)
    shifted = np.roll(rest, 4, axis=1)
    assert (
        np.abs(moved[face] - shifted[face]).mean() < 0.25 * np.abs(moved[face] - rest[face]).mean()
    )


def test_where_nobody_is_the_colour_stays(portrait):
    alpha = np.full((253, 253, 1), 255, np.uint8)
    alpha[:60] = 0
    cut_out = puppet_of(Image(np.concatenate([portrait.pixels, alpha], axis=2)))
    moved = posed(cut_out, x=0.05, y=0.05, roll=0.02, breath=1)
    assert (moved[:100] == 255).all()
    assert (moved[300] < 255).any()


@given(st.floats(-1, 1), st.integers(1, 2))
def test_a_layer_goes_where_its_fields_say(amount, step):
    grid = Grid(Box(10, 20, 74, 84), step)
    x, y = np.moveaxis(grid.pixels, -1, 0)
    bump = np.exp(-(((x - 42) / 16) ** 2) - ((y - 52) / 16) ** 2)
    field = (6 * np.stack([bump, -bump], axis=-1)).astype(np.float32)
    source = Layer(grid, field[None]).source((amount,))
    assert np.isfinite(source).all()
    # What arrives in a pixel went there: its origin and the way from it add up to the pixel,
    # to a quarter of one.
    x, y = np.moveaxis(source, -1, 0) + 0.5
    bump = np.exp(-(((x + 10 - 42) / 16) ** 2) - ((y + 20 - 52) / 16) ** 2)
    arrived = source + 6 * amount * np.stack([bump, -bump], axis=-1)
    assert np.abs(arrived - grid.here).max() < 0.25


class Changed:
    """A scheduler to which every face is another one."""

    def __init__(self, change) -> None:
        self.inner = LocalScheduler()
        self.change = change

    async def run(self, model, item, *, on_degraded=None):
        result = await self.inner.run(model, item, on_degraded=on_degraded)
        if not isinstance(result, FaceMesh):
            return result
        return self.change(result)

    def stats(self):
        return self.inner.stats()

    async def aclose(self):
        await self.inner.aclose()


def turned(mesh):
    """Aside, by 50 degrees about the neck."""
    x, _, z = mesh.points.T
    sine, cosine = np.sin(np.radians(50)), np.cos(np.radians(50))
    points = mesh.points.copy()
    points[:, 0] = x.mean() + (x - x.mean()) * cosine + z * sine
    points[:, 2] = z * cosine - (x - x.mean()) * sine
    return attrs.evolve(mesh, points=points)


def hardly_seen(mesh):
    return attrs.evolve(mesh, score=0.5)


@pytest.mark.parametrize(
    ("change", "told"), [(turned, "turned to the side"), (hardly_seen, "mouth stays")]
)
async def test_a_face_that_cannot_move_as_it_should_is_told(
    anyio_backend, portrait, speech_path, change, told
):
    speech = Speech.open(speech_path)
    short = Speech(speech.samples[:, :4000], speech.sample_rate)
    stages = [GenerateVideo(LocalGenerator(size=128))]
    pipeline = Pipeline(stages, scheduler=Changed(change), storage=MemoryStorage(), strict=True)
    with pytest.raises(Degraded, match=told):
        await pipeline.run(portrait, short)


async def test_lips_that_are_not_found_do_not_move(anyio_backend, portrait):
    scheduler = Changed(hardly_seen)
    scene = await prepare(LocalGenerator(size=128), portrait, scheduler)
    await scheduler.aclose()
    assert (posed(scene.puppet) == posed(scene.puppet, opening=1, width=-1)).all()
    assert (posed(scene.puppet) != posed(scene.puppet, blink=1)).any()
