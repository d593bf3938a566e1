"""Pictures, recordings and videos as values.

Everything behind this module sees pixels and samples; encoded bytes stay in `talkgen.codecs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import attrs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FileRef", "Image", "Speech", "Text", "Tier", "Video"]

Tier: TypeAlias = Literal["uploads", "processed", "videos", "temp"]
"""Where a file belongs: it decides how long the file is kept."""


@attrs.frozen(eq=False)
class Image:
    """A picture.

    Attributes:
        pixels: RGB or RGBA `uint8`, shape (height, width, 3 or 4), read-only.
    """

    pixels: NDArray[np.uint8]

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.pixels.shape[0])


@attrs.frozen(eq=False)
class Speech:
    """A recording.

    Attributes:
        samples: `float32` in -1..1, shape (channels, n), read-only.
        sample_rate: Hz.
    """

    samples: NDArray[np.float32]
    sample_rate: int


@attrs.frozen
class Text:
    """Speech that is yet to be spoken."""

    text: str
    voice: str | None = None


@attrs.frozen
class FileRef:
    """A stored file, by name; only the storage knows where its bytes are.

    Attributes:
        task_id: The task it belongs to.
        tier: Its tier.
        name: The whole file name, like `{task_id}_final.mp4`.
        size: Bytes.
        sha256: Hexadecimal digest of the bytes.
        url: Where a reader outside finds it once it is published; empty where there is no such
            place.
    """

    task_id: str
    tier: Tier
    name: str
    size: int
    sha256: str
    url: str = ""


class FileReader(Protocol):
    """What a video needs of a storage."""

    async def get(self, file: FileRef) -> bytes: ...


@attrs.frozen(eq=False)
class Video:
    """A finished video.

    Attributes:
        file: Its file.
        duration: Seconds.
        fps: Frames a second.
        size: Width and height in pixels.
    """

    file: FileRef
    duration: float
    fps: float
    size: tuple[int, int]
    reader: FileReader | None = attrs.field(default=None, repr=False)
