"""Recordings of every format, whole and broken, and arrays of samples."""

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from talkgen import codecs
from talkgen.errors import InvalidAudio, Severity

from ..memory import growth, on_linux
from .files import WAV, chunk, film, gradient, heard, png, quick, saved, sounding, tone

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
