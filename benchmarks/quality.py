"""Measure a finished video the way a viewer would: from its decoded frames and its sound.

    python benchmarks/quality.py IMAGE AUDIO [--person N] [--background B] [--phones FILE]
        [--sheet SHEET.jpg] [--keep VIDEO.mp4] [--points POINTS.npy]

A face mesh follows every decoded frame. Lengths are in eye distances, so that the size of the
picture does not matter. With `--phones`, a JSON list of [seconds, espeak mnemonic], it also says
what the lips do on p, b, m and on rounded vowels. With `--points` it measures by the landmarks
that another tracker saw in the same video, see `attention.py`: the embedded mesh sees 0.005-0.04
of an opening in photos of lips that are shut.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import anyio
import av
import cv2
import numpy as np
from PIL import Image as Picture
from scipy.ndimage import binary_closing, binary_erosion, gaussian_filter1d

from talkgen import (
    DetectPersons,
    GenerateVideo,
    Image,
    LocalScheduler,
    Pipeline,
    RemoveBackground,
    ReplaceBackground,
    Speech,
)
from talkgen.generators.local import LocalGenerator
from talkgen.models.face import FaceCrop, FaceMeshModel, find_mesh

if TYPE_CHECKING:
    from numpy.typing import NDArray

UPPER_LIP, LOWER_LIP, MOUTH_CORNERS = 13, 14, (61, 291)
RIGHT_EYE, LEFT_EYE = [33, 133], [362, 263]
LIDS = (((160, 144), (158, 153), (33, 133)), ((385, 380), (387, 373), (362, 263)))
# Upper bridge of the nose and corners of the eyes: where the mesh puts the forehead and the
# temples depends on how far the mouth is open.
STEADY = [168, 6, 33, 133, 362, 263]
GROUPS = {
    "labial": {"p", "b", "m"},
    "round": {"oU", "O:", "u:", "U", "w", "O@", "o@"},
    "spread": {"i:", "i", "I", "eI", "E", "j"},
    "open": {"a", "aI", "aU", "V", "A@", "A:", "0"},
}


class Track(NamedTuple):
    """What the mesh saw, one row a frame."""

    points: NDArray[np.float32]
    unit: NDArray[np.float32]

    @classmethod
    def of(cls, points: NDArray[np.float32]) -> Self:
        """Landmarks in pixels, shape (frames, 468 or more, 2 or more)."""
        flat = points[:, :, :2]
        return cls(flat, np.hypot(*(flat[:, LEFT_EYE].mean(1) - flat[:, RIGHT_EYE].mean(1)).T))

    def between(self, a: int, b: int) -> NDArray[np.float32]:
        """The distance of two landmarks in eye distances."""
        return np.hypot(*(self.points[:, a] - self.points[:, b]).T) / self.unit


async def render(
    image: Image, speech: Speech, person: int, background: str | Image | None
) -> bytes:
    """The whole job, timed."""
    stages = [DetectPersons(select=person), RemoveBackground()]
    if background == "photo":
        stages.pop()
    elif background is not None:
        stages.append(ReplaceBackground(background))
    stages.append(GenerateVideo(LocalGenerator()))
    async with Pipeline(stages) as pipeline:
        await pipeline.run(
            image, Speech.open((speech.samples[:, : speech.sample_rate // 5], speech.sample_rate))
        )
        begin = time.perf_counter()
        result = await pipeline.run(image, speech)
        took = time.perf_counter() - begin
        row("work per second of video", took / speech.duration, "s", "< 0.6, aim 0.3")
        data = await result.video.aread()
        again = await pipeline.run(image, speech)
        row("same file again", float(await again.video.aread() == data), "", "1")
        return data


def decode(data: bytes) -> tuple[list[NDArray[np.uint8]], float, float]:
    """Frames, and the lengths of picture and sound in seconds."""
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        fps = float(container.streams.video[0].average_rate or 0)
    with av.open(io.BytesIO(data)) as container:
        sound = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    return frames, len(frames) / fps, sound


async def follow(frames: list[NDArray[np.uint8]]) -> Track:
    """The mesh of every frame, each sought where the last one was."""
    scheduler = LocalScheduler()
    try:
        meshes = [await find_mesh(Image(frames[0]), scheduler=scheduler)]
        for frame in frames:
            crop = FaceCrop(Image(frame), meshes[-1].box, meshes[-1].roll)
            mesh = await scheduler.run(FaceMeshModel(), crop)
            meshes.append(mesh or meshes[-1])
    finally:
        await scheduler.aclose()
    return Track.of(np.array([mesh.points for mesh in meshes[1:]]))


def row(name: str, value: float, unit: str, wanted: str) -> None:
    """One line of the table."""
    print(f"{name:38s} {value:8.3f} {unit:3s}  {wanted}")


def loudness(speech: Speech, frames: int, fps: float) -> NDArray[np.float64]:
    """Root mean square over about a syllable, at the middle of each frame."""
    power = gaussian_filter1d(
        (speech.samples.mean(axis=0) ** 2).astype(float), 0.05 * speech.sample_rate
    )
    at = ((np.arange(frames) + 0.5) / fps * speech.sample_rate).astype(int)
    return np.sqrt(power[np.clip(at, 0, power.size - 1)])


def best_lag(a: NDArray[np.floating], b: NDArray[np.floating], most: int) -> tuple[float, int]:
    """The highest correlation, and by how many frames the first is behind the second there."""
    inside = slice(most, -most)
    found = [
        (float(np.corrcoef(np.roll(a, -lag)[inside], b[inside])[0, 1]), lag)
        for lag in range(-most, most + 1)
    ]
    return max(found)


def lips(track: Track, speech: Speech, fps: float) -> NDArray[np.float32]:
    """Movement, rest and range; gives back the opening."""
    opening = track.between(UPPER_LIP, LOWER_LIP)
    loud = loudness(speech, len(opening), fps)
    correlation, lag = best_lag(opening, loud, 5)
    row("opening follows loudness", correlation, "", ">= 0.7")
    row("  and is behind it by", lag / fps * 1000, "ms", "within 60")
    decibels = 20 * np.log10(loud / np.percentile(loud, 95) + 1e-9)
    silent = binary_erosion(decibels < -35, iterations=3)
    speaking = decibels > -20
    row("opening in silence, 95 %", np.percentile(opening[silent], 95), "", "< 0.03")
    row(
        "  as a part of that in speech",
        opening[silent].mean() / opening[speaking].mean(),
        "",
        "<= 0.2",
    )
    row("opening, widest", np.percentile(opening, 99.5), "", "0.12 - 0.25")
    return opening


def articulation(track: Track, opening: NDArray[np.float32], phones: Path, fps: float) -> None:
    """What the lips do on the sounds that need them."""
    events = json.loads(phones.read_text())
    width = track.between(*MOUTH_CORNERS)
    groups: dict[str, list[tuple[float, float, float]]] = {}
    for (start, name), (stop, _) in pairwise(events):
        first = int(start * fps)
        span = slice(first, max(first + 1, round(stop * fps) + 1))
        phone = name.strip("',")
        group = next((group for group, members in GROUPS.items() if phone in members), "other")
        groups.setdefault(group, []).append(
            (opening[span].min(), opening[span].max(), width[span].mean())
        )
    means = {group: np.array(values) for group, values in groups.items()}
    rest = np.median(width[opening < 0.02]) if (opening < 0.02).any() else np.nan
    row("opening on p, b, m", means["labial"][:, 0].mean(), "", f"{len(means['labial'])} of them")
    row("  shut (under 0.04)", (means["labial"][:, 0] < 0.04).mean(), "", "")
    row("  and, at the most, on a", means["open"][:, 1].mean(), "", "")
    row("width on o, u over width at rest", means["round"][:, 2].mean() / rest, "", "< 1")
    row("  and on i, e", means["spread"][:, 2].mean() / rest, "", "more than on o, u")


def blinks(track: Track, fps: float) -> None:
    """Dips of the eye's aspect ratio (Soukupova and Cech 2016)."""
    ratio = np.mean(
        [
            (track.between(*a) + track.between(*b)) / (2 * track.between(*corners))
            for a, b, corners in LIDS
        ],
        axis=0,
    )
    usual = np.median(ratio)
    # The mesh never quite closes an eye, and opens it for a frame amid a blink; nobody blinks
    # twice within a tenth of a second.
    shut = binary_closing(ratio < 0.85 * usual, np.ones(3, bool))
    count = int((np.diff(shut.astype(int), prepend=0) == 1).sum())
    row("blinks per 10 s", count / (len(shut) / fps) * 10, "", "1 - 4")
    row("  eye aspect ratio, lowest over usual", ratio.min() / usual, "", "")


def steadiness(track: Track, frames: list[NDArray[np.uint8]]) -> None:
    """How much the head moves from frame to frame, and whether it stays the same person."""
    head = track.points[:, STEADY].mean(axis=1)
    step = np.hypot(*np.diff(head, axis=0).T) / track.unit.mean()
    row("head, frame to frame, mean", step.mean(), "", "< 0.015")
    row("  99 %", np.percentile(step, 99), "", "")
    jerk = np.hypot(*np.diff(head, n=2, axis=0).T) / track.unit.mean()
    row("  change of step, mean", jerk.mean(), "", "")
    row("head, range", np.ptp(head, axis=0).max() / track.unit.mean(), "", "> 0.02")
    model = np.median(track.points[:, STEADY], axis=0)
    eyes = track.points[0][[33, 133, 362, 263]].mean(axis=0)
    model = ((model - eyes) * 64 / track.unit.mean() + (80, 64)).astype(np.float32)
    unit = float(np.median(track.unit))
    faces = [upper_face(*seen, model, unit) for seen in zip(frames, track.points, strict=True)]
    alike = [similarity(faces[0], settled(face, faces[0])) for face in faces]
    row("upper face like the first frame", float(np.median(alike)), "", ">= 0.9")
    row("  worst 5 %", np.percentile(alike, 5), "", "")


def upper_face(
    frame: NDArray[np.uint8],
    points: NDArray[np.float32],
    model: NDArray[np.float32],
    unit: float,
) -> NDArray[np.uint8]:
    """From the forehead to the nose, grey, the eyes 64 pixels apart and always in one place."""
    still = points[STEADY].astype(np.float32)
    # All points count: one of them alone is a pixel off from frame to frame.
    matrix, _ = cv2.estimateAffinePartial2D(
        still, model, method=cv2.RANSAC, ransacReprojThreshold=1000.0
    )
    # Turned and shifted, but not scaled: heads stay as large as they are, the mesh breathes.
    matrix[:, :2] *= 64 / unit / np.hypot(*matrix[:, 0])
    matrix[:, 2] = model.mean(axis=0) - matrix[:, :2] @ still.mean(axis=0)
    # Averaged before it is made smaller, as any picture should be.
    soft = cv2.GaussianBlur(frame, (0, 0), max(0.6 * unit / 64, 0.1))
    return cv2.cvtColor(cv2.warpAffine(soft, matrix, (160, 92)), cv2.COLOR_RGB2GRAY)


def settled(face: NDArray[np.uint8], onto: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Aligned to a fraction of a pixel: the mesh's eyes sink a little as the mouth opens."""
    start = np.eye(2, 3, dtype=np.float32)
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-6)
    try:
        _, matrix = cv2.findTransformECC(onto, face, start, cv2.MOTION_EUCLIDEAN, until)
    except cv2.error:  # no such alignment: the faces are not alike
        return face
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        face, matrix, face.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


def similarity(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Structural similarity (Wang et al. 2004)."""
    x, y = a.astype(np.float32), b.astype(np.float32)

    def mean(z: NDArray[np.float32]) -> NDArray[np.float32]:
        return cv2.GaussianBlur(z, (11, 11), 1.5)

    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(index.mean())


def contact_sheet(
    frames: list[NDArray[np.uint8]], opening: NDArray[np.float32], path: Path
) -> None:
    """Twelve frames through the video, every third the widest or the most shut nearby."""
    at = np.linspace(0, len(frames) - 1, 12).astype(int)
    near = max(1, len(frames) // 30)
    for i in range(1, 12, 3):
        window = np.arange(max(at[i] - near, 0), min(at[i] + near, len(frames)))
        at[i] = window[opening[window].argmax()]
    tiles = [cv2.resize(frames[i], (320, 320), interpolation=cv2.INTER_AREA) for i in at]
    rows = [np.hstack(tiles[i : i + 4]) for i in range(0, 12, 4)]
    Picture.fromarray(np.vstack(rows)).save(path, quality=82, optimize=True)


async def main() -> None:
    """Render, decode, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("image")
    parser.add_argument("audio")
    parser.add_argument("--person", type=int, default=1)
    parser.add_argument("--background", help="#rrggbb, a picture's path, blur, or photo (as it is)")
    parser.add_argument("--phones", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--points", type=Path)
    options = parser.parse_args()
    image, speech = Image.open(options.image), Speech.open(options.audio)
    background = options.background
    if background and background not in {"photo", "blur"} and not background.startswith("#"):
        background = Image.open(background)
    data = await render(image, speech, options.person, background)
    if options.keep:
        options.keep.write_bytes(data)
    frames, seconds, sound = decode(data)
    fps = len(frames) / seconds
    row("sound longer than picture", (sound - seconds) * fps, "fr", "within 1")
    track = Track.of(np.load(options.points)) if options.points else await follow(frames)
    opening = lips(track, speech, fps)
    if options.phones:
        articulation(track, opening, options.phones, fps)
    blinks(track, fps)
    steadiness(track, frames)
    if options.sheet:
        contact_sheet(frames, opening, options.sheet)


if __name__ == "__main__":
    anyio.run(main)
