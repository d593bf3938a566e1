"""Videos, as far as a notebook and a page need them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from talkgen.codecs.pictures import as_pixels
from talkgen.codecs.recordings import CONTAINER_OPTIONS
from talkgen.errors import MediaFailed
from talkgen.requirements import explained

with explained():
    import av
    import av.error

if TYPE_CHECKING:
    from talkgen.codecs.pictures import Pixels

__all__ = ["first_frame"]


def first_frame(data: bytes) -> Pixels:
    """The picture that a video begins with.

    Args:
        data: The file; one that talkgen made.

    Raises:
        talkgen.errors.MediaFailed: It has no picture, or is damaged.
    """
    try:
        with av.open(io.BytesIO(data), "r", container_options=CONTAINER_OPTIONS) as container:
            frame = next(container.decode(video=0))
            return as_pixels(frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, IndexError, StopIteration) as error:
        raise MediaFailed(f"The video has no picture to show: {error}.") from error
