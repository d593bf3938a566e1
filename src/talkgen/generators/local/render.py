"""From a portrait and a recording to the file, part by part."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread
import attrs
import cv2
import numpy as np

from talkgen.codecs import parse_colour
from talkgen.generators.local.encoding import encode
from talkgen.generators.local.frames import Puppet
from talkgen.generators.local.motion import move
from talkgen.generators.local.voice import articulate
from talkgen.media import Image
from talkgen.models.face import find_mesh
from talkgen.models.matting import estimate_foreground, refine_alpha
from talkgen.models.segmentation import SelfieSegmentationModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from talkgen.generators.local import LocalGenerator
    from talkgen.generators.local.motion import Motion
    from talkgen.generators.local.rig import Floats
    from talkgen.media import Speech
    from talkgen.models.face import FaceMesh
    from talkgen.protocols import GPUScheduler

__all__ = ["Scene", "frame_count", "prepare", "render"]

OPAQUE = 255
ENLARGED = 1.3  # beyond this a portrait looks soft, and is sharpened a little
SHARPENING = 0.35
CLEAR = 0.8  # confidence in a face from which its landmarks are where they seem
WIDE = 8.0  # pixels of a blur's radius from which nothing fine is left
LEAST_SEEN = 0.02  # alpha from which a pixel has something of the person


@attrs.frozen(eq=False)
class Scene:
    """Everything that is computed once.

    Attributes:
        puppet: The portrait, ready to be posed.
        size: Width and height of the video in pixels, both even.
        confidence: How clear the face is, 0..1.
    """

    puppet: Puppet
    size: tuple[int, int]
    confidence: float


async def prepare(generator: LocalGenerator, portrait: Image, scheduler: GPUScheduler) -> Scene:
    """Find the face, cut the person out where that is not done, and set up the rig."""
    found = await find_mesh(portrait, scheduler=scheduler)  # a small video may be too small for it
    scaled = await anyio.to_thread.run_sync(_scaled, portrait, generator.size)
    mesh = _within(scaled, found, portrait)
    matte = None if _cut_out(scaled) else await scheduler.run(SelfieSegmentationModel(), scaled)
    colour = parse_colour(generator.background)
    return await anyio.to_thread.run_sync(_scene, scaled, mesh, matte, colour)


def _scene(
    portrait: Image, mesh: FaceMesh, matte: NDArray[np.float32] | None, colour: tuple[int, int, int]
) -> Scene:
    pixels = np.ascontiguousarray(portrait.pixels[..., :3])
    if matte is None:
        alpha = np.asarray(portrait.pixels[..., 3] / OPAQUE, np.float32)
        puppet = Puppet.of(pixels, alpha, colour, mesh.points)
    else:
        alpha = _person(pixels, matte, mesh.points)
        behind = _behind(pixels, alpha, mesh.eye_distance)
        puppet = Puppet.of(estimate_foreground(pixels, alpha), alpha, behind, mesh.points)
    if mesh.confidence < CLEAR:
        # Lips that open beside the mouth look worse than a mouth that does not move.
        puppet = attrs.evolve(puppet, mouth=None)
    return Scene(puppet, (portrait.width, portrait.height), mesh.confidence)


def _person(
    pixels: NDArray[np.uint8], matte: NDArray[np.float32], points: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The network's matte, clean, and with all of the face in any case."""
    alpha = refine_alpha(pixels, matte)
    outline = cv2.convexHull(np.rint(points[:, :2]).astype(np.int32))
    face = cv2.fillConvexPoly(np.zeros(alpha.shape, np.uint8), outline, 1)
    return np.maximum(alpha, face.astype(np.float32))


def _cut_out(portrait: Image) -> bool:
    return portrait.has_alpha and bool(portrait.pixels[..., 3].min() < OPAQUE)


def render(
    scene: Scene,
    speech: Speech,
    path: Path,
    *,
    fps: int,
    seed: int,
    at_frame: Callable[[int, int], None],
    show: Callable[[Image], None],
) -> None:
    """Write the video, frame by frame; blocks.

    Args:
        scene: The portrait.
        speech: The sound.
        path: The file to make.
        fps: Frames a second.
        seed: Of everything that moves by itself.
        at_frame: Told the frame, from 1 (0 while it listens), and how many there will be; may
            raise to stop.
        show: Given each frame.

    Raises:
        talkgen.errors.MediaFailed: The encoder gave up.
    """
    count = frame_count(speech, fps)
    mouth = articulate(
        speech.samples,
        speech.sample_rate,
        fps=fps,
        frames=count,
        at_chunk=partial(at_frame, 0, count),
    )
    frames = _frames(scene.puppet, move(mouth, fps, seed), at_frame)
    encode(path, _shown(frames, show), speech, fps=fps, size=scene.size)


def frame_count(speech: Speech, fps: int) -> int:
    """Frames that a recording takes, at least one."""
    return max(1, round(speech.duration * fps))


def _frames(
    puppet: Puppet, motion: Motion, at_frame: Callable[[int, int], None]
) -> Iterator[NDArray[np.uint8]]:
    for index in range(len(motion)):
        at_frame(index + 1, len(motion))
        yield puppet.frame(motion.pose(index))


def _shown(
    frames: Iterable[NDArray[np.uint8]], show: Callable[[Image], None]
) -> Iterator[NDArray[np.uint8]]:
    for pixels in frames:
        pixels.flags.writeable = False  # so that the picture need not copy it
        show(Image(pixels))
        yield pixels


def _scaled(portrait: Image, size: int) -> Image:
    """To the video's size, its sides even, as H.264 wants them."""
    factor = size / max(portrait.width, portrait.height)
    width, height = (
        max(2, 2 * round(side * factor / 2)) for side in (portrait.width, portrait.height)
    )
    scaled = portrait.resized(width, height)
    return _sharpened(scaled) if factor > ENLARGED else scaled


def _within(scaled: Image, mesh: FaceMesh, portrait: Image) -> FaceMesh:
    """The mesh as it lies in the scaled portrait."""
    across, down = scaled.width / portrait.width, scaled.height / portrait.height
    return attrs.evolve(mesh, points=mesh.points * np.array([across, down, across], np.float32))


def _sharpened(image: Image) -> Image:
    pixels = image.pixels.copy()
    soft = cv2.GaussianBlur(pixels[..., :3], (0, 0), 1.6)
    colours = cv2.addWeighted(pixels[..., :3], 1 + SHARPENING, soft, -SHARPENING, 0)
    pixels[..., :3] = colours
    return Image(pixels)


def _behind(
    pixels: NDArray[np.uint8], alpha: NDArray[np.float32], unit: float
) -> NDArray[np.uint8]:
    """The picture without the person, good for as far as a moving head uncovers it."""
    person = (alpha > LEAST_SEEN).astype(np.uint8)
    known = 1 - cv2.dilate(person, np.ones((5, 5), np.uint8)).astype(np.float32)
    # What is known spreads into the hole, from near by first: a pyramid of ever wider blurs.
    plate = pixels * known[..., None]
    filled, weight = plate, known
    for radius in (unit / 16, unit / 4, unit, unit * 4):
        share = _blurred(known, radius)
        guess = _blurred(plate, radius) / np.maximum(share, 1e-6)[..., None]
        part = np.clip((share - 1e-3) * 100, 0, 1) * (1 - weight)
        filled = filled + guess * part[..., None]
        weight = weight + part
    return np.clip(filled / np.maximum(weight, 1e-6)[..., None], 0, 255).astype(np.uint8)


def _blurred(values: Floats, radius: float) -> Floats:
    """A Gaussian blur; a wide one leaves nothing fine, and is as good on a smaller picture."""
    height, width = values.shape[:2]
    shrink = max(1.0, radius / WIDE)
    small = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    blurred = cv2.GaussianBlur(
        cv2.resize(values, small, interpolation=cv2.INTER_AREA), (0, 0), radius / shrink
    )
    return np.asarray(cv2.resize(blurred, (width, height)), np.float32)
