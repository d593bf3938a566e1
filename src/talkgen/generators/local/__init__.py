"""The local renderer: warps one photo to a recording, on any CPU.

A modest talking photo: lips, jaw, lids, head and shoulders move; there are no new wrinkles and no
real tongue, and beside a neural model it looks simple.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import anyio
import anyio.from_thread
import anyio.to_thread
import attrs
from anyio.lowlevel import RunVar

from talkgen.generators.backgrounds import WHITE, check_colour
from talkgen.media import Speech, Video
from talkgen.requirements import explained

if TYPE_CHECKING:
    from talkgen.generators.local.render import Scene
    from talkgen.media import Image, Text
    from talkgen.protocols import StageContext

__all__ = ["LocalGenerator"]

VERSION = 3  # raised whenever the same input gives another video
SMALLEST, LARGEST = 16, 1080
FRONTAL = 45  # degrees that a head may be turned aside


_renders: RunVar[anyio.CapacityLimiter] = RunVar("talkgen_renders")


@attrs.frozen
class LocalGenerator:
    """Renders on this machine; takes recordings only.

    Attributes:
        size: The longer side of the video in pixels, 16..1080; the portrait's shape is kept.
        fps: Frames a second, 25 or 30.
        seed: Of blinks and small motion, 0 or more; the same seed gives the same pictures.
        background: A colour, as CSS names it, for a portrait that was cut out.
    """

    accepts_text: ClassVar[bool] = False

    size: int = attrs.field(default=512)
    fps: int = attrs.field(default=25, validator=attrs.validators.in_({25, 30}))
    seed: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    background: str = attrs.field(default=WHITE, validator=check_colour)

    @size.validator
    def _within(self, _attribute: object, value: int) -> None:
        if not SMALLEST <= value <= LARGEST:
            raise ValueError(f"size must be {SMALLEST}..{LARGEST} pixels, not {value}")

    @property
    def key(self) -> str:
        """The renderer and everything that changes its video."""
        return f"local@{VERSION}({self.size},{self.fps},{self.seed},{self.background})"

    async def generate(
        self, portrait: Image, speech: Speech | Text, context: StageContext
    ) -> Video:
        """Render a video.

        Args:
            portrait: With a face that looks towards the camera. One that was cut out is laid on
                the background; of an opaque one the person is found, and the rest stays still.
            speech: A recording.
            context: The stage's.

        Raises:
            TypeError: The speech is a text.
            talkgen.errors.NoFaceInPortrait: There is no face to animate.
            talkgen.errors.MediaFailed: The encoder gave up.
            talkgen.errors.Degraded: The pipeline is strict, and the face is turned away or not
                seen well.
        """
        if not isinstance(speech, Speech):
            raise TypeError("the local renderer cannot speak a text; give it a recording")
        with explained():
            from talkgen.generators.local import render
        scene = await render.prepare(self, portrait, context.scheduler)
        _judge(scene, context)
        async with context.files.scratch() as folder:
            path = folder / "video.mp4"
            work = partial(
                render.render,
                scene,
                speech,
                path,
                fps=self.fps,
                seed=self.seed,
                at_frame=partial(_at_frame, context),
                show=context.preview,
            )
            await anyio.to_thread.run_sync(work, limiter=_limiter())
            file = await context.files.put("videos", "final.mp4", path)
        frames = render.frame_count(speech, self.fps)
        context.report(1.0, "Video rendered", stage="render_complete", frames=frames)
        return Video(file=file, duration=frames / self.fps, fps=self.fps, size=scene.size)


def _judge(scene: Scene, context: StageContext) -> None:
    """Tell what of the face is not seen well enough to move as it should."""
    turn = round(scene.puppet.face.turn)
    if scene.puppet.mouth is None:
        context.degraded(
            "The face is not seen well: its mouth stays as it is in the photo.",
            confidence=round(scene.confidence, 2),
            turn=turn,
        )
    elif abs(turn) > FRONTAL:
        context.degraded(
            "The face is turned to the side: its lips and lids may move in the wrong place.",
            turn=turn,
        )


def _at_frame(context: StageContext, frame: int, frames: int) -> None:
    """In the worker thread: leave if the run is cancelled, else tell how far it is."""
    anyio.from_thread.check_cancelled()
    message = f"Rendering frame {frame} of {frames}"
    context.report(frame / frames, message, stage="render_running")


def _limiter() -> anyio.CapacityLimiter:
    """As many renders at a time as there are processors: more would only take memory."""
    try:
        return _renders.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(os.cpu_count() or 1)
        _renders.set(limiter)
        return limiter
