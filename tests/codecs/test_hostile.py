"""What hostile bytes may do: nothing but be refused."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from talkgen import codecs
from talkgen.codecs.pictures import IMAGE_FORMATS
from talkgen.errors import InvalidAudio, InvalidImage

from .files import (
    gradient,
    heard,
    opened,
    quick,
    saved,
    sounding,
    tone,
)

SMALL = gradient(9, 11)
PICTURES = {
    kind: saved(Image.fromarray(SMALL), kind)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
}
SOUNDS = {
    "wav": codecs.encode_wav(tone(4_000, 2, 0.2), 4_000),
    "mp3": sounding("mp3", "libmp3lame", seconds=0.3),
    "flac": sounding("flac", "flac", seconds=0.2),
    "m4a": sounding("ipod", "aac", seconds=0.2),
    "ogg": sounding("ogg", "libopus", rate=48_000, seconds=0.2),
}


def decoded_or_refused(decode: Callable[[bytes], Any], data: bytes, error: type[Exception]) -> None:
    """Any other error fails the test."""
    with contextlib.suppress(error):
        decode(data)


@quick
@given(st.sampled_from(sorted(PICTURES)), st.floats(0, 1))
def test_any_beginning_of_a_picture_decodes_or_is_refused(kind: str, share: float) -> None:
    data = PICTURES[kind]
    decoded_or_refused(opened, data[: int(len(data) * share)], InvalidImage)


@quick
@given(st.sampled_from(sorted(SOUNDS)), st.floats(0, 1))
def test_any_beginning_of_a_sound_decodes_or_is_refused(kind: str, share: float) -> None:
    data = SOUNDS[kind]
    decoded_or_refused(heard, data[: int(len(data) * share)], InvalidAudio)


def damaged(data: bytes, damage: list[tuple[float, int]]) -> bytes:
    changed = bytearray(data)
    for where, value in damage:
        changed[int(where * (len(data) - 1))] = value
    return bytes(changed)


damage = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8)


@quick
@given(st.sampled_from(sorted(PICTURES)), damage)
def test_any_damage_to_a_picture_decodes_or_is_refused(
    kind: str, where: list[tuple[float, int]]
) -> None:
    decoded_or_refused(opened, damaged(PICTURES[kind], where), InvalidImage)


@quick
@given(st.sampled_from(sorted(SOUNDS)), damage)
def test_any_damage_to_a_sound_decodes_or_is_refused(
    kind: str, where: list[tuple[float, int]]
) -> None:
    decoded_or_refused(heard, damaged(SOUNDS[kind], where), InvalidAudio)


MAGIC = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 ", b"BM"]
MAGIC += [b"II*\0", b"P6 3 3 255\n", b"RIFF\0\0\0\0WAVEfmt ", b"fLaC", b"OggS", b"ID3"]


@quick
@given(st.sampled_from(MAGIC), st.binary(max_size=2_000))
def test_random_bytes_decode_or_are_refused(magic: bytes, data: bytes) -> None:
    decoded_or_refused(opened, magic + data, InvalidImage)
    decoded_or_refused(heard, magic + data, InvalidAudio)


# --- manners -----------------------------------------------------------------------------------


def test_the_globals_of_pillow_stay_as_they_were() -> None:
    """In an interpreter of its own, where nothing else has imported Pillow."""
    code = """if True:
        from PIL import Image, ImageFile
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        from talkgen import codecs
        codecs.decode_image(codecs.encode_image(__import__("numpy").zeros((2, 2), "u1"), "png"),
                            max_pixels=4)
        assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == before
    """
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_everything_named_public_is_there() -> None:
    assert codecs.__all__ == sorted(codecs.__all__)
    assert all(callable(getattr(codecs, name)) for name in codecs.__all__)
    assert len(set(IMAGE_FORMATS.values())) == len(IMAGE_FORMATS)
