"""The local renderer, by the files it makes."""

import io
import subprocess
import sys
import timeit
from pathlib import Path

import anyio
import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkgen import GenerateVideo, Image, MemoryStorage, Pipeline, Speech, Text
from talkgen.errors import InsufficientStorage, MediaFailed, NoFaceInPortrait, RunCancelled
from talkgen.generators.local import LocalGenerator, render
from talkgen.generators.local.encoding import encode
from talkgen.generators.local.motion import move
from talkgen.generators.local.voice import articulate
from talkgen.storage.scratch import Scratch


@pytest.fixture(scope="module")
def portrait(portrait_path):
    """Head and shoulders of the demo's astronaut."""
    return Image.open(portrait_path).cropped((99, 0, 352, 253))


@pytest.fixture(scope="module")
def speech(speech_path):
    return Speech.open(speech_path)


def cut(speech, start, stop):
    rate = speech.sample_rate
    return Speech(speech.samples[:, int(start * rate) : int(stop * rate)], rate)


async def rendered(portrait, speech, **options):
    pipeline = Pipeline([GenerateVideo(LocalGenerator(**options))], storage=MemoryStorage())
    result = await pipeline.run(portrait, speech)
    return result.video, await result.video.aread()


def frames(data):
    with av.open(io.BytesIO(data)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def lengths(data):
    """Seconds of picture and of sound."""
    with av.open(io.BytesIO(data)) as container:
        picture = sum(1 for _ in container.decode(video=0)) / container.streams.video[0].base_rate
        container.seek(0)
        sound = sum(f.samples / f.sample_rate for f in container.decode(audio=0))
    return float(picture), float(sound)


async def test_file_is_what_browsers_and_quicktime_play(anyio_backend, portrait, speech):
    video, data = await rendered(portrait, cut(speech, 0.3, 1.3), size=128)
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec_context.name, picture.pix_fmt) == ("h264", "yuv420p")
        assert picture.profile in {"High", "Main"}
        assert (sound.codec_context.name, sound.rate) == ("aac", 48_000)
    assert (video.size, video.fps, video.duration) == ((128, 128), 25, 1.0)


async def test_same_seed_same_bytes(anyio_backend, portrait, speech):
    second = cut(speech, 0.3, 1.8)
    _, first = await rendered(portrait, second, size=96)
    assert (await rendered(portrait, second, size=96))[1] == first
    assert (await rendered(portrait, second, size=96, seed=1))[1] != first


@pytest.mark.parametrize(
    ("width", "height", "size", "fps", "made"),
    [
        (253, 253, 16, 30, (16, 16)),  # no face could be found in it any more
        (253, 200, 100, 25, (100, 80)),
        (180, 253, 200, 30, (142, 200)),
        (253, 253, 301, 25, (300, 300)),
    ],
)
async def test_shape_is_kept_and_sides_are_even(
    anyio_backend, portrait, speech, width, height, size, fps, made
):
    x, y = (253 - width) // 2, (253 - height) // 4
    part = portrait.cropped((x, y, x + width, y + height))
    video, data = await rendered(part, cut(speech, 0.3, 0.8), size=size, fps=fps)
    assert video.size == made
    assert frames(data).shape[1:3] == made[::-1]


@pytest.mark.parametrize(
    ("rate", "channels", "seconds"),
    [(8_000, 1, 1.0), (22_050, 2, 0.2), (44_100, 1, 0.02), (48_000, 6, 0.5), (11_025, 2, 1.01)],
)
async def test_sound_and_picture_are_equally_long(anyio_backend, portrait, rate, channels, seconds):
    times = np.arange(int(rate * seconds)) / rate
    tone = 0.4 * np.sin(2 * np.pi * 180 * times) * (1 + np.sin(2 * np.pi * 4 * times)) / 2
    samples = np.tile(tone.astype(np.float32), (channels, 1))
    _, data = await rendered(portrait, Speech(samples, rate), size=96)
    picture, sound = lengths(data)
    assert abs(picture - max(seconds, 0.04)) <= 0.04
    # AAC packs 1024 samples, and the encoder primes with one pack.
    assert abs(sound - picture) <= 0.04 + 2 * 1024 / 44_100


async def test_a_cut_out_lies_on_the_colour(anyio_backend, portrait, speech):
    alpha = np.full((253, 253, 1), 255, np.uint8)
    alpha[:, :40] = 0
    cut_out = Image(np.concatenate([portrait.pixels, alpha], axis=2))
    _, data = await rendered(cut_out, cut(speech, 0.3, 0.9), size=128, background="#00a000")
    corner = frames(data)[:, 40:90, 2:8].reshape(-1, 3).mean(axis=0)
    assert corner == pytest.approx([0, 160, 0], abs=6)


async def test_what_is_not_the_person_stays_still(anyio_backend, portrait, speech):
    _, data = await rendered(portrait, cut(speech, 0.3, 3.3), size=256)
    made = frames(data).astype(float)
    moving = np.abs(made - made[0]).mean(axis=(0, 3))
    assert moving[:60, :30].mean() < 1.5
    assert moving[120:170, 100:156].mean() > 2 * moving[:60, :30].mean()


async def test_lips_move_with_speech_and_rest_in_silence(anyio_backend, portrait, speech):
    _, data = await rendered(portrait, speech, size=256)
    made = frames(data).astype(float)
    mouth = np.abs(np.diff(made[:, 135:170, 105:150], axis=0)).mean(axis=(1, 2, 3))
    rms = np.array([np.std(part) for part in np.array_split(speech.samples[0], len(mouth))])
    loud, silent = mouth[rms > np.percentile(rms, 60)], mouth[:6]
    assert loud.mean() > 2 * silent.mean()


async def test_a_cancelled_render_stops_and_leaves_nothing(anyio_backend, portrait, speech):
    long = Speech(np.tile(speech.samples, 12), speech.sample_rate)
    storage = MemoryStorage()
    async with Pipeline([GenerateVideo(LocalGenerator())], storage=storage) as pipeline:
        run = pipeline.start(portrait, long)
        async for event in run:
            if event.stage == "render_running" and event.progress >= 70:
                break
        run.cancel()
        with anyio.fail_after(30), pytest.raises(RunCancelled):
            await run
    assert run.history.events[-2].progress < 80
    assert await storage.staged() == ()


def test_a_plate_for_a_large_face_costs_no_more_than_a_few_blurs(portrait):
    """A kernel as wide as the picture took seconds, at 1080 pixels minutes."""
    pixels = portrait.resized(512, 512).pixels
    y, x = np.mgrid[:512, :512]
    alpha = (np.hypot(x - 256, y - 300) < 150).astype(np.float32)

    def least(work):
        return min(timeit.repeat(work, number=1, repeat=3))

    blur = least(lambda: cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), 8))
    assert least(lambda: render._behind(pixels, alpha, 90.0)) < 25 * blur


def test_a_plate_goes_on_where_the_person_was():
    x = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    alpha = np.zeros((200, 200), np.float32)
    alpha[50:150, 80:120] = 1
    pixels = np.where(alpha[..., None] > 0, 255, x).astype(np.uint8)
    plate = render._behind(pixels, alpha, 40.0).astype(int)
    assert np.abs(plate - x).max() <= 25
    assert (plate[:40] == x[:40]).all()


async def test_refusals(anyio_backend, portrait, speech):
    context = None
    with pytest.raises(TypeError, match="recording"):
        await LocalGenerator().generate(portrait, Text("Hello"), context)
    with pytest.raises(ValueError, match=r"16\.\.1080"):
        LocalGenerator(size=2000)
    for wrong in ("no colour", "", "transparent", "#ffffff80"):
        with pytest.raises(ValueError, match="background="):
            LocalGenerator(background=wrong)
    with pytest.raises(TypeError, match="background"):
        LocalGenerator(background=None)
    with pytest.raises(ValueError, match="fps"):
        LocalGenerator(fps=24)
    grey = Image(np.full((64, 64, 3), 128, np.uint8))
    with pytest.raises(NoFaceInPortrait):
        await rendered(grey, cut(speech, 0.3, 0.5))


def test_an_encoder_that_gives_up_says_what_to_do(speech, tmp_path):
    frame = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(MediaFailed, match="could not be encoded") as caught:
        encode(tmp_path / "absent" / "x.mp4", [frame], speech, fps=25, size=(16, 16))
    assert "doctor" in caught.value.hint


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
async def test_a_full_disk_is_no_fault_of_the_encoder(anyio_backend, portrait, speech, monkeypatch):
    make = Scratch._make

    def full(self, path):
        make(self, path)
        (path / "video.mp4").symlink_to("/dev/full")

    monkeypatch.setattr(Scratch, "_make", full)
    pipeline = Pipeline([GenerateVideo(LocalGenerator())], storage=MemoryStorage())
    with pytest.raises(InsufficientStorage, match="is full"):
        await pipeline.run(portrait, cut(speech, 0, 0.5))


SOUNDS = st.tuples(
    st.sampled_from([8_000, 16_000, 44_100]),
    st.integers(1, 3),
    st.floats(0.01, 1.5),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)


@settings(max_examples=40, deadline=None)
@given(SOUNDS, st.sampled_from([25, 30]))
def test_every_sound_gives_a_mouth_within_its_limits(sound, fps):
    rate, channels, seconds, level, seed = sound
    noise = np.random.default_rng(seed).normal(
        0, level / 3, (channels, max(1, int(rate * seconds)))
    )
    samples = np.clip(noise, -1, 1).astype(np.float32)
    count = max(1, round(seconds * fps))
    mouth = articulate(samples, rate, fps=fps, frames=count)
    motion = move(mouth, fps, seed)
    assert len(motion) == count
    assert np.isfinite(motion.rows).all()
    assert (mouth.opening.min() >= 0, mouth.opening.max() <= 1) == (True, True)
    assert np.abs(mouth.width).max() <= 1


def test_silence_shuts_the_mouth():
    mouth = articulate(np.zeros((1, 16_000), np.float32), 16_000, fps=25, frames=25)
    assert mouth.opening.max() == 0
    assert np.abs(mouth.width).max() == 0


def test_pauses_shut_the_mouth_and_speech_opens_it(speech):
    mouth = articulate(speech.samples, speech.sample_rate, fps=25, frames=250)
    assert mouth.opening[:5].max() < 0.05
    assert mouth.opening.max() > 0.8


@pytest.mark.parametrize("fps", [25, 30])
def test_blinks_are_as_frequent_as_peoples(fps):
    still = articulate(np.zeros((1, 60 * 8_000), np.float32), 8_000, fps=fps, frames=60 * fps)
    shut = np.array([move(still, fps, seed=5).pose(i).blink for i in range(60 * fps)])
    closed = shut > 0.95
    blinks = np.flatnonzero(closed[1:] & ~closed[:-1])
    assert 6 <= len(blinks) <= 24
    assert all(closed[i + 1 : i + 3].all() for i in blinks)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_ten_minutes_take_less_than_700_megabytes(portrait_path, speech_path):
    # Not getrusage: its peak is inherited from the process that started this one.
    code = f"""
import re, numpy as np, talkgen
from talkgen import *
speech = Speech.open({str(speech_path)!r})
long = Speech(np.tile(speech.samples, 60), speech.sample_rate)
result = talkgen.run_sync({str(portrait_path)!r}, long)
assert result.video.duration == 600, result.video.duration
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 700
