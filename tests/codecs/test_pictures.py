"""Pictures of every format, mode and depth."""

import io
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image, ImageOps

from talkgen import codecs
from talkgen.errors import InvalidImage, MediaFailed, Severity

from .files import (
    MAX_PIXELS,
    WAV,
    chunk,
    gradient,
    opened,
    png,
    quick,
    saved,
)


@pytest.mark.parametrize(
    ("kind", "options", "suffix", "tolerance"),
    [
        ("PNG", {}, "png", 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, "jpeg", 12),
        ("JPEG", {"progressive": True, "quality": 95, "subsampling": 0}, "jpeg", 12),
        ("WEBP", {"lossless": True}, "webp", 0),
        ("WEBP", {"quality": 95}, "webp", 40),
        ("BMP", {}, "bmp", 0),
        ("TIFF", {}, "tiff", 0),
        ("TIFF", {"compression": "tiff_lzw"}, "tiff", 0),
        ("AVIF", {"quality": 95}, "avif", 40),
        ("PPM", {}, "ppm", 0),
        ("GIF", {}, "gif", 64),
        ("MPO", {"quality": 95, "subsampling": 0}, "jpeg", 12),
    ],
)
def test_pictures_of_every_format_open(
    kind: str, options: dict[str, Any], suffix: str, tolerance: int
) -> None:
    source = gradient()

    pixels, found = codecs.decode_image(
        saved(Image.fromarray(source), kind, **options), max_pixels=MAX_PIXELS
    )

    assert found == suffix
    assert pixels.shape == source.shape
    assert np.abs(pixels.astype(int) - source).max() <= tolerance
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert not pixels.flags.writeable


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_pictures_are_turned_upright(kind: str, orientation: int) -> None:
    image = Image.fromarray(gradient())
    image.getexif()[0x0112] = orientation
    data = saved(image, kind, exif=image.getexif(), quality=100)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))

    pixels = opened(data)

    assert pixels.shape == ((32, 24, 3) if orientation >= 5 else (24, 32, 3))
    np.testing.assert_array_equal(pixels, expected)


def test_an_orientation_that_does_not_exist_turns_nothing() -> None:
    image = Image.fromarray(gradient())
    image.getexif()[0x0112] = 77

    np.testing.assert_array_equal(opened(saved(image, "PNG", exif=image.getexif())), gradient())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "notes", [b"Exif\0\0", b"Exif\0\0what is this", b"Exif\0\0II*\0\xff\xff\xff\x7f"]
)
def test_damaged_notes_do_not_damage_the_picture(notes: bytes) -> None:
    data = saved(Image.fromarray(gradient()), "PNG", exif=notes)

    np.testing.assert_array_equal(opened(data), gradient())


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX", "RGB"])
def test_modes_without_transparency_become_rgb(mode: str) -> None:
    image = Image.fromarray(gradient()).convert(mode)

    pixels = codecs.pixels_of(image, max_pixels=MAX_PIXELS)

    assert pixels is not None
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA", "RGBa"])
def test_modes_with_transparency_become_rgba(mode: str) -> None:
    image = Image.fromarray(gradient()).convert("P" if mode == "PA" else "RGBA").convert(mode)

    pixels = codecs.pixels_of(image, max_pixels=MAX_PIXELS)

    assert pixels is not None
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGBA")))


def test_cmyk_jpeg_opens_in_its_colours() -> None:
    red = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)

    assert np.abs(opened(red)[4, 4].astype(int) - (255, 0, 0)).max() < 6


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(saved(Image.new("P", (4, 4)), "PNG", transparency=0), id="one entry"),
        pytest.param(
            saved(Image.new("P", (4, 4)), "PNG", transparency=b"\0\x80\xff"), id="many entries"
        ),
        pytest.param(saved(Image.new("P", (4, 4)), "GIF", transparency=0), id="gif"),
        pytest.param(saved(Image.new("L", (4, 4)), "PNG", transparency=0), id="grey"),
        pytest.param(saved(Image.new("RGB", (4, 4)), "PNG", transparency=(0, 0, 0)), id="colour"),
    ],
)
def test_a_transparent_colour_becomes_alpha(data: bytes) -> None:
    pixels = opened(data)

    assert pixels.shape == (4, 4, 4)
    assert not pixels[..., 3].any()


DEEP = np.array([[0, 257, 0x8000, 0xFFFF]], np.uint16)
EIGHT = [0, 1, 128, 255]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(saved(Image.fromarray(DEEP), "PNG"), id="png"),
        pytest.param(saved(Image.fromarray(DEEP), "TIFF"), id="tiff"),
        pytest.param(
            saved(Image.frombytes("I;16B", (4, 1), DEEP.astype(">u2").tobytes()), "TIFF"),
            id="big-endian tiff",
        ),
        pytest.param(b"P5 4 1 65535\n" + DEEP.astype(">u2").tobytes(), id="pgm"),
        pytest.param(
            png(4, 1, 16, 0, b"\0" + DEEP.astype(">u2").tobytes(), chunk(b"tRNS", b"\0\1")),
            id="png with a transparent grey",
        ),
    ],
)
def test_sixteen_bits_of_grey_are_scaled(data: bytes) -> None:
    assert opened(data)[0, :, :3].tolist() == [[value] * 3 for value in EIGHT]


def test_a_transparent_grey_of_sixteen_bits_is_that_one_alone() -> None:
    """0x8000 is transparent, 0x8001 is not, though in eight bits both are 128."""
    row = b"\0" + struct.pack(">3H", 0x8000, 0x8001, 0xFFFF)

    pixels = opened(png(3, 1, 16, 0, row, chunk(b"tRNS", b"\x80\0")))

    assert pixels[0].tolist() == [[128, 128, 128, 0], [128, 128, 128, 255], [255] * 4]


@pytest.mark.parametrize(
    ("colour", "values", "expected"),
    [
        (2, (0xFFFF, 0x8000, 0), [255, 128, 0]),
        (4, (0xFFFF, 0x8000), [255, 255, 255, 128]),
        (6, (0xFFFF, 0x8000, 0, 0x4000), [255, 128, 0, 64]),
    ],
)
def test_sixteen_bits_of_colour_are_scaled(
    colour: int, values: tuple[int, ...], expected: list[int]
) -> None:
    row = b"\0" + struct.pack(f">{len(values)}H", *values)

    assert opened(png(1, 1, 16, colour, row))[0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("F", (4, 4)), "floating-point"),
        (Image.new("I", (4, 4), 70_000), "more than 16 bits"),
        (Image.new("I", (4, 4), -1), "more than 16 bits"),
    ],
)
def test_pixels_that_have_no_eight_bit_form_are_refused(image: Image.Image, message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        opened(saved(image, "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    options = {} if kind in {"GIF", "TIFF", "PNG"} else {"quality": 100}
    data = saved(red, kind, save_all=True, append_images=[blue], **options)

    pixels = opened(data)

    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert np.abs(pixels[4, 4, :3].astype(int) - (255, 0, 0)).max() < 6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"hello, I am no picture", "not a picture", id="text"),
        pytest.param(b"", "not a picture", id="nothing"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture", id="svg"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a picture", id="postscript"),
        pytest.param(b"\x93NUMPY\x01\0", "not a picture", id="npy"),
        pytest.param(b"\0\0\0\x18ftypheic", "not a picture", id="heic"),
        pytest.param(WAV, "not a picture", id="wav"),
        pytest.param(png(0, 5, 8, 2, b"\0"), "truncated or damaged", id="no width"),
        pytest.param(
            png(2, 2, 8, 2, b"\0").replace(b"IDAT", b"iDAT"), "truncated or damaged", id="no data"
        ),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidImage, match=message) as caught:
        opened(data)

    assert caught.value.severity is Severity.PERMANENT
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
def test_half_a_picture_is_refused(kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    data = saved(Image.fromarray(noise), kind)

    with pytest.raises(InvalidImage, match="truncated or damaged"):
        opened(data[: len(data) // 2])


@pytest.mark.parametrize("side", [1001, 20_000, 60_000])
def test_a_decompression_bomb_is_refused_from_its_header(side: int) -> None:
    """Pillow warns of the second and raises at the third; here each is a limit of the caller's."""
    bomb = png(side, side, 8, 2, b"\0")

    with pytest.raises(InvalidImage, match=f"{side}x{side} pixels") as caught:
        opened(bomb)

    assert "max_pixels" in (caught.value.hint or "")


def test_a_bomb_that_pillow_finds_first_is_refused_alike() -> None:
    side = 16_384 - 1  # WebP's largest, beyond the bound that Pillow has for it
    size = struct.pack("<I", side)[:3] * 2
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size
    bomb = b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas

    with pytest.raises(InvalidImage):
        opened(bomb)


def test_the_callers_limit_counts_and_pillows_does_not() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    side = math.isqrt(Image.MAX_IMAGE_PIXELS) + 1
    without_rows = png(side, side, 1, 0, b"")

    with pytest.raises(InvalidImage, match="truncated or damaged"):
        codecs.decode_image(without_rows, max_pixels=side * side)


@quick
@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([3, 4])),
    )
)
def test_png_is_lossless(pixels: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(opened(codecs.encode_image(pixels, "png")), pixels)


@quick
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_grey_png_keeps_one_channel(mask: NDArray[np.uint8]) -> None:
    data = codecs.encode_image(mask, "png")

    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), mask)


def test_jpeg_takes_a_quality_and_no_alpha() -> None:
    fine = codecs.encode_image(gradient(), "jpeg", quality=95)
    coarse = codecs.encode_image(gradient(), "jpeg", quality=10)

    assert len(coarse) < len(fine)
    assert np.abs(opened(fine).astype(int) - gradient()).mean() < 5
    with pytest.raises(ValueError, match="transparency"):
        codecs.encode_image(np.zeros((4, 4, 4), np.uint8), "jpeg")


def test_a_picture_that_a_format_cannot_hold_is_an_error_of_ours() -> None:
    with pytest.raises(MediaFailed, match="70000x1 cannot be jpeg") as caught:
        codecs.encode_image(np.zeros((1, 70_000, 3), np.uint8), "jpeg")

    assert "Make it smaller" in (caught.value.hint or "")


def test_resizing_gives_transparent_pixels_no_say_in_colours() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (255, 0, 0, 255)
    pixels[:, 4:] = (0, 255, 0, 0)

    small = codecs.resize(pixels, 3, 3)

    assert small.shape == (3, 3, 4)
    seen = small[small[..., 3] > 20]
    assert np.abs(seen[:, :3].astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.full((4, 4, 3), np.nan),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4, 3), bool),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((0, 0), np.uint8),
    ],
)
def test_arrays_that_are_no_picture_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(InvalidImage, match="picture"):
        codecs.as_pixels(array)


def test_only_arrays_are_arrays() -> None:
    with pytest.raises(TypeError, match="not list"):
        codecs.as_pixels([[0]])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not int"):
        codecs.as_samples(3)  # type: ignore[arg-type]


def test_what_is_no_pixels_has_none() -> None:
    assert codecs.pixels_of("a path", max_pixels=1) is None


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_a_colour_is_read_however_css_writes_it(colour: tuple[int, int, int]) -> None:
    red, green, blue = colour
    for text in (f"#{red:02x}{green:02X}{blue:02x}", f"rgb({red}, {green}, {blue})"):
        assert codecs.parse_colour(text) == colour
    assert codecs.parse_colour(f"#{red:02x}{green:02x}{blue:02x}ff") == colour


@pytest.mark.parametrize(("text", "told"), [("bluish", "no colour"), ("#00000080", "not opaque")])
def test_what_is_no_opaque_colour_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        codecs.parse_colour(text)
