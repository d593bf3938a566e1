"""Pictures, recordings and videos as values."""

import copy
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from talkgen import media
from talkgen.errors import FileMissing, NotReady
from talkgen.media import Encoded, FileRef, Image, Speech, Text, Video

from .samples import BEEP, PNG, RAMP, WAV

# --- pictures ----------------------------------------------------------------------------------


def test_the_demo_portrait_opens(portrait_path: Path) -> None:
    image = Image.open(portrait_path)

    assert (image.width, image.height, image.has_alpha) == (512, 512, False)
    assert image.original() == Encoded(portrait_path.read_bytes(), "png")
    assert repr(image) == "Image(pixels=<uint8 (512, 512, 3)>)"


def test_grey_arrays_become_rgb_and_alpha_stays() -> None:
    grey = Image.open(RAMP[..., 0])
    clear = Image.open(np.zeros((3, 5, 4), np.uint8))

    assert grey.pixels.shape == (6, 8, 3)
    assert (grey.pixels == RAMP[..., :1]).all()
    assert clear.has_alpha
    assert (clear.width, clear.height) == (5, 3)


def test_nobody_can_change_the_pixels() -> None:
    array = RAMP.copy()
    image = Image.open(array)
    array[:] = 0

    assert (image.pixels == RAMP).all()
    with pytest.raises(ValueError, match="read-only"):
        image.pixels[0] = 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        image.pixels = array  # type: ignore[misc]


def test_arrays_that_nobody_can_change_are_not_copied() -> None:
    array = RAMP.copy()
    array.flags.writeable = False

    assert Image(array).pixels is array
    assert Image(array[:, ::2]).pixels.flags.c_contiguous


def test_pillows_image_is_read_and_left_alone() -> None:
    source = PIL.Image.fromarray(RAMP).rotate(90, expand=True)
    source.getexif()[0x0112] = 6

    image = Image.open(source)

    assert (image.pixels == RAMP).all()
    assert source.size == (6, 8)
    assert image.original().type == "png"
    assert (Image.open(image.original().data).pixels == image.pixels).all()


def test_a_picture_from_an_array_is_stored_as_png() -> None:
    original = Image.open(RAMP).original()

    assert original.type == "png"
    assert (Image.open(original.data).pixels == RAMP).all()
    assert repr(original) == f"Encoded(data=<{len(original.data)} bytes>, type='png')"


def test_a_jpeg_keeps_its_very_bytes() -> None:
    data = Image.open(RAMP).encode("jpeg", quality=80)

    assert Image.open(data).original() == Encoded(data, "jpeg")


pictures = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([3, 4]))
)


@settings(deadline=None, max_examples=50)
@given(pictures, pictures)
def test_the_digest_is_that_of_the_pixels(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> None:
    image = Image(one)

    assert len(image.digest) == 64
    assert image.digest == Image.open(image.encode("png")).digest
    assert (image.digest == Image(other).digest) == np.array_equal(one, other)


def test_the_digest_tells_shapes_apart() -> None:
    assert Image(RAMP).digest != Image(RAMP.reshape(8, 6, 3)).digest


@pytest.mark.parametrize(
    "again", [lambda v: pickle.loads(pickle.dumps(v)), copy.deepcopy, copy.copy]
)
def test_pictures_pickle(again: Callable[[Image], Image]) -> None:
    for image in (Image.open(PNG), Image.open(RAMP)):
        copied = again(image)

        assert copied.digest == image.digest
        assert copied.original() == image.original()
        assert not copied.pixels.flags.writeable


def test_pictures_are_compared_by_identity() -> None:
    one, other = Image(RAMP), Image(RAMP)

    assert one != other
    assert len({one, other}) == 2


def test_cropping_keeps_what_is_in_the_box() -> None:
    part = Image(RAMP).cropped((1, 2, 4, 6))

    assert (part.width, part.height) == (3, 4)
    assert (part.pixels == RAMP[2:6, 1:4]).all()


@pytest.mark.parametrize(
    "box", [(-1, 0, 4, 4), (0, 0, 9, 4), (0, 0, 4, 7), (3, 3, 3, 5), (4, 2, 1, 5)]
)
def test_boxes_beyond_the_picture_are_a_value_error(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="not within the picture of 8x6"):
        Image(RAMP).cropped(box)


def test_resizing_keeps_colours_and_alpha() -> None:
    image = Image(np.full((10, 10, 4), (10, 20, 30, 40), np.uint8)).resized(3, 7)

    assert (image.width, image.height, image.has_alpha) == (3, 7, True)
    assert np.abs(image.pixels.astype(int) - (10, 20, 30, 40)).max() <= 3
    with pytest.raises(ValueError, match="> 0"):
        image.resized(0, 5)


def test_jpeg_of_a_transparent_picture_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="background"):
        Image(np.zeros((4, 4, 4), np.uint8)).encode("jpeg")


# --- recordings --------------------------------------------------------------------------------


def test_the_demo_speech_opens(speech_path: Path) -> None:
    speech = Speech.open(speech_path)

    assert (speech.duration, speech.sample_rate, speech.channels) == (10.0, 16_000, 1)
    assert speech.peak == pytest.approx(0.8, abs=0.001)
    assert not speech.silent
    assert speech.original() == Encoded(speech_path.read_bytes(), "wav")
    assert repr(speech) == "Speech(samples=<float32 (1, 160000)>, sample_rate=16000)"


def test_samples_come_in_many_forms() -> None:
    one = Speech(BEEP, 16_000)
    for array in (BEEP[None], BEEP.astype(np.float64)):
        assert Speech.open((array, np.int32(16_000))).digest == one.digest
    integers = Speech.open((np.array([[0, 16_384], [-32_768, 0]], np.int16), 8_000))
    assert integers.samples.tolist() == [[0, 0.5], [-1, 0]]
    assert type(integers.sample_rate) is int


def test_nobody_can_change_the_samples() -> None:
    array = BEEP.copy()
    speech = Speech(array, 16_000)
    array[:] = 0

    assert speech.peak > 0.4
    with pytest.raises(ValueError, match="read-only"):
        speech.samples[0] = 1


def test_a_recording_from_samples_is_stored_as_wav() -> None:
    speech = Speech(np.stack([BEEP, -BEEP / 2]), 22_050)

    again = Speech.open(speech.original().data)

    assert speech.original().type == "wav"
    assert (again.sample_rate, again.channels) == (22_050, 2)
    assert np.abs(again.samples - speech.samples).max() <= 1 / 32767


def test_mono_is_the_mean_of_all_channels() -> None:
    stereo = Speech(np.stack([BEEP, BEEP / 3]), 16_000)

    mono = stereo.mono()

    assert mono.samples.shape == (1, 1_600)
    np.testing.assert_allclose(mono.samples[0], BEEP * 2 / 3, atol=1e-6)
    assert mono.mono() is mono
    assert mono.original().data != stereo.original().data


def test_the_peak_counts_both_ways() -> None:
    assert Speech(np.array([-0.75, 0.5]), 10).peak == 0.75
    assert Speech(np.array([0.25, 0.5]), 10).peak == 0.5


@pytest.mark.parametrize(("level", "silent"), [(0.0, True), (0.0009, True), (0.0011, False)])
def test_silence_is_accepted_with_a_warning(
    level: float, silent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    samples = np.full(100, level)

    with caplog.at_level(logging.WARNING, "talkgen.media"):
        speech = Speech.open((samples, 100))

    assert speech.silent is silent
    assert ["silent" in record.message for record in caplog.records] == [True] * silent


def test_silence_that_is_restored_is_not_told_again(caplog: pytest.LogCaptureFixture) -> None:
    silent = Speech.open(Speech(np.zeros(100), 1_000).original().data)
    caplog.clear()

    again = Speech.restored(silent.lossless(), 1_000)

    assert again.silent
    assert not caplog.records


def test_a_silent_file_is_named_in_the_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "nothing.wav"
    path.write_bytes(Speech(np.zeros(100), 8_000).original().data)

    Speech.open(path)

    assert [record.message for record in caplog.records] == [f"{path}: The recording is silent."]


def test_the_digest_is_that_of_the_sound() -> None:
    speech = Speech.open(WAV)

    assert speech.digest == Speech(speech.samples, 16_000).digest
    assert speech.digest != Speech(speech.samples, 8_000).digest
    assert speech.digest != Speech(speech.samples.reshape(2, -1), 16_000).digest


@pytest.mark.parametrize("again", [lambda v: pickle.loads(pickle.dumps(v)), copy.deepcopy])
def test_recordings_pickle(again: Callable[[Speech], Speech]) -> None:
    for speech in (Speech.open(WAV), Speech(BEEP, 16_000)):
        copied = again(speech)

        assert copied.digest == speech.digest
        assert copied.original() == speech.original()
        assert not copied.samples.flags.writeable


def test_text_is_something_to_say() -> None:
    assert Text("Hello.") == Text("Hello.", voice=None)
    assert Text("Hello.").digest == Text("Hello.").digest
    assert len({Text("a").digest, Text("b").digest, Text("a", "b").digest}) == 3
    for blank in ("", "  \n"):
        with pytest.raises(ValueError, match="nothing to say"):
            Text(blank)
    with pytest.raises(TypeError, match="str"):
        Text(3)  # type: ignore[arg-type]


# --- videos ------------------------------------------------------------------------------------

FILE = FileRef("task-1", "videos", "task-1_final.mp4", 5, "0" * 64, "https://cdn.example/v.mp4")


class Shelf:
    """A storage of one file, that lets go of the event loop before it answers."""

    def __init__(self, data: bytes | None = b"video") -> None:
        self.data = data

    async def get(self, file: FileRef) -> bytes:
        await anyio.lowlevel.checkpoint()
        if self.data is None:
            raise FileMissing(f"{file.name} is gone.")
        return self.data


def video(reader: Any = None) -> Video:
    return Video(FILE, duration=10.0, fps=25.0, size=(512, 512), reader=reader)


def test_a_video_reads_and_saves_outside_a_loop(tmp_path: Path) -> None:
    target = tmp_path / "hello.mp4"
    target.write_bytes(b"an older one")

    assert video(Shelf()).read() == b"video"
    assert video(Shelf()).save(str(target)) == target
    assert target.read_bytes() == b"video"
    assert [path.name for path in tmp_path.iterdir()] == ["hello.mp4"]


async def test_a_video_reads_and_saves_inside_a_loop(tmp_path: Path) -> None:
    film = video(Shelf())

    assert film.read() == b"video"
    assert film.save(tmp_path / "a.mp4").read_bytes() == b"video"
    assert await film.aread() == b"video"
    assert (await film.asave(tmp_path / "b.mp4")).read_bytes() == b"video"


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_others_may_read_a_saved_video(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()

    saved = video(Shelf()).save(tmp_path / "v.mp4")

    assert saved.stat().st_mode == usual.stat().st_mode


def test_a_very_long_name_can_be_saved(tmp_path: Path) -> None:
    assert video(Shelf()).save(tmp_path / ("v" * 250 + ".mp4")).exists()


def test_a_folder_is_no_place_for_a_video(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="add the name of the video") as caught:
        video(Shelf()).save(tmp_path)

    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folders_are_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="This folder does not exist") as caught:
        video(Shelf()).save(tmp_path / "new" / "v.mp4")

    assert caught.value.filename == str(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_reading_leaves_the_older_file(tmp_path: Path) -> None:
    target = tmp_path / "v.mp4"
    target.write_bytes(b"an older one")

    with pytest.raises(FileMissing, match="is gone"):
        video(Shelf(None)).save(target)

    assert target.read_bytes() == b"an older one"


def test_a_failed_writing_leaves_no_half_file(tmp_path: Path) -> None:
    target = tmp_path / "v.mp4"
    target.mkdir()

    with pytest.raises(OSError, match=r"v\.mp4"):
        media._write_whole(target, b"video")

    assert list(tmp_path.iterdir()) == [target]


async def test_a_video_without_a_reader_is_not_ready(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"task-1_final\.mp4") as caught:
        await video().aread()
    with pytest.raises(NotReady):
        video().read()
    with pytest.raises(NotReady):
        await video().asave(tmp_path / "v.mp4")

    assert "storage.get" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("again", [lambda v: pickle.loads(pickle.dumps(v)), copy.copy])
def test_a_pickled_video_has_its_facts_and_no_reader(again: Callable[[Video], Video]) -> None:
    copied = again(video(Shelf()))

    assert copied.file == FILE
    assert (copied.duration, copied.fps, copied.size) == (10.0, 25.0, (512, 512))
    assert copied.reader is None


def test_a_video_shows_facts_and_no_reader() -> None:
    assert video().url == "https://cdn.example/v.mp4"
    assert "reader" not in repr(video(Shelf()))


# --- weight ------------------------------------------------------------------------------------


def test_the_values_cost_nothing_until_one_is_opened() -> None:
    code = """if True:
        import sys
        import talkgen.media
        heavy = {"numpy", "PIL", "av", "cv2", "scipy", "httpx", "talkgen.codecs"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_everything_named_public_is_there() -> None:
    assert media.__all__ == sorted(media.__all__)
    assert all(hasattr(media, name) for name in media.__all__)
