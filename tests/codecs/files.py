"""Pictures and recordings, made anew in memory."""

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from PIL import Image

from talkgen import codecs

MAX_PIXELS = 1_000_000
MAX_SECONDS = 60.0

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


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
