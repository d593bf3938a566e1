"""Bytes to arrays and back, and what hostile bytes may do: nothing but be refused."""

import contextlib
import io
import math
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image, ImageOps

from talkgen import codecs
from talkgen.codecs.pictures import IMAGE_FORMATS
from talkgen.errors import InvalidAudio, InvalidImage, MediaFailed, Severity

from .memory import growth, on_linux

MAX_PIXELS = 1_000_000
MAX_SECONDS = 60.0

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


# --- material ----------------------------------------------------------------------------------


def gradient(height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """Smooth, and different at each corner."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 3], axis=-1).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(data: bytes) -> NDArray[np.uint8]:
    return codecs.decode_image(data, max_pixels=MAX_PIXELS)[0]


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG made by hand, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tone(rate: int, channels: int = 1, seconds: float = 1.0) -> NDArray[np.float32]:
    """440 Hz, each channel quieter than the one before."""
    wave = np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
    return np.stack([0.5 / (i + 1) * wave for i in range(channels)]).astype(np.float32)


def sounding(
    kind: str,
    codec: str,
    *,
    rate: int = 16_000,
    layout: str = "mono",
    seconds: float = 1.0,
    video: bool = False,
    file: Any = None,
    **options: str,
) -> bytes:
    """A file of sound, encoded by FFmpeg, with a black film beside it where wanted."""
    file = file or io.BytesIO()
    with av.open(file, "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.codec_context.options = {"strict": "experimental"}  # FFmpeg's own Vorbis
        if video:
            film(container, seconds)
        samples = tone(rate, stream.codec_context.channels, seconds)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.read_bytes() if isinstance(file, Path) else file.getvalue()


def film(container: Any, seconds: float) -> None:
    stream = container.add_stream("mpeg4", rate=25, width=64, height=64, pix_fmt="yuv420p")
    for index in range(int(25 * seconds)):
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
        frame.pts, frame.time_base = index, Fraction(1, 25)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def heard(data: bytes, max_seconds: float = MAX_SECONDS) -> tuple[NDArray[np.float32], int, str]:
    return codecs.decode_audio(data, max_seconds=max_seconds)


WAV = codecs.encode_wav(tone(8_000), 8_000)


# --- pictures ----------------------------------------------------------------------------------


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


# --- recordings --------------------------------------------------------------------------------

# Format, codec, and what is asked for; then the suffix and how far the duration may be off: lossy
# encoders begin with a frame or two of their own.
ENCODED = [
    ("wav", "pcm_s16le", {}, "wav", 0.0),
    ("wav", "pcm_u8", {"rate": 8_000}, "wav", 0.0),
    ("wav", "pcm_s24le", {"layout": "stereo", "rate": 48_000}, "wav", 0.0),
    ("wav", "pcm_s32le", {"rate": 192_000}, "wav", 0.0),
    ("wav", "pcm_f32le", {"rate": 11_025}, "wav", 0.0),
    ("wav", "pcm_f64le", {}, "wav", 0.0),
    ("wav", "pcm_mulaw", {"rate": 8_000}, "wav", 0.0),
    ("aiff", "pcm_s16be", {"layout": "stereo"}, "aiff", 0.0),
    ("mp3", "libmp3lame", {"layout": "stereo", "rate": 44_100}, "mp3", 0.01),
    ("ipod", "aac", {"rate": 48_000}, "m4a", 0.07),
    ("ipod", "alac", {"layout": "stereo"}, "m4a", 0.0),
    ("mp4", "aac", {"rate": 44_100, "movflags": "frag_keyframe+empty_moov"}, "m4a", 0.07),
    ("mp4", "aac", {"video": True, "layout": "stereo"}, "mp4", 0.2),
    ("mov", "pcm_s16le", {"video": True}, "mp4", 0.0),
    ("adts", "aac", {}, "aac", 0.14),
    ("flac", "flac", {"layout": "stereo", "rate": 96_000}, "flac", 0.0),
    ("flac", "flac", {"layout": "5.1"}, "flac", 0.0),
    ("ogg", "libopus", {"rate": 48_000, "layout": "stereo"}, "ogg", 0.01),
    ("opus", "libopus", {"rate": 24_000}, "ogg", 0.01),
    ("ogg", "vorbis", {"rate": 44_100, "layout": "stereo"}, "ogg", 0.03),
    ("webm", "libopus", {"rate": 48_000}, "webm", 0.02),
    ("matroska", "libopus", {"rate": 48_000, "video": True}, "mkv", 0.02),
    ("avi", "libmp3lame", {"video": True, "rate": 44_100}, "avi", 0.07),
]


@pytest.mark.parametrize(("kind", "codec", "wanted", "suffix", "tolerance"), ENCODED)
def test_sound_of_every_format_is_decoded(
    kind: str, codec: str, wanted: dict[str, Any], suffix: str, tolerance: float
) -> None:
    data = sounding(kind, codec, **wanted)

    samples, rate, found = heard(data)

    opus = codec == "libopus"  # always decodes to 48 kHz
    assert rate == (48_000 if opus else wanted.get("rate", 16_000))
    assert samples.shape[0] == {"stereo": 2, "5.1": 6}.get(wanted.get("layout", ""), 1)
    assert samples.shape[1] / rate == pytest.approx(1.0, abs=tolerance + 1e-9)
    assert found == suffix
    assert samples.dtype == np.float32
    assert samples.flags.c_contiguous
    assert not samples.flags.writeable
    middle = samples[:, samples.shape[1] // 4 : samples.shape[1] // 2]
    assert np.abs(middle[0]).max() == pytest.approx(0.5, abs=0.1)
    assert pitch(middle[0], rate) == pytest.approx(440, abs=8)


def pitch(samples: NDArray[np.float32], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples))
    return float(np.argmax(spectrum) * rate / len(samples))


def test_channels_keep_their_order() -> None:
    samples, _, _ = heard(codecs.encode_wav(tone(8_000, channels=3), 8_000))

    assert np.abs(samples).max(axis=1) == pytest.approx([0.5, 0.25, 0.5 / 3], abs=1e-3)


@quick
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 8), st.integers(1, 50)),
        elements=st.floats(-1, 1, width=32),
    ),
    st.integers(1, 48_000),
)
@example(np.array([[1, -1, 0]], np.float32), 44_100)
@example(np.zeros((2, 1), np.float32), 192_000)
def test_wav_keeps_sixteen_bits(samples: NDArray[np.float32], rate: int) -> None:
    found, found_rate, suffix = heard(codecs.encode_wav(samples, rate))

    assert found_rate == rate
    assert suffix == "wav"
    assert found.shape == samples.shape
    assert np.abs(found - samples).max() <= 1 / 32767


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"hello, I am no recording" * 500, "not a recording", id="text"),
        pytest.param(b"", "not a recording", id="nothing"),
        pytest.param(bytes(5_000), "not a recording", id="zeros"),
        pytest.param(saved(Image.fromarray(gradient()), "PNG"), "not a recording", id="picture"),
        pytest.param(
            b"1\n00:00:00,000 --> 00:00:01,000\nhi\n" * 50, "not a recording", id="subtitles"
        ),
        pytest.param(codecs.encode_wav(np.zeros((1, 0), np.float32), 8_000), "no samples", id="0"),
    ],
)
def test_what_is_no_recording_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidAudio, match=message) as caught:
        heard(data)

    assert caught.value.severity is Severity.PERMANENT
    assert caught.value.hint


def test_a_film_without_sound_is_refused() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        film(container, 0.2)

    with pytest.raises(InvalidAudio, match="no sound in it"):
        heard(file.getvalue())


def test_a_codec_that_nobody_knows_is_refused() -> None:
    strange = WAV.replace(b"fmt \x10\0\0\0\1\0", b"fmt \x10\0\0\0\x99\x99")
    assert strange != WAV

    with pytest.raises(InvalidAudio, match="codec is not known"):
        heard(strange)


@pytest.mark.parametrize(
    "list_of_files",
    [
        b"ffconcat version 1.0\nfile secret.wav\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.wav\n#EXT-X-ENDLIST\n",
        b"[playlist]\nFile1=secret.wav\nNumberOfEntries=1\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    ],
)
def test_lists_of_other_files_are_refused(
    list_of_files: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.wav").write_bytes(WAV)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidAudio, match="not a recording"):
        heard(list_of_files)


def test_the_whitelist_is_what_refuses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, FFmpeg opens the file that the bytes name."""
    (tmp_path / "secret.wav").write_bytes(WAV)
    monkeypatch.chdir(tmp_path)

    with av.open(io.BytesIO(b"ffconcat version 1.0\nfile secret.wav\n")) as container:
        assert container.streams.audio


@pytest.mark.parametrize(
    ("kind", "codec", "options"),
    [
        ("wav", "pcm_s16le", {}),
        ("wav", "adpcm_ms", {}),
        ("flac", "flac", {}),
        ("aiff", "pcm_s16be", {}),
        ("ipod", "aac", {}),
        ("ipod", "aac", {"movflags": "faststart"}),
        ("mp4", "aac", {"video": True, "movflags": "faststart"}),
    ],
)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.85])
def test_a_cut_file_that_states_its_length_is_refused(
    kind: str, codec: str, options: dict[str, Any], kept: float, tmp_path: Path
) -> None:
    data = sounding(kind, codec, file=tmp_path / "sound", **options)
    assert heard(data)[0].size

    with pytest.raises(InvalidAudio):
        heard(data[: int(len(data) * kept)])


@pytest.mark.parametrize(
    ("kind", "codec", "rate"),
    [("mp3", "libmp3lame", 44_100), ("adts", "aac", 16_000), ("ogg", "libopus", 48_000)],
)
def test_a_cut_stream_plays_to_where_it_was_cut(
    kind: str, codec: str, rate: int, capfd: pytest.CaptureFixture[str]
) -> None:
    data = sounding(kind, codec, rate=rate, seconds=4.0)

    samples, found, _ = heard(data[: len(data) // 2])

    assert 0.8 < samples.shape[1] / found < 2.6
    assert capfd.readouterr() == ("", "")  # FFmpeg's own messages are nobody's business


@pytest.mark.parametrize("size", [0, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_wav_from_a_pipe_states_no_length(size: int) -> None:
    at = WAV.index(b"data") + 4
    streamed = WAV[:at] + struct.pack("<I", size) + WAV[at + 4 :]

    assert heard(streamed)[0].shape == (1, 8_000)


def test_wav_with_other_chunks_before_its_sound() -> None:
    at = WAV.index(b"data")
    noted = WAV[:at] + b"LIST\x05\0\0\0hello\0" + WAV[at:]

    assert heard(noted)[0].shape == (1, 8_000)
    with pytest.raises(InvalidAudio, match=r"states 1\.0 s and holds 0\.5 s"):
        heard(noted[: -len(WAV[at + 8 :]) // 2])


def test_flac_from_a_pipe_states_no_length() -> None:
    data = bytearray(sounding("flac", "flac"))
    facts = data.index(b"fLaC") + 8  # the 36-bit count of samples is in bytes 13 to 17
    data[facts + 13] &= 0xF0
    data[facts + 14 : facts + 18] = bytes(4)

    assert heard(bytes(data))[0].shape == (1, 16_000)


def with_damaged_packets(first: int, last: int) -> bytes:
    """AAC, 32 packets, of which those from first to last hold no AAC."""
    data = bytearray(sounding("adts", "aac", seconds=2.0))
    at = number = 0
    while at < len(data):
        size = int.from_bytes(data[at + 3 : at + 6], "big") >> 5 & 0x1FFF  # 13 bits of the header
        if first <= number < last:
            data[at + 7 : at + size] = b"\xff" * (size - 7)
        at, number = at + size, number + 1
    return bytes(data)


def test_a_damaged_packet_is_left_out() -> None:
    whole, rate, _ = heard(with_damaged_packets(0, 0))

    samples, _, _ = heard(with_damaged_packets(15, 16))

    assert 0 < whole.shape[1] - samples.shape[1] <= 0.15 * rate


def test_a_file_of_damaged_packets_is_refused() -> None:
    with pytest.raises(InvalidAudio, match="The recording is damaged"):
        heard(with_damaged_packets(5, 32))


def test_a_recording_that_changes_half_way_is_refused() -> None:
    slow = sounding("mp3", "libmp3lame", rate=32_000)
    fast = sounding("mp3", "libmp3lame", rate=48_000)

    with pytest.raises(InvalidAudio, match="changes its sample rate"):
        heard(slow + fast[fast.index(b"\xff\xfb") :])


def test_the_limit_is_told_with_its_name() -> None:
    with pytest.raises(InvalidAudio, match=r"longer than the limit of 0\.5 s") as caught:
        heard(WAV, max_seconds=0.5)

    assert "max_seconds" in (caught.value.hint or "")
    assert heard(WAV, max_seconds=1.0)[0].size


def test_nothing_beyond_the_limit_is_decoded() -> None:
    """The file is cut, and would be refused for that otherwise."""
    with pytest.raises(InvalidAudio, match="longer than the limit"):
        heard(WAV[: len(WAV) // 2], max_seconds=0.25)


def test_compressed_silence_cannot_ask_for_gigabytes() -> None:
    with pytest.raises(InvalidAudio, match="more than 384000 samples a second"):
        heard(sounding("flac", "flac", rate=96_000, layout="5.1", seconds=0.1))


def test_sound_with_a_cover_is_no_film() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        picture = container.add_stream("mjpeg", width=32, height=24, pix_fmt="yuvj420p")
        picture.disposition = Disposition.attached_pic.value  # all that older PyAV takes
        frame = av.AudioFrame.from_ndarray(tone(16_000), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
        cover = av.Packet(saved(Image.fromarray(gradient()), "JPEG"))
        cover.stream, cover.pts, cover.dts, cover.time_base = picture, 0, 0, Fraction(1)
        container.mux(cover)

    assert heard(file.getvalue())[1:] == (16_000, "m4a")


def with_cover(mp3: bytes, cover: bytes) -> bytes:
    """Put a picture before the sound, as ID3 2.3 has it."""
    body = b"\0image/png\0\3\0" + cover
    notes = b"APIC" + struct.pack(">IH", len(body), 0) + body
    size = bytes(len(notes) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + notes + mp3


@on_linux
def test_a_cover_is_not_decoded() -> None:
    rows = zlib.compress((b"\0" + bytes(3 * 8_000)) * 8_000, 9)  # 192 MB in 190 kB
    cover = png(8_000, 8_000, 8, 2, b"").replace(
        chunk(b"IDAT", zlib.compress(b"")), chunk(b"IDAT", rows)
    )
    data = with_cover(sounding("mp3", "libmp3lame", rate=44_100), cover)

    grown = growth(
        "import sys; from talkgen import codecs",
        "assert codecs.decode_audio(sys.stdin.buffer.read(), max_seconds=2)[2] == 'mp3'",
        data,
    )

    assert grown < 50


@pytest.mark.parametrize(
    ("dtype", "zero", "scale"),
    [("u1", 128, 128), ("<i2", 0, 1 << 15), (">i2", 0, 1 << 15), ("i4", 0, 1 << 31)],
)
def test_integers_are_scaled(dtype: str, zero: int, scale: int) -> None:
    array = np.array([zero - scale, zero, zero + scale // 2], dtype)

    np.testing.assert_array_equal(codecs.as_samples(array), [[-1, 0, 0.5]])


def test_floats_keep_their_values_and_are_clipped() -> None:
    for dtype in (np.float32, np.float64):
        array = np.array([[0.25, -1.5, 1.1]], dtype)
        np.testing.assert_array_equal(codecs.as_samples(array), [[0.25, -1, 1]])


def test_samples_are_copied_unless_nobody_can_change_them() -> None:
    array = tone(8_000)
    samples = codecs.as_samples(array)
    assert not np.shares_memory(samples, array)
    assert codecs.as_samples(samples) is not array
    assert np.shares_memory(codecs.as_samples(samples), samples)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([0.0, np.nan]), "NaN or infinite"),
        (np.array([0.0, np.inf]), "NaN or infinite"),
        (np.array([-np.inf, 0.0], np.float32), "NaN or infinite"),
        (np.array([1e300]), "NaN or infinite"),
        (np.array([12_000.0, -3.0]), "not in -1..1"),
        (np.array([], np.float32), "no samples"),
        (np.zeros((2, 0), np.float32), "no samples"),
        (np.zeros((1, 2, 3), np.float32), "shape"),
        (np.zeros((), np.float32), "shape"),
        (np.zeros(3, np.int64), "int64 is not sound"),
        (np.zeros(3, complex), "complex128 is not sound"),
        (np.zeros(3, bool), "bool is not sound"),
        (np.array(["a"]), "is not sound"),
    ],
)
def test_arrays_that_are_no_sound_are_refused(array: NDArray[Any], message: str) -> None:
    with pytest.raises(InvalidAudio, match=message):
        codecs.as_samples(array)


@pytest.mark.parametrize(("rate", "channels"), [(0, 1), (-8_000, 1), (48_000, 9), (8_000, 8_000)])
def test_impossible_rates_are_refused(rate: int, channels: int) -> None:
    with pytest.raises(InvalidAudio):
        codecs.check_rate(rate, channels)


# --- hostile bytes -----------------------------------------------------------------------------

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
