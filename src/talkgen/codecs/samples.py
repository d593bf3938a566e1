"""Samples: checked and brought to the one form, and encoded."""

from __future__ import annotations

import io
import wave
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from talkgen.codecs._arrays import check_array, frozen
from talkgen.errors import InvalidAudio, MediaFailed
from talkgen.requirements import explained

with explained():
    import av
    import av.error

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from numpy.typing import NDArray

    Samples: TypeAlias = NDArray[np.float32]

__all__ = [
    "AUDIO_HINT",
    "DAMAGED_AUDIO_HINT",
    "as_samples",
    "check_rate",
    "check_seconds",
    "decode_samples",
    "encode_m4a",
    "encode_samples",
    "encode_wav",
    "peak_of",
    "scaled",
]

AUDIO_HINT = (
    "Pass a recording as WAV, MP3, M4A, FLAC, OGG or Opus, or a video with sound; "
    "convert any other format to one of these first."
)
DAMAGED_AUDIO_HINT = "Get the recording again, or open it elsewhere and save it anew."
AUDIO_LIMIT_HINT = "Shorten it, or raise the limit: Speech.open(source, max_seconds=...)."

# Samples a second in all channels together: stereo at 192 kHz, the most that recorders write.
# Without it a few kilobytes of compressed silence could ask for gigabytes.
MAX_SAMPLES_PER_SECOND = 2 * 192_000

# Zero and full scale of the integer forms that sample formats have.
INTEGER_SCALES = {"u1": (128, 128), "i2": (0, 1 << 15), "i4": (0, 1 << 31)}
FLOATS = {"f4", "f8"}
# Decoders overshoot full scale a little; samples beyond this were never in -1..1.
MAX_FLOAT_PEAK = 8.0


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
    check_array(array)
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
        samples = scaled(np.atleast_2d(array))
    return frozen(samples if peak_of(samples) <= 1 else samples.clip(-1, 1))


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


def scaled(block: NDArray[np.generic]) -> Samples:
    """Bring integers to -1..1 as `float32`; floats keep their values."""
    samples = block.astype(np.float32, copy=False)
    if _form(block) not in INTEGER_SCALES:
        return samples
    zero, scale = INTEGER_SCALES[_form(block)]
    return (samples - zero) / np.float32(scale)


def peak_of(samples: Samples) -> float:
    """The largest magnitude of floats; 1 or a little more.

    Raises:
        talkgen.errors.InvalidAudio: They are NaN, infinite, or not in -1..1 by far.
    """
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


def _form(array: NDArray[np.generic]) -> str:
    return f"{array.dtype.kind}{array.dtype.itemsize}"  # whatever the order of the bytes


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
