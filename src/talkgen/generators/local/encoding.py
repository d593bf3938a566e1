"""Frames and sound into an MP4 that browsers and QuickTime play."""

from __future__ import annotations

from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from talkgen.errors import MediaFailed
from talkgen.storage.filesystem import NO_ROOM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from talkgen.media import Speech

__all__ = ["encode"]

# Fixed, because the encoder's output depends on it, and a seed is to give the same video again.
THREADS = "2"
X264 = {"preset": "veryfast", "crf": "18", "profile": "high", "threads": THREADS}
CONTAINER = {"movflags": "+faststart", "fflags": "+bitexact"}
AUDIO_RATES = (44_100, 48_000)  # what every player takes
AUDIO_BIT_RATE = 128_000


def encode(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    speech: Speech,
    *,
    fps: int,
    size: tuple[int, int],
) -> None:
    """Write a video, holding one frame at a time.

    Args:
        path: The file to make.
        frames: RGB, shape (height, width, 3), as they come.
        speech: The sound; ends where the frames end.
        fps: Frames a second.
        size: Width and height in pixels, both even.

    Raises:
        talkgen.errors.MediaFailed: The encoder gave up.
    """
    with _explained(), av.open(str(path), "w", format="mp4", options=CONTAINER) as container:
        video = _video_stream(container, fps, size)
        audio = _audio_stream(container, speech)
        sound = _Sound(container, audio, speech)
        count = 0
        for count, pixels in enumerate(frames, start=1):
            container.mux(video.encode(_picture(pixels, count - 1)))
            sound.advance(count / fps)
        container.mux(video.encode(None))
        sound.finish(count / fps)


def _video_stream(container: OutputContainer, fps: int, size: tuple[int, int]) -> VideoStream:
    stream = container.add_stream("libx264", rate=fps, options=X264)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = Fraction(1, fps)
    stream.codec_context.color_range = ColorRange.MPEG
    stream.codec_context.color_primaries = ColorPrimaries.BT709
    stream.codec_context.color_trc = ColorTrc.BT709
    stream.codec_context.colorspace = Colorspace.SMPTE170M
    return stream


def _picture(pixels: NDArray[np.uint8], index: int) -> av.VideoFrame:
    """A frame in the encoder's form: BT.601, which OpenCV makes three times as fast as FFmpeg."""
    yuv = cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420)
    frame = av.VideoFrame.from_ndarray(np.asarray(yuv, np.uint8), "yuv420p")
    frame.pts = index
    return frame


def _audio_stream(container: OutputContainer, speech: Speech) -> AudioStream:
    rate = 44_100 if speech.sample_rate % 11_025 == 0 else 48_000
    layout = "mono" if len(speech.samples) == 1 else "stereo"
    stream = container.add_stream("aac", rate=rate, layout=layout)
    stream.bit_rate = AUDIO_BIT_RATE
    return stream


class _Sound:
    """Feeds the sound into the encoder as the picture advances."""

    def __init__(self, container: OutputContainer, stream: AudioStream, speech: Speech) -> None:
        self._container, self._stream = container, stream
        self._samples = _at_most_stereo(speech.samples)
        self._rate = speech.sample_rate
        self._layout = stream.layout.name
        self._resampler = av.AudioResampler("fltp", stream.layout, stream.rate)
        self._position = 0

    def advance(self, seconds: float) -> None:
        """Encode up to this moment."""
        end = round(seconds * self._rate)
        chunk = np.ascontiguousarray(self._samples[:, self._position : end])
        if missing := end - self._position - chunk.shape[1]:
            chunk = np.pad(chunk, ((0, 0), (0, missing)))
        if chunk.shape[1]:
            frame = av.AudioFrame.from_ndarray(chunk, "fltp", self._layout)
            frame.sample_rate, frame.pts = self._rate, self._position
            frame.time_base = Fraction(1, self._rate)
            self._encode(frame)
        self._position = max(end, self._position)

    def finish(self, seconds: float) -> None:
        """Encode what is left up to the end."""
        self.advance(seconds)
        self._encode(None)
        self._container.mux(self._stream.encode(None))

    def _encode(self, frame: av.AudioFrame | None) -> None:
        for ready in self._resampler.resample(frame):
            self._container.mux(self._stream.encode(ready))


def _at_most_stereo(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(samples) <= len(("left", "right")):
        return samples
    return np.repeat(samples.mean(axis=0, keepdims=True), 2, axis=0)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        if error.errno in NO_ROOM:
            raise  # it has the word for it in whose folder the file is
        raise MediaFailed(
            f"The video could not be encoded: {error}.",
            hint="`python -m talkgen doctor` shows whether the encoder is usable here.",
        ) from error
