"""Paths, bytes and files, and every bad input that they refuse."""

import io
import os
import pickle
import tempfile
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from talkgen import codecs
from talkgen.errors import (
    AudioNotFound,
    AudioUnreadable,
    ImageNotFound,
    ImageUnreadable,
    InvalidAudio,
    InvalidImage,
    InvalidInput,
    Severity,
)
from talkgen.media import Image, Speech

from .samples import BEEP, PNG, RAMP, WAV

Opener = Callable[..., Any]
OPENERS = [
    pytest.param(Image.open, InvalidImage, PNG, id="Image"),
    pytest.param(Speech.open, InvalidAudio, WAV, id="Speech"),
]
both = pytest.mark.parametrize(("opens", "invalid", "good"), OPENERS)


def assert_refused(
    opens: Opener, source: object, error: type[InvalidInput], message: str, **limits: Any
) -> InvalidInput:
    """Everything that a refusal owes to the one who reads it."""
    with pytest.raises(error, match=message) as caught:
        opens(source, **limits)
    refusal = caught.value
    assert refusal.severity is Severity.PERMANENT
    assert isinstance(refusal, ValueError)
    assert refusal.hint
    assert str(refusal) == refusal.message == refusal.args[0]
    return refusal


# --- where from --------------------------------------------------------------------------------


@both
def test_paths_bytes_and_files_hold_the_same(
    opens: Opener, invalid: object, good: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a name with spaces and ü"
    path.write_bytes(good)
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        sources = [path, str(path), good, bytearray(good), memoryview(good)]
        values = [opens(source) for source in [*sources, io.BytesIO(good), file, raw]]

    assert len({value.digest for value in values}) == 1
    assert {value.original() for value in values} == {values[0].original()}
    assert values[0].original().data == good


@both
def test_a_value_is_given_back_as_it_is(opens: Opener, invalid: object, good: bytes) -> None:
    value = opens(good)

    assert opens(value, max_bytes=1) is value


@both
def test_a_file_is_read_from_where_it_stands_and_left_open(
    opens: Opener, invalid: object, good: bytes
) -> None:
    file = io.BytesIO(b"header" + good)
    file.seek(6)

    assert opens(file).original().data == good
    assert not file.closed


class Dripping(io.RawIOBase):
    """A connection that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self.rest = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self.rest.read(min(size, 100))


@both
def test_a_file_may_give_fewer_bytes_than_asked(
    opens: Opener, invalid: type[InvalidInput], good: bytes
) -> None:
    assert opens(Dripping(good)).original().data == good
    assert_refused(opens, Dripping(good), invalid, "more bytes", max_bytes=len(good) - 1)


# --- bad input ---------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("source", [b"", bytearray(), io.BytesIO()])
def test_empty_sources_are_refused(
    opens: Opener, invalid: type[InvalidInput], good: bytes, source: object
) -> None:
    assert_refused(opens, source, invalid, "is empty")


@both
def test_an_empty_file_is_refused_by_name(
    opens: Opener, invalid: type[InvalidInput], good: bytes, tmp_path: Path
) -> None:
    (tmp_path / "empty.png").touch()

    refusal = assert_refused(opens, tmp_path / "empty.png", invalid, "is empty")

    assert str(refusal).startswith(f"{tmp_path / 'empty.png'}: ")


@both
def test_text_under_another_name_is_refused(
    opens: Opener, invalid: type[InvalidInput], good: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "me.png"
    path.write_text("I am not what my name says.\n" * 100)

    assert_refused(opens, path, invalid, r"me\.png: This is not a (picture|recording)")


@both
def test_a_truncated_file_is_refused(
    opens: Opener, invalid: type[InvalidInput], good: bytes
) -> None:
    assert_refused(opens, good[: len(good) // 2], invalid, "the bytes: .* truncated")


def test_a_truncated_jpeg_is_not_half_grey() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = codecs.encode_image(noise, "jpeg")

    assert_refused(Image.open, data[: len(data) * 2 // 3], InvalidImage, "truncated")


@both
def test_too_many_bytes_are_refused(
    opens: Opener, invalid: type[InvalidInput], good: bytes
) -> None:
    limit = len(good) - 1

    refusal = assert_refused(opens, good, invalid, f"limit of {limit}", max_bytes=limit)

    assert "max_bytes=" in (refusal.hint or "")
    assert opens(good, max_bytes=len(good))


@both
def test_no_more_is_read_than_the_limit(
    opens: Opener, invalid: type[InvalidInput], good: bytes
) -> None:
    file = io.BytesIO(bytes(1_000_000))

    assert_refused(opens, file, invalid, "more bytes", max_bytes=1_000)

    assert file.tell() == 1_001


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file here")
@both
def test_an_endless_file_is_refused(
    opens: Opener, invalid: type[InvalidInput], good: bytes
) -> None:
    assert_refused(opens, "/dev/zero", invalid, "more bytes", max_bytes=1_000)


@pytest.mark.parametrize("source", [RAMP, PIL.Image.fromarray(RAMP), PNG])
def test_too_many_pixels_are_refused(source: Any) -> None:
    refusal = assert_refused(Image.open, source, InvalidImage, "8x6 pixels", max_pixels=47)

    assert "max_pixels=" in (refusal.hint or "")
    assert Image.open(source, max_pixels=48).width == 8


@pytest.mark.parametrize("source", [WAV, (BEEP, 16_000)])
def test_too_many_seconds_are_refused(source: Any) -> None:
    refusal = assert_refused(Speech.open, source, InvalidAudio, "longer", max_seconds=0.09)

    assert "max_seconds=" in (refusal.hint or "")
    assert Speech.open(source, max_seconds=0.1).duration == 0.1


def test_the_usual_limit_is_ten_minutes() -> None:
    silence = np.zeros(601 * 100, np.float32)

    assert_refused(Speech.open, (silence, 100), InvalidAudio, "limit of 600 s")
    assert Speech.open((silence[: 600 * 100], 100)).duration == 600


def test_zero_length_audio_is_refused() -> None:
    empty = io.BytesIO()
    with wave.open(empty, "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))

    assert_refused(Speech.open, empty.getvalue(), InvalidAudio, "no samples")
    assert_refused(Speech.open, (np.zeros(0, np.float32), 16_000), InvalidAudio, "no samples")


@both
def test_a_folder_is_refused(
    opens: Opener, invalid: type[InvalidInput], good: bytes, tmp_path: Path
) -> None:
    assert_refused(opens, tmp_path, invalid, "This is a folder")


@pytest.mark.parametrize(
    ("opens", "error"), [(Image.open, ImageNotFound), (Speech.open, AudioNotFound)]
)
@pytest.mark.parametrize("name", ["nothing.here", "file/as/folder"])
def test_a_missing_file_is_not_found(
    opens: Opener, error: type[InvalidInput], name: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    refusal = assert_refused(opens, tmp_path / name, error, "There is no such file")

    assert isinstance(refusal, FileNotFoundError)
    assert name in str(refusal)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
@pytest.mark.parametrize(
    ("opens", "error"), [(Image.open, ImageUnreadable), (Speech.open, AudioUnreadable)]
)
def test_a_file_that_may_not_be_read(
    opens: Opener, error: type[InvalidInput], tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(PNG)
    path.chmod(0)

    assert isinstance(assert_refused(opens, path, error, "may not be read"), PermissionError)


class Failing(io.RawIOBase):
    """A disk that fails in its own way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def read(self, size: int = -1) -> bytes:
        raise self.error


@pytest.mark.parametrize(
    ("error", "image_error", "audio_error", "message"),
    [
        (PermissionError(13, "Permission denied"), ImageUnreadable, AudioUnreadable, "may not be"),
        (OSError(5, "Input/output error"), InvalidImage, InvalidAudio, "Input/output error"),
        (io.UnsupportedOperation("not readable"), InvalidImage, InvalidAudio, "not readable"),
        (ValueError("I/O operation on closed file"), InvalidImage, InvalidAudio, "closed file"),
    ],
)
def test_what_the_system_says_is_told(
    error: Exception,
    image_error: type[InvalidInput],
    audio_error: type[InvalidInput],
    message: str,
) -> None:
    for opens, expected in [(Image.open, image_error), (Speech.open, audio_error)]:
        refusal = assert_refused(opens, Failing(error), expected, message)
        assert type(refusal) is expected
        assert refusal.__cause__ is error


@both
@pytest.mark.parametrize("name", ["nul\0l", "x" * 5_000])
def test_names_that_no_file_can_have_are_refused(
    opens: Opener, invalid: type[InvalidInput], good: bytes, name: str
) -> None:
    refusal = assert_refused(opens, name, invalid, "cannot be read|no such file")

    assert len(str(refusal)) < 400


@both
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/me.jpg",
        "HTTPS://example.org/a.wav",
        "s3://bucket/key",
        "file:///etc/hostname",
        "data:image/png;base64,iVBORw0KGgo=",
    ],
)
def test_urls_are_never_fetched(
    opens: Opener, invalid: type[InvalidInput], good: bytes, url: str
) -> None:
    refusal = assert_refused(opens, url, invalid, "Nothing is fetched")

    assert "Download it first" in (refusal.hint or "")


@both
def test_a_file_open_as_text_is_a_type_error(
    opens: Opener, invalid: object, good: bytes, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("text")

    with (tmp_path / "text").open() as file, pytest.raises(TypeError, match="'rb'"):
        opens(file)


class AsynchronousFile:
    """As frameworks hand uploads over."""

    def __init__(self) -> None:
        self.reading: Any = None

    def read(self, size: int) -> Any:
        self.reading = self._read(size)
        return self.reading

    async def _read(self, size: int) -> bytes:
        raise AssertionError


@both
def test_an_asynchronous_file_is_a_type_error(opens: Opener, invalid: object, good: bytes) -> None:
    file = AsynchronousFile()

    with pytest.raises(TypeError, match=r"gave coroutine.* await file\.read"):
        opens(file)

    file.reading.close()


@both
@pytest.mark.parametrize("source", [None, 3, ["a"], object(), {"image": b""}])
def test_what_holds_nothing_is_a_type_error(
    opens: Opener, invalid: object, good: bytes, source: object
) -> None:
    with pytest.raises(TypeError, match=type(source).__name__):
        opens(source)


@pytest.mark.parametrize(
    "array",
    [np.full((4, 4, 3), np.nan), np.zeros((4, 4, 3)), np.zeros((4, 2), bool), np.zeros((2, 2, 2))],
)
def test_arrays_that_are_no_picture_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(InvalidImage, match=r"the ndarray: An array of .* is not a picture"):
        Image.open(array)


@pytest.mark.parametrize(
    "source",
    [
        (np.array([0, np.nan]), 8_000),
        (np.zeros((1, 2, 3)), 8_000),
        (BEEP, 0),
        (BEEP, -1),
        (np.zeros((8_000, 2), np.float32), 96_000),
    ],
)
def test_arrays_that_are_no_sound_are_refused(source: tuple[Any, int]) -> None:
    with pytest.raises(InvalidAudio, match="the tuple: "):
        Speech.open(source)


@pytest.mark.parametrize("source", [(BEEP,), (16_000, BEEP), ([0.0, 0.1], 8_000), (BEEP, 8_000.5)])
def test_samples_without_a_rate_are_a_type_error(source: Any) -> None:
    with pytest.raises(TypeError):
        Speech.open(source)


def test_a_temporary_file_is_called_what_it_is() -> None:
    with tempfile.TemporaryFile() as file:  # its name is a number on some systems
        file.write(b"no picture")
        file.seek(0)
        assert_refused(Image.open, file, InvalidImage, ": This is not a picture")


def test_nothing_is_unpickled() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.abort, ()

    saved = io.BytesIO()
    np.save(saved, np.array([Trap()], object), allow_pickle=True)
    for data in (pickle.dumps(Trap()), saved.getvalue()):
        assert_refused(Image.open, data, InvalidImage, "not a picture")
        assert_refused(Speech.open, data, InvalidAudio, "not a recording")
