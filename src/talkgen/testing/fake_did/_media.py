"""Pictures and sound as the service sees them, and the videos that it makes."""

from __future__ import annotations

import io
import tempfile
import threading
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from talkgen.requirements import explained

__all__ = ["picture_size", "sound_seconds", "video"]

FPS = 5
SIDE = 64
RATE = 16_000

_making = threading.Lock()


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height; None where it is no JPEG or PNG."""
    with explained():
        from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            return picture.size
    except UnidentifiedImageError:
        return None


@lru_cache(maxsize=32)
def sound_seconds(data: bytes) -> float | None:
    """How long the sound is; None where there is none."""
    with explained():
        import av

    try:
        with av.open(io.BytesIO(data), "r") as container:
            rate = container.streams.audio[0].rate
            return float(sum(frame.samples for frame in container.decode(audio=0))) / rate
    except (av.FFmpegError, IndexError):
        return None


def video(seconds: float) -> bytes:
    """A small MP4 with picture and sound of this length."""
    with _making:  # once, however many ask at the same time
        return _made(seconds)


@lru_cache(maxsize=32)
def _made(seconds: float) -> bytes:
    with explained():
        import av
        import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
            picture = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
            picture.width = picture.height = SIDE
            picture.pix_fmt = "yuv420p"
            sound = container.add_stream("aac", rate=RATE, layout="mono")
            for index in range(max(1, round(seconds * FPS))):
                shade = np.full((SIDE, SIDE, 3), 16 * index % 256, np.uint8)
                container.mux(picture.encode(av.VideoFrame.from_ndarray(shade, "rgb24")))
            container.mux(picture.encode(None))
            silence = np.zeros((1, max(1, round(seconds * RATE))), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        return path.read_bytes()
