"""What a run tells while it works: one closed union of frozen events.

Every attempt is a dense sequence that starts at 0 and ends with exactly one terminal event.
`Heartbeat` and `Preview` come in between for those who listen: they carry the last event's
number, are not kept, and are not replayed.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NoReturn, TypeAlias

import attrs

from talkgen import html
from talkgen._types import JSON

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from talkgen.media import Image

__all__ = [
    "Cancelled",
    "Complete",
    "Deferred",
    "Degraded",
    "Error",
    "Event",
    "Heartbeat",
    "Preview",
    "ProgressUpdate",
    "StageUpdate",
]

PREVIEW_SIDE = 256  # pixels: enough to see who it is, and small enough to send a few a second
PREVIEW_QUALITY = 80


class _NoFacts(dict[str, JSON]):
    """An empty dict that stays empty; pickled and copied, it is a plain one."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("the metadata of an event is read-only; write to a dict(event.metadata)")

    __setitem__ = __ior__ = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[dict[str, JSON]], tuple[()]]:
        return dict, ()


# Shared, as the events themselves are: a dict for each would have the garbage collector come twice
# as often, and while it works nobody is told anything.
NO_FACTS: Mapping[str, JSON] = _NoFacts()


@attrs.frozen(kw_only=True, eq=False)
class _Event:
    """What all events have.

    Attributes:
        task_id: The task.
        attempt: 1 for the first run of the task.
        sequence: Dense from 0 within the attempt.
        timestamp: When, in UTC.
        stage: The step of the work, like `detection_running`.
        progress: Whole per cent, 0..100; never falls within an attempt.
        message: For people, one line.
        metadata: Facts, JSON only; the same for all readers, and not to be written to.
    """

    event_type: ClassVar[str]
    terminal: ClassVar[bool] = False

    task_id: str
    attempt: int
    sequence: int
    timestamp: datetime
    stage: str
    progress: int
    message: str
    metadata: Mapping[str, JSON] = NO_FACTS

    @property
    def cursor(self) -> str:
        """Where a reader is: `attempt-sequence`."""
        return f"{self.attempt}-{self.sequence}"

    def to_dict(self) -> dict[str, JSON]:
        """The wire form: JSON, the same for every transport."""
        return {
            "task_id": self.task_id,
            "event_type": self.event_type,
            "sequence": self.sequence,
            "data": {
                "stage": self.stage,
                "progress_percent": self.progress,
                "message": self.message,
                "metadata": dict(self.metadata),
                **self._facts(),
            },
            "timestamp": rfc3339(self.timestamp),
        }

    def _facts(self) -> dict[str, JSON]:
        return {}


def rfc3339(moment: datetime) -> str:
    """A UTC moment with milliseconds and a Z."""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


@attrs.frozen(kw_only=True, eq=False)
class StageUpdate(_Event):
    """Another step of the work began or ended."""

    event_type = "stage_update"


@attrs.frozen(kw_only=True, eq=False)
class ProgressUpdate(_Event):
    """The step goes on."""

    event_type = "progress_update"


@attrs.frozen(kw_only=True, eq=False)
class Degraded(_Event):
    """The result will be less than asked for; the message says how."""

    event_type = "degraded"


@attrs.frozen(kw_only=True, eq=False)
class Complete(_Event):
    """The run succeeded and its files are published.

    Attributes:
        video_url: Where the video is; None when no stage made one or the storage has no address.
        execution_time_ms: Wall-clock time of this attempt.
    """

    event_type = "complete"
    terminal = True

    video_url: str | None
    execution_time_ms: int

    def _facts(self) -> dict[str, JSON]:
        return {"video_url": self.video_url, "execution_time_ms": self.execution_time_ms}


@attrs.frozen(kw_only=True, eq=False)
class Error(_Event):
    """The run failed and left no files.

    Attributes:
        error: What happened.
        error_type: The class in `talkgen.errors`.
        severity: `recoverable`, `permanent`, `resource` or `external`.
        hint: What to do about it.
    """

    event_type = "error"
    terminal = True

    error: str
    error_type: str
    severity: str
    hint: str | None

    def _facts(self) -> dict[str, JSON]:
        return {
            "error": self.error,
            "error_type": self.error_type,
            "severity": self.severity,
            "hint": self.hint,
        }


@attrs.frozen(kw_only=True, eq=False)
class Deferred(_Event):
    """The run waits for an outside service or for room; its files and journal are kept.

    Attributes:
        error: Why.
        error_type: The class in `talkgen.errors`.
        hint: What to do about it.
    """

    event_type = "deferred"
    terminal = True

    error: str
    error_type: str
    hint: str | None

    def _facts(self) -> dict[str, JSON]:
        return {"error": self.error, "error_type": self.error_type, "hint": self.hint}


@attrs.frozen(kw_only=True, eq=False)
class Cancelled(_Event):
    """The run was cancelled.

    Attributes:
        recoverable: Something paid for is still open; `recover()` collects it.
    """

    event_type = "cancelled"
    terminal = True

    recoverable: bool = False

    def _facts(self) -> dict[str, JSON]:
        return {"recoverable": self.recoverable}


@attrs.frozen(kw_only=True, eq=False)
class Heartbeat(_Event):
    """Nothing new; the connection is alive. Not kept, not numbered."""

    event_type = "heartbeat"


@attrs.frozen(kw_only=True, eq=False)
class Preview(_Event):
    """A picture of the work so far: the portrait, then frames of the video. Not kept, not numbered.

    Only `Pipeline(previews=True)` tells it, to those who listen at that moment; who reads too
    slowly gets the newest. The wire form has the picture in it, so that a page shows it with
    `img.src = event.data.image`. While `event.data.stage` begins with `background_removal`, it is
    the person cut out, on white.

    Attributes:
        image: The picture in its full size. It does not travel; its width and height, in pixels,
            do.
    """

    event_type = "preview"

    image: Image

    @cached_property
    def url(self) -> str:
        """The picture itself as an address: a `data:` URL of a JPEG.

        The longer side is 256 pixels at most, and what is transparent is white. Made once, in a
        thread, before the first reader gets the event.
        """
        small = self.image.fitted(PREVIEW_SIDE).flattened()
        return html.data_url(small.encode("jpeg", quality=PREVIEW_QUALITY), "image/jpeg")

    def _facts(self) -> dict[str, JSON]:
        return {"width": self.image.width, "height": self.image.height, "image": self.url}


Event: TypeAlias = (
    StageUpdate
    | ProgressUpdate
    | Degraded
    | Complete
    | Error
    | Deferred
    | Cancelled
    | Heartbeat
    | Preview
)
"""Any of them; a type checker sees whether a `match` has forgotten one."""
