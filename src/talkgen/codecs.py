"""Encoded bytes to arrays and back: the only place that knows Pillow and PyAV.

Both decode untrusted bytes here, so both are held short. Only the formats listed are tried, sizes
are checked before pixels or samples exist, nothing but the bytes given can be reached, and
whatever a decoder raises leaves as `InvalidImage` or `InvalidAudio`.
"""

from __future__ import annotations

import io
import struct
import wave
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import numpy as np

from talkgen.errors import InvalidAudio, InvalidImage, InvalidInput, MediaFailed
from talkgen.requirements import explained

with explained():
    import av
    import av.error
    from av.stream import Disposition
    from PIL import Image, ImageColor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import Container, InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]
    Samples: TypeAlias = NDArray[np.float32]

__all__ = [
    "as_pixels",
    "as_samples",
    "check_rate",
    "check_seconds",
    "decode_audio",
    "decode_image",
    "encode_image",
    "encode_m4a",
    "encode_wav",
    "first_frame",
    "flatten",
    "parse_colour",
    "pixels_of",
    "resize",
]

Scalar = TypeVar("Scalar", bound=np.generic)

# --- pictures ----------------------------------------------------------------------------------

# Pillow's plugins that are tried, and the file name suffix of each. Left out is what runs another
# program (EPS), draws vectors (WMF), or is no format for photos.
IMAGE_FORMATS = {
    "PNG": "png",
    "JPEG": "jpeg",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tiff",
    "AVIF": "avif",
    "PPM": "ppm",
}
IMAGE_HINT = (
    "Pass a photo as JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF or PPM; "
    "save any other format, such as HEIC or SVG, as one of these first."
)
DAMAGED_IMAGE_HINT = "Get the picture again, or open it elsewhere and save it anew."
PIXEL_LIMIT_HINT = "Make it smaller, or raise the limit: Image.open(source, max_pixels=...)."

EXIF_ORIENTATION = 0x0112
OPAQUE = 255

ImageFormat: TypeAlias = Literal["png", "jpeg"]


def decode_image(data: bytes, *, max_pixels: int) -> tuple[Pixels, str]:
    """Decode the first frame of a picture, upright.

    Colour profiles are not applied: the numbers of the file are taken for sRGB.

    Args:
        data: The file.
        max_pixels: Width times height, checked in the header before anything is decoded.

    Returns:
        RGB or, where the file has transparency of any kind, RGBA, shape (height, width, 3 or 4),
        read-only; and the format's file name suffix.

    Raises:
        talkgen.errors.InvalidImage: It is no picture, is damaged or truncated, or is too large.
    """
    with _image_errors():
        image, suffix = _identify(data)
    return _from_pillow(image, max_pixels), suffix


def pixels_of(source: object, *, max_pixels: int) -> Pixels | None:
    """The pixels of an array or of Pillow's image; None where the source is neither.

    Raises:
        talkgen.errors.InvalidImage: See `as_pixels` and `decode_image`.
    """
    if isinstance(source, Image.Image):
        return _from_pillow(source, max_pixels)
    if not isinstance(source, np.ndarray):
        return None
    pixels = as_pixels(source)
    _check_pixels(pixels.shape[1], pixels.shape[0], max_pixels)
    return pixels


def as_pixels(array: NDArray[np.generic]) -> Pixels:
    """Check an array of pixels and make it RGB or RGBA.

    Args:
        array: `uint8`, shape (height, width) for grey, (height, width, 3) or (height, width, 4).

    Returns:
        C-contiguous and read-only; the array itself where it is that already.

    Raises:
        talkgen.errors.InvalidImage: Another shape or dtype, or no pixels.
        TypeError: It is no array.
    """
    _check_array(array)
    if array.dtype != np.uint8:
        raise InvalidImage(
            f"An array of {array.dtype} is not a picture: uint8 is wanted.",
            hint="From 0..1: np.rint(array * 255).clip(0, 255).astype(np.uint8).",
        )
    grey = array.ndim == len("hw")
    if not grey and (array.ndim != len("hwc") or array.shape[2] not in {3, 4}):
        raise InvalidImage(
            f"An array of shape {array.shape} is not a picture: "
            "(height, width), (height, width, 3) or (height, width, 4) is wanted."
        )
    _check_pixels(array.shape[1], array.shape[0], array.size)
    pixels = array.astype(np.uint8, copy=False)
    return _frozen(np.stack([pixels] * 3, axis=-1) if grey else pixels)


def encode_image(pixels: Pixels, format: ImageFormat, *, quality: int = 90) -> bytes:  # noqa: A002 - the word for it
    """Encode pixels.

    Args:
        pixels: `uint8`, shape (height, width) for grey, (height, width, 3) or (height, width, 4).
        format: `png` is lossless; `jpeg` has no transparency.
        quality: 1..95, of JPEG alone.

    Raises:
        ValueError: JPEG of pixels with alpha.
        talkgen.errors.MediaFailed: The format cannot hold this picture.
    """
    if format == "jpeg" and pixels.shape[2:] == (4,):
        raise ValueError("JPEG has no transparency: put the picture on a background first.")
    file = io.BytesIO()
    try:
        Image.fromarray(pixels).save(file, format, quality=quality)
    except OSError as error:
        height, width = pixels.shape[:2]
        raise MediaFailed(
            f"A picture of {width}x{height} cannot be {format}: {error}.",
            hint="Make it smaller; PNG holds any size.",
        ) from error
    return file.getvalue()


def parse_colour(text: str) -> tuple[int, int, int]:
    """Red, green and blue of an opaque colour as CSS writes it, 0..255.

    Raises:
        ValueError: The text names no colour, or a transparent one.
    """
    advice = "use a CSS name or #rrggbb"
    try:
        red, green, blue, *alpha = ImageColor.getrgb(text)
    except ValueError as error:
        raise ValueError(f"no colour; {advice}") from error
    if alpha and alpha[0] < OPAQUE:
        raise ValueError(f"not opaque; {advice}")
    return red, green, blue


def resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """Scale with a Lanczos filter, colours weighted by alpha so that edges keep theirs."""
    size = (width, height)
    return _frozen(np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)))


def flatten(pixels: Pixels) -> Pixels:
    """RGB of RGBA, laid on white."""
    image = Image.fromarray(pixels)
    ground = Image.new("RGB", image.size, "white")
    ground.paste(image, mask=image.getchannel("A"))
    return _frozen(np.asarray(ground))


def _from_pillow(image: Image.Image, max_pixels: int) -> Pixels:
    width, height = image.size
    _check_pixels(width, height, max_pixels)
    with _image_errors():
        image.load()
        # Asked only now: Pillow turns a TIFF itself while loading, and drops the tag.
        orientation = _orientation(image)
        image = _eight_bit(image)
        pixels = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
        return _frozen(_upright(pixels, orientation))


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise InvalidImage(
            f"The picture has {width}x{height} pixels, more than the limit of {max_pixels}.",
            hint=PIXEL_LIMIT_HINT,
        )
    if width * height == 0:
        raise InvalidImage(f"The picture has no pixels: it is {width}x{height}.")


def _identify(data: bytes) -> tuple[Image.Image, str]:
    """Read the header alone.

    `PIL.Image.open` would do the same and, beyond its own bound on pixels, warn through the
    process-wide filters or raise; ours is the caller's to set.
    """
    Image.init()
    for name, suffix in IMAGE_FORMATS.items():
        factory, accepts = Image.OPEN.get(name, (None, None))
        # A plugin that was built without its library answers with a text.
        if factory and accepts and accepts(data[:16]) is True:
            return factory(io.BytesIO(data), ""), suffix
    raise InvalidImage("This is not a picture of a known format.", hint=IMAGE_HINT)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged notes on a picture do not make it a damaged picture
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo the camera's orientation; the numbers are those of EXIF 2.32, tag Orientation."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which Pillow would clip; colour of 16 bits it reduces itself.

    A grey that counts as transparent becomes alpha before it can no longer be told apart.
    """
    if image.mode == "F":
        raise InvalidImage("The picture has floating-point pixels.", hint=IMAGE_HINT)
    if not image.mode.startswith("I"):
        return image
    deep = np.asarray(image)
    if deep.min() < 0 or deep.max() > np.iinfo(np.uint16).max:
        raise InvalidImage("The picture has pixels of more than 16 bits.", hint=IMAGE_HINT)
    grey = Image.fromarray(((deep.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if (clear := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(deep != clear))
    return grey


@contextmanager
def _image_errors() -> Iterator[None]:
    """Map what Pillow raises. Hostile bytes make its plugins raise almost anything."""
    try:
        yield
    except (InvalidInput, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise InvalidImage(f"The picture is too large: {error}.", hint=PIXEL_LIMIT_HINT) from error
    except Exception as error:
        raise InvalidImage(
            f"The picture is truncated or damaged ({error}).", hint=DAMAGED_IMAGE_HINT
        ) from error


# --- recordings --------------------------------------------------------------------------------

# FFmpeg's demuxers that are tried, and the file name suffix of each. Left out is whatever plays
# other files or addresses (playlists, concat, HLS, DASH), and devices.
AUDIO_FORMATS = {
    "wav": "wav",
    "w64": "w64",
    "aiff": "aiff",
    "caf": "caf",
    "au": "au",
    "mp3": "mp3",
    "aac": "aac",
    "amr": "amr",
    "flac": "flac",
    "ogg": "ogg",
    "mov": "mp4",
    "matroska": "mkv",
    "asf": "asf",
    "avi": "avi",
    "flv": "flv",
    "mpegts": "ts",
    "mpeg": "mpg",
}
CONTAINER_OPTIONS = {
    "format_whitelist": ",".join(AUDIO_FORMATS),
    # Should a demuxer that is allowed want to open something all the same, no protocol is.
    "protocol_whitelist": "none",
}
AUDIO_HINT = (
    "Pass a recording as WAV, MP3, M4A, FLAC, OGG or Opus, or a video with sound; "
    "convert any other format to one of these first."
)
DAMAGED_AUDIO_HINT = "Get the recording again, or open it elsewhere and save it anew."
AUDIO_LIMIT_HINT = "Shorten it, or raise the limit: Speech.open(source, max_seconds=...)."

# Samples a second in all channels together: stereo at 192 kHz, the most that recorders write.
# Without it a few kilobytes of compressed silence could ask for gigabytes.
MAX_SAMPLES_PER_SECOND = 2 * 192_000

# Demuxers that know the length from the header, not from the size or the bit rate.
STATES_LENGTH = {"flac", "mov", "aiff"}
# How far the sound may fall short of it, in seconds and as a share: encoders count their padding.
LENGTH_TOLERANCE = 0.1

# Programs that write WAV into a pipe cannot know its size, and state one beyond 2 GB.
WAV_LENGTH_UNKNOWN = 0x7FFF_0000

# Zero and full scale of the integer forms that sample formats have.
INTEGER_SCALES = {"u1": (128, 128), "i2": (0, 1 << 15), "i4": (0, 1 << 31)}
FLOATS = {"f4", "f8"}
# Decoders overshoot full scale a little; samples beyond this were never in -1..1.
MAX_FLOAT_PEAK = 8.0


def decode_audio(data: bytes, *, max_seconds: float) -> tuple[Samples, int, str]:
    """Decode the sound of a file.

    A file that states how much sound it holds and holds less is refused as truncated (WAV, FLAC,
    MP4, AIFF). Formats made for streams (MP3, AAC, Ogg) end where they end, and a damaged packet
    in them is left out, as players do.

    Args:
        data: The file.
        max_seconds: Decoding stops with an error as soon as there is more.

    Returns:
        Samples in -1..1, shape (channels, n), read-only; the sample rate in Hz; and the format's
        file name suffix.

    Raises:
        talkgen.errors.InvalidAudio: It is no recording, has no sound, is damaged, truncated, or
            too long.
    """
    # FFmpeg looks into every stream when it opens a file. A cover of some kilobytes would be
    # decoded to gigabytes, for nothing.
    options = {**CONTAINER_OPTIONS, "codec_whitelist": ",".join(_sound_decoders())}
    with (
        _audio_errors(),
        av.open(
            io.BytesIO(data), "r", metadata_errors="replace", container_options=options
        ) as container,
    ):
        stream = container.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            raise InvalidAudio("There is no sound in it.", hint=AUDIO_HINT)
        if stream.codec_context is None:
            raise InvalidAudio("The recording's codec is not known here.", hint=AUDIO_HINT)
        samples, rate = _collect(_frames(container, stream), max_seconds)
        held = samples.shape[1] / rate
        stated = _stated_seconds(data, stream, held)
        suffix = _audio_suffix(data, stream)
    if stated - held > LENGTH_TOLERANCE * min(1.0, stated):
        raise InvalidAudio(
            f"The recording is truncated: it states {stated:.1f} s and holds {held:.1f} s.",
            hint=DAMAGED_AUDIO_HINT,
        )
    return samples, rate, suffix


def as_samples(array: NDArray[np.generic]) -> Samples:
    """Check an array of samples and bring it to the one form.

    Args:
        array: Shape (n,) or (channels, n). `float32` or `float64` in -1..1, or the integers of
            sample formats: `uint8` around 128, `int16`, `int32`.

    Returns:
        `float32` in -1..1 (what overshoots is clipped), shape (channels, n), C-contiguous and
        read-only; the array itself where it is that already.

    Raises:
        talkgen.errors.InvalidAudio: Another shape or dtype, no samples, NaN or infinity, or
            floats that are not in -1..1.
        TypeError: It is no array.
    """
    _check_array(array)
    form = _form(array)
    if form not in INTEGER_SCALES and form not in FLOATS:
        raise InvalidAudio(
            f"An array of {array.dtype} is not sound: float32, float64, int16, int32 or uint8 "
            "is wanted."
        )
    if array.ndim not in {1, 2}:
        raise InvalidAudio(
            f"An array of shape {array.shape} is not sound: (n,) or (channels, n) is wanted."
        )
    if array.size == 0:
        raise InvalidAudio("The recording has no samples.", hint=AUDIO_HINT)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        samples = _scaled(np.atleast_2d(array))
    return _frozen(samples if _peak(samples) <= 1 else samples.clip(-1, 1))


def check_rate(sample_rate: int, channels: int) -> None:
    """Refuse rates that no recording has.

    Raises:
        talkgen.errors.InvalidAudio: The rate is not positive, or all channels together have more
            samples a second than stereo at 192 kHz.
    """
    if sample_rate <= 0:
        raise InvalidAudio(f"A sample rate of {sample_rate} Hz is not possible.")
    if sample_rate * channels > MAX_SAMPLES_PER_SECOND:
        raise InvalidAudio(
            f"The recording has {channels} channels at {sample_rate} Hz, more than "
            f"{MAX_SAMPLES_PER_SECOND} samples a second.",
            hint="Mix it down to one channel; an array has the shape (channels, n).",
        )


def check_seconds(seconds: float, max_seconds: float) -> None:
    """Refuse a recording that is longer than this.

    Raises:
        talkgen.errors.InvalidAudio: It is.
    """
    if seconds > max_seconds:
        raise InvalidAudio(
            f"The recording is longer than the limit of {max_seconds:g} s.", hint=AUDIO_LIMIT_HINT
        )


def encode_wav(samples: Samples, sample_rate: int) -> bytes:
    """Encode as WAV of 16 bits, which everything plays.

    Args:
        samples: -1..1, shape (channels, n).
        sample_rate: Hz.
    """
    pcm = np.rint(samples * float(1 << 15)).clip(-(1 << 15), (1 << 15) - 1).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(len(samples))
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(pcm.T.tobytes())
    return file.getvalue()


def encode_samples(samples: Samples) -> bytes:
    """The samples as they are, in NumPy's own format."""
    file = io.BytesIO()
    np.save(file, samples, allow_pickle=False)
    return file.getvalue()


def decode_samples(data: bytes) -> Samples:
    """What `encode_samples` was given."""
    return as_samples(np.load(io.BytesIO(data), allow_pickle=False))


M4A_RATES = (44_100, 48_000)
M4A_BIT_RATE = 128_000
M4A_FRAME = 1024  # samples


def encode_m4a(samples: Samples, sample_rate: int) -> bytes:
    """Encode as AAC of 128 kbit/s, 16 kB a second, in one channel.

    The file is never longer than the recording: what is left at the end, less than a frame
    (24 ms), is left out, because the coder would fill the frame up.

    Args:
        samples: -1..1, shape (channels, n); several become their mean.
        sample_rate: Hz.

    Raises:
        talkgen.errors.MediaFailed: The encoder gave up.
    """
    file = io.BytesIO()
    mono = samples.mean(axis=0, keepdims=True)
    rate = M4A_RATES[0] if sample_rate % (M4A_RATES[0] // 4) == 0 else M4A_RATES[1]
    # A coder whose first frame is in the midst of sound overshoots, to twice the peak. This one is
    # silent, and before the beginning: players leave it out.
    lead = _audio_frame(np.zeros((1, M4A_FRAME), np.float32), rate, start=-M4A_FRAME)
    try:
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("aac", rate=rate, layout="mono")
            stream.bit_rate = M4A_BIT_RATE
            resampler = av.AudioResampler("fltp", "mono", rate, M4A_FRAME)
            frame = _audio_frame(mono, sample_rate)
            parts = (*resampler.resample(frame), *resampler.resample(None))
            whole = [part for part in parts if part.samples == M4A_FRAME]
            for part in (lead, *(whole or parts), None):
                container.mux(stream.encode(part))
    except av.error.FFmpegError as error:
        raise MediaFailed(f"The recording cannot be encoded as M4A: {error}.") from error
    return file.getvalue()


def _audio_frame(samples: Samples, rate: int, *, start: int = 0) -> AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
    return frame


@cache
def _sound_decoders() -> tuple[str, ...]:
    """Those of FFmpeg's decoders that give sound."""
    return tuple(name for name in sorted(av.codecs_available) if _decodes_sound(name))


def _decodes_sound(name: str) -> bool:
    try:
        return av.Codec(name, "r").type == "audio"
    except ValueError:  # an encoder's name
        return False


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Decode packet by packet, leaving out the damaged ones unless they are the most."""
    decoded = damaged = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:  # decoders have error numbers of their own, beside the usual
            damaged += 1
        else:
            decoded += bool(frames)
            yield from frames
    if damaged > decoded:
        raise InvalidAudio("The recording is damaged.", hint=DAMAGED_AUDIO_HINT)


def _collect(frames: Iterator[AudioFrame], max_seconds: float) -> tuple[Samples, int]:
    first = next(frames, None)
    if first is None:
        raise InvalidAudio("The recording has no samples.", hint=AUDIO_HINT)
    rate, channels = first.sample_rate, first.layout.nb_channels
    check_rate(rate, channels)
    blocks, total = [], 0
    for frame in chain((first,), frames):
        if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
            raise InvalidAudio(
                "The recording changes its sample rate or its channels half way.",
                hint=DAMAGED_AUDIO_HINT,
            )
        total += frame.samples
        check_seconds(total / rate, max_seconds)
        blocks.append(_planar(frame))
    return _joined(blocks, channels, total), rate


def _planar(frame: AudioFrame) -> NDArray[np.generic]:
    samples = frame.to_ndarray()
    if frame.format.is_planar:
        return samples
    return samples.reshape(-1, frame.layout.nb_channels).T


def _joined(blocks: list[NDArray[np.generic]], channels: int, total: int) -> Samples:
    """One array of all blocks, which kept the decoder's smaller integers until now."""
    samples = np.empty((channels, total), np.float32)
    end = 0
    for block in blocks:
        start, end = end, end + block.shape[1]
        samples[:, start:end] = _scaled(block)
    if _peak(samples) > 1:
        samples.clip(-1, 1, out=samples)
    samples.flags.writeable = False
    return samples


def _form(array: NDArray[np.generic]) -> str:
    return f"{array.dtype.kind}{array.dtype.itemsize}"  # whatever the order of the bytes


def _scaled(block: NDArray[np.generic]) -> Samples:
    """Bring integers to -1..1 as `float32`; floats keep their values."""
    samples = block.astype(np.float32, copy=False)
    if _form(block) not in INTEGER_SCALES:
        return samples
    zero, scale = INTEGER_SCALES[_form(block)]
    return (samples - zero) / np.float32(scale)


def _peak(samples: Samples) -> float:
    peak = max(-float(samples.min()), float(samples.max()))
    if not np.isfinite(peak):
        raise InvalidAudio(
            "The recording holds samples that are NaN or infinite.", hint=DAMAGED_AUDIO_HINT
        )
    if peak > MAX_FLOAT_PEAK:
        raise InvalidAudio(
            f"The samples reach {peak:g}, which is not in -1..1.",
            hint="Divide them by their full scale, 32768 for 16 bits.",
        )
    return peak


def _stated_seconds(data: bytes, stream: AudioStream, held: float) -> float:
    """How long the file says that its sound is; 0 where it says nothing.

    Args:
        data: The file.
        stream: Its sound.
        held: Seconds that were in it.
    """
    if _demuxer(stream.container) == "wav":
        return held * _cut_of_wav(data)
    if _demuxer(stream.container) in STATES_LENGTH and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return 0.0


def _cut_of_wav(data: bytes) -> float:
    """How many times more sound a WAV promises than it holds; 1 where it is whole.

    The demuxer believes the file's size, and never tells what the header says.
    """
    position = len(b"RIFF....WAVE")
    while data[:4] == b"RIFF" and position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        position += 8
        if name == b"data" and size < WAV_LENGTH_UNKNOWN:
            return float(max(1.0, size / max(1, len(data) - position)))
        position += size + size % 2
    return 1.0


def _audio_suffix(data: bytes, stream: AudioStream) -> str:
    suffix = AUDIO_FORMATS[_demuxer(stream.container)]
    if suffix == "mp4" and all(map(_is_cover, stream.container.streams.video)):
        return "m4a"
    # The two differ by a word in the first few bytes; browsers record WebM.
    if suffix == "mkv" and b"webm" in data[:64]:
        return "webm"
    return suffix


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _demuxer(container: Container) -> str:
    return container.format.name.partition(",")[0]


@contextmanager
def _audio_errors() -> Iterator[None]:
    """Map what PyAV raises. Hostile bytes make it raise almost anything."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidAudio(
            "This is not a recording of a known format, or it is truncated or damaged.",
            hint=AUDIO_HINT,
        ) from error


# --- video -------------------------------------------------------------------------------------


def first_frame(data: bytes) -> Pixels:
    """The picture that a video begins with.

    Args:
        data: The file; one that talkgen made.

    Raises:
        talkgen.errors.MediaFailed: It has no picture, or is damaged.
    """
    try:
        with av.open(io.BytesIO(data), "r", container_options=CONTAINER_OPTIONS) as container:
            frame = next(container.decode(video=0))
            return as_pixels(frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, IndexError, StopIteration) as error:
        raise MediaFailed(f"The video has no picture to show: {error}.") from error


# --- arrays ------------------------------------------------------------------------------------


def _check_array(array: object) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"A NumPy array is wanted, not {type(array).__name__}.")


def _frozen(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """The array, C-contiguous and read-only; a copy unless it is both already."""
    if array.flags.writeable or not array.flags.c_contiguous:
        array = array.copy(order="C")
        array.flags.writeable = False
    return array
