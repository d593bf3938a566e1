"""What leaves the machine, and what comes back: pictures, sound and videos within the limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from talkgen.errors import InvalidMedia, MediaFailed
from talkgen.media import Encoded, Image, Speech, Text
from talkgen.requirements import explained

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["VideoFacts", "check_speech", "examine", "picture", "sound"]

MIN_SIDE, MAX_SIDE = 160, 2048
MAX_IMAGE_BYTES = 10_000_000
MAX_AUDIO_BYTES = 6_000_000
MAX_SECONDS = 300.0
TEXT_LENGTHS = range(3, 10_001)
PASSED_THROUGH = frozenset({"wav", "mp3", "m4a", "flac"})

# A video is whole if it is not much shorter than the speech, nor much longer: the service rounds,
# and may trim or add a little silence.
SHORTEST, LONGEST, SLACK = 0.8, 1.5, 2.0


def check_speech(speech: Speech | Text) -> None:
    """Refuse what D-ID would refuse, or would make nothing of for money.

    Raises:
        talkgen.errors.InvalidMedia: The recording is longer than 5 minutes, or silent throughout;
            or the text is not 3 to 10000 characters long.
    """
    if isinstance(speech, Text):
        if len(speech.text) not in TEXT_LENGTHS:
            raise InvalidMedia(
                f"The text has {len(speech.text)} characters; D-ID takes "
                f"{TEXT_LENGTHS.start} to {TEXT_LENGTHS.stop - 1}.",
                hint="Divide it into several runs.",
            )
    elif speech.duration > MAX_SECONDS:
        raise InvalidMedia(
            f"The recording is {speech.duration:.1f} s long; D-ID takes {MAX_SECONDS:g} s.",
            hint="Divide it into several runs.",
        )
    elif speech.silent:
        raise InvalidMedia(
            "The recording is silent throughout; a video of it would cost money for nothing.",
            hint="Check the microphone, or which track was exported.",
        )


def picture(portrait: Image, background: str) -> Encoded:
    """A portrait as D-ID takes it: a JPEG without metadata. Blocks.

    Args:
        portrait: 160 pixels a side or more. One with transparency is laid on the background.
        background: A colour, as CSS names it.

    Raises:
        talkgen.errors.InvalidMedia: It is too small.
    """
    if min(portrait.width, portrait.height) < MIN_SIDE:
        raise InvalidMedia(
            f"The portrait is {portrait.width}x{portrait.height}; D-ID takes {MIN_SIDE} pixels "
            "a side or more.",
            hint="Use a larger photo, or one that shows the person closer.",
        )
    opaque = on_background(portrait, background)
    sides = opaque.width, opaque.height
    # The longer side is brought down, unless the shorter would fall below what D-ID takes.
    scale = max(MAX_SIDE / max(sides), MIN_SIDE / min(sides))
    if scale < 1:
        opaque = opaque.resized(round(opaque.width * scale), round(opaque.height * scale))
    return Encoded(opaque.encode("jpeg"), "jpg")


def on_background(portrait: Image, background: str) -> Image:
    """The portrait without transparency."""
    if not portrait.has_alpha:
        return portrait
    with explained():
        import numpy as np

        from talkgen.codecs import parse_colour
        from talkgen.models.matting import over
    return Image(over(portrait.pixels, np.array(parse_colour(background), np.uint8)))


def sound(speech: Speech) -> Encoded:
    """A recording as D-ID takes it: the original where it fits, else M4A. Blocks."""
    original = speech.original()
    if original.type in PASSED_THROUGH and len(original.data) <= MAX_AUDIO_BYTES:
        return original
    from talkgen import codecs

    return Encoded(codecs.encode_m4a(speech.samples, speech.sample_rate), "m4a")


@attrs.frozen
class VideoFacts:
    """A video that was examined.

    Attributes:
        duration: Seconds.
        fps: Frames a second.
        size: Width and height in pixels.
    """

    duration: float
    fps: float
    size: tuple[int, int]


def examine(path: Path, seconds: float | None, padding: float = 0.0) -> VideoFacts:
    """Make sure that a video came whole. Blocks.

    Every packet is read, and every key frame decoded.

    Args:
        path: The file.
        seconds: How long the speech is; None where nobody knows.
        padding: Seconds of silence that were asked for after it.

    Raises:
        talkgen.errors.MediaFailed: It is damaged, truncated, or of quite another length.
    """
    with explained():
        import av

    try:
        facts = _read(path)
    except (av.FFmpegError, IndexError) as error:
        raise MediaFailed(f"D-ID's video is damaged or truncated: {error}.") from error
    if seconds is not None:
        low, high = seconds * SHORTEST - SLACK, (seconds + padding) * LONGEST + SLACK
        if not low <= facts.duration <= high:
            raise MediaFailed(
                f"D-ID's video is {facts.duration:.1f} s long, not about {seconds:.1f} s."
            )
    return facts


def _read(path: Path) -> VideoFacts:
    import av

    from talkgen.codecs.recordings import CONTAINER_OPTIONS

    # What came may be a playlist: no format that opens another file is tried.
    options = {**CONTAINER_OPTIONS, "protocol_whitelist": "file"}
    with av.open(str(path), "r", container_options=options) as container:
        stream = container.streams.video[0]
        stream.codec_context.skip_frame = "NONKEY"
        packets = decoded = 0
        for packet in container.demux(stream):
            packets += packet.size > 0
            decoded += len(packet.decode())
        rate = float(stream.average_rate or 0)
        if not decoded or not rate or packets < stream.frames:
            raise MediaFailed(
                f"D-ID's video is truncated: {packets} of {stream.frames} frames are there."
            )
        return VideoFacts(packets / rate, rate, (stream.width, stream.height))
