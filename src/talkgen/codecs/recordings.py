"""Recordings: files to samples, by PyAV."""

from __future__ import annotations

import io
import struct
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from talkgen.codecs.samples import (
    AUDIO_HINT,
    DAMAGED_AUDIO_HINT,
    check_rate,
    check_seconds,
    peak_of,
    scaled,
)
from talkgen.errors import InvalidAudio, InvalidInput
from talkgen.requirements import explained

with explained():
    import av
    import av.error
    from av.stream import Disposition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import Container, InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from talkgen.codecs.samples import Samples

__all__ = ["CONTAINER_OPTIONS", "decode_audio"]

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

# Demuxers that know the length from the header, not from the size or the bit rate.
STATES_LENGTH = {"flac", "mov", "aiff"}
# How far the sound may fall short of it, in seconds and as a share: encoders count their padding.
LENGTH_TOLERANCE = 0.1

# Programs that write WAV into a pipe cannot know its size, and state one beyond 2 GB.
WAV_LENGTH_UNKNOWN = 0x7FFF_0000


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
        samples[:, start:end] = scaled(block)
    if peak_of(samples) > 1:
        samples.clip(-1, 1, out=samples)
    samples.flags.writeable = False
    return samples


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
