"""What a caller asks for: decoded within the limits, and told apart from what others ask for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import attrs

from talkgen.draft import Box, Draft
from talkgen.media import Image, Speech, Text

if TYPE_CHECKING:
    from talkgen.protocols import TaskJournal
    from talkgen.settings import Settings

__all__ = ["Job", "decoded", "digests"]


@attrs.frozen
class Job:
    """What a caller asked for, not decoded yet; or a task that recovery has claimed."""

    task_id: str
    image: Any = None
    speech: Any = None
    claimed: TaskJournal | None = None


async def decoded(job: Job, settings: Settings) -> Draft:
    """The draft before the first stage.

    Raises:
        InvalidInput: The image or the speech is none, or too large.
    """
    image = await anyio.to_thread.run_sync(partial(_open_image, job.image, settings))
    speech = await anyio.to_thread.run_sync(partial(_open_speech, job.speech, settings))
    whole = Box(0, 0, image.width, image.height)
    return Draft(
        task_id=job.task_id, image=image, portrait=image, portrait_box=whole, speech=speech
    )


async def digests(draft: Draft) -> dict[str, str]:
    """What tells these inputs from others."""
    given = {"image": draft.image, "speech": draft.speech}
    return await anyio.to_thread.run_sync(
        lambda: {name: one.digest for name, one in given.items() if one is not None}
    )


def _open_image(source: Any, settings: Settings) -> Image:
    return Image.open(
        source, max_pixels=settings.max_image_pixels, max_bytes=settings.max_image_bytes
    )


def _open_speech(source: Any, settings: Settings) -> Speech | Text | None:
    if source is None or isinstance(source, Text):
        return source
    return Speech.open(
        source, max_seconds=settings.max_audio_seconds, max_bytes=settings.max_audio_bytes
    )
