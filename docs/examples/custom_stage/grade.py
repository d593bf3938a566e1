"""A stage of one's own: colour grading, in the middle of the usual pipeline.

python grade.py PHOTO RECORDING VIDEO
"""

import sys
from typing import ClassVar

import anyio
import anyio.to_thread
import attrs
import numpy as np
from numpy.typing import NDArray

from talkgen import (
    DetectPersons,
    Draft,
    GenerateVideo,
    Image,
    Pipeline,
    RemoveBackground,
    ReplaceBackground,
)
from talkgen.protocols import Stage, StageContext


@attrs.frozen
class Grade:
    """Change the portrait's colours. The cut-out's edges stay as they are.

    Attributes:
        saturation: 0 is black and white, 1 changes nothing.
        warmth: Above 0 more red and less blue, in parts of white.
    """

    name: ClassVar[str] = "grading"  # its events are grading_running and grading_complete
    weight: ClassVar[float] = 0.2  # a short stage: a small share of the progress
    requires: ClassVar[frozenset[str]] = frozenset({"portrait"})
    provides: ClassVar[frozenset[str]] = frozenset({"portrait"})
    resets: ClassVar[frozenset[str]] = frozenset()

    saturation: float = attrs.field(default=0.6, validator=attrs.validators.ge(0))
    warmth: float = 0.05

    @property
    def key(self) -> str:
        """A task is resumed only by a stage that would do the same."""
        return f"{self.name}({self.saturation},{self.warmth})"

    async def run(self, draft: Draft, context: StageContext) -> Draft:
        """Give back a draft with another portrait; this one is never changed."""
        context.report(0.0, "Grading the colours")
        # In a thread: nothing may block the loop.
        pixels = await anyio.to_thread.run_sync(self._graded, draft.portrait.pixels)
        return attrs.evolve(draft, portrait=Image(pixels))

    def _graded(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        colours = pixels[..., :3] / np.float32(255)
        grey = colours @ np.array([0.2126, 0.7152, 0.0722], np.float32)  # luminance, ITU-R BT.709
        colours = grey[..., None] + self.saturation * (colours - grey[..., None])
        colours += np.array([self.warmth, 0, -self.warmth], np.float32)
        graded = pixels.copy()
        graded[..., :3] = np.rint(255 * colours.clip(0, 1))
        return graded


def stages() -> list[Stage]:
    """The usual stages, and this one before the video is made."""
    return [
        DetectPersons(),
        RemoveBackground(),
        ReplaceBackground("#20303c"),
        Grade(saturation=0.5, warmth=0.06),
        GenerateVideo(),
    ]


async def main(photo: str, recording: str, video: str) -> None:
    """Make one video."""
    async with Pipeline(stages()) as pipeline:
        run = pipeline.start(photo, recording)
        async for event in run:
            print(f"{event.progress:3d}% {event.message}")
        await (await run).video.asave(video)


if __name__ == "__main__":
    if len(sys.argv) != 4:  # noqa: PLR2004
        sys.exit(__doc__)
    photo, recording, video = sys.argv[1:]
    anyio.run(main, photo, recording, video)
