"""A draft kept as a checkpoint comes back to the last bit, and is written once."""

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from talkgen import Image, MemoryStorage, Speech, Text
from talkgen.checkpoints import DraftFiles, restored
from talkgen.draft import Box, Draft, Person
from talkgen.errors import FileMissing
from talkgen.media import Video

PIXELS = np.arange(5 * 7 * 4, dtype=np.uint8).reshape(5, 7, 4)
LANDMARKS = np.array([[0.1, -1e-8], [np.nan, 3.4e38]], np.float32)


def draft(**changes):
    image = Image(PIXELS[..., :3])
    box = Box(0, 0, image.width, image.height)
    return attrs.evolve(
        Draft(task_id="task", image=image, portrait=image, portrait_box=box), **changes
    )


async def files():
    return DraftFiles(await (storage := MemoryStorage()).open("task")), storage


async def there_and_back(value):
    kept, storage = await files()
    checkpoint = await kept.checkpoint(1, value)
    return await DraftFiles(await storage.open("task")).restore("task", checkpoint)


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([3, 4]))))
@settings(max_examples=30, deadline=None)
def test_pictures_come_back(pixels):
    import anyio

    back = anyio.run(there_and_back, draft(portrait=Image(pixels)))
    assert back.portrait.pixels.tobytes() == pixels.tobytes()
    assert back.portrait.pixels.shape == pixels.shape


async def test_a_picture_from_a_file_is_that_file(anyio_backend, portrait_path):
    image = Image.open(portrait_path)
    back = await there_and_back(draft(image=image, portrait=image))
    assert (back.image.pixels == image.pixels).all()
    assert back.image.original() == image.original()
    assert back.portrait is back.image


async def test_a_changed_picture_is_not_its_old_file(anyio_backend, portrait_path, speech_path):
    opened, speech = Image.open(portrait_path), Speech.open(speech_path)
    image = attrs.evolve(opened, pixels=opened.pixels ^ 1)
    quiet = attrs.evolve(speech, samples=speech.samples / 2)
    back = await there_and_back(draft(portrait=image, speech=quiet))
    assert (back.portrait.pixels == image.pixels).all()
    assert (back.speech.samples == quiet.samples).all()


@pytest.mark.parametrize("channels", [1, 2])
async def test_samples_come_back(anyio_backend, channels):
    samples = np.random.default_rng(0).uniform(-1, 1, (channels, 999)).astype(np.float32)
    back = await there_and_back(draft(speech=Speech(samples, 12_345)))
    assert back.speech.samples.tobytes() == samples.tobytes()
    assert (back.speech.sample_rate, back.speech.channels) == (12_345, channels)


async def test_a_recording_from_a_file_is_that_file(anyio_backend, speech_path):
    speech = Speech.open(speech_path)
    back = await there_and_back(draft(speech=speech))
    assert back.speech.digest == speech.digest
    assert back.speech.original() == speech.original()


async def test_everything_else_comes_back(anyio_backend):
    persons = (
        Person(1, Box(0, 1, 2, 3), 0.123456789, LANDMARKS),
        Person(2, Box(1, 1, 2, 2), 0.5),
        Person(3, Box(1, 1, 2, 2), 0.5, np.empty((0, 2), np.float32)),
    )
    kept, storage = await files()
    file = await kept.put("videos", "final.mp4", b"video")
    video = Video(file=file, duration=1.04, fps=25.0, size=(64, 48))
    value = draft(
        speech=Text("Grüße, 'all'", "anna"),
        persons=persons,
        person=persons[1],
        portrait_box=Box(1, 2, 3, 4),
        video=video,
        metadata={"a": [1, {"b": None}], "ü": 0.1},
    )
    back = await kept.restore("task", await kept.checkpoint(1, value))
    assert back.speech == value.speech
    assert back.portrait_box == value.portrait_box
    assert isinstance(back.portrait_box, Box)
    assert back.metadata == value.metadata
    assert back.person is back.persons[1]
    for one, other in zip(back.persons, persons, strict=True):
        assert (one.id, one.box, one.confidence) == (other.id, other.box, other.confidence)
    marks = back.persons[0].landmarks
    assert (marks.dtype, marks.tobytes()) == (np.float32, LANDMARKS.tobytes())
    assert back.persons[1].landmarks is None
    assert back.persons[2].landmarks.shape == (0, 2)
    assert attrs.astuple(back.video, recurse=False) == attrs.astuple(video, recurse=False)


async def test_no_field_is_forgotten(anyio_backend):
    """A field that a draft has and a checkpoint has not would be lost in silence."""
    person = Person(4, Box(0, 0, 1, 1), 0.5)
    kept, _ = await files()
    video = Video(await kept.put("videos", "final.mp4", b""), 1.0, 25.0, (2, 2))
    full = draft(speech=Text("a"), persons=(), person=person, video=video, metadata={"a": 1})
    back = await kept.restore("task", await kept.checkpoint(1, full))
    assert back.person.id == 4
    for field in attrs.fields(Draft):
        assert getattr(full, field.name) is not None
        assert getattr(back, field.name) is not None


async def staged(storage):
    await (await storage.open("task")).publish()
    return {info.file.name async for info in storage.list()}


async def test_what_a_stage_has_kept_itself_is_not_written_again(anyio_backend):
    kept, storage = await files()
    value = draft(portrait=Image(PIXELS))
    ref = await kept.put("processed", "mine.png", value.portrait.encode("png"))
    mask = await kept.put("processed", "mask.png", b"mask")
    checkpoint = await kept.checkpoint(1, value)
    assert checkpoint.files["portrait"] == ref
    assert checkpoint.files["processed/task_mask.png"] == mask
    assert await staged(storage) == {"task_mine.png", "task_mask.png", "task_1-image.png"}


async def test_what_a_stage_has_replaced_itself_is_written(anyio_backend):
    kept, _ = await files()
    value = draft(portrait=Image(PIXELS))
    await kept.put("processed", "mine.png", value.portrait.encode("png"))
    await kept.put("processed", "mine.png", b"another")
    back = await kept.restore("task", await kept.checkpoint(1, value))
    assert (back.portrait.pixels == PIXELS).all()


async def test_what_has_not_changed_is_not_written_again(anyio_backend):
    kept, storage = await files()
    value = draft(speech=Speech(np.full((1, 9), 0.3, np.float32), 8000))
    first = await kept.checkpoint(0, value)
    second = await kept.checkpoint(1, attrs.evolve(value, metadata={"a": 1}))
    assert {name: second.files[name] for name in ("image", "portrait", "speech")} == {
        name: first.files[name] for name in ("image", "portrait", "speech")
    }
    again = DraftFiles(await storage.open("task"))
    back = await again.restore("task", second)
    third = await again.checkpoint(2, attrs.evolve(back, portrait=Image(PIXELS)))
    assert third.files["image"] == first.files["image"]
    names = {"task_0-image.png", "task_0-speech.npy", "task_2-portrait.png"}
    assert await staged(storage) == names


async def test_a_replaced_file_is_missed(anyio_backend):
    kept, _ = await files()
    value = draft(portrait=Image(PIXELS))
    await kept.put("processed", "mine.png", value.portrait.encode("png"))
    checkpoint = await kept.checkpoint(1, value)
    await kept.put("processed", "mine.png", b"another")
    with pytest.raises(FileMissing):
        await kept.restore("task", checkpoint)
    back = await restored("task", checkpoint, kept.get, partly=True)
    assert back.portrait is None
    assert (back.image.pixels == PIXELS[..., :3]).all()
