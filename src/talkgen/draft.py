"""What flows through a pipeline: one immutable record that every stage fills in further."""

from __future__ import annotations

from base64 import b64decode, b64encode
from enum import StrEnum
from html import escape
from typing import TYPE_CHECKING, NamedTuple, Self

import attrs

from talkgen import html
from talkgen.errors import NotReady

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from talkgen._types import JSON
    from talkgen.media import Image, Speech, Text, Video

__all__ = ["Box", "Draft", "Person", "Persons", "Result", "TaskState"]


LITTLE_ENDIAN = "<f4"  # how landmarks are written, whatever machine reads them


class TaskState(StrEnum):
    """Where a task stands."""

    RUNNING = "running"
    PUBLISHING = "publishing"  # past the point of no return: recovery rolls it forward
    COMPLETED = "completed"
    DEFERRED = "deferred"  # waits for an outside service or for room; recover() goes on
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"  # was completed; its files outlived their retention

    @property
    def final(self) -> bool:
        """Nothing will happen to it any more unless it is run again."""
        return self not in {TaskState.RUNNING, TaskState.PUBLISHING, TaskState.DEFERRED}


class Box(NamedTuple):
    """A rectangle in pixels of the source image; x1 and y1 are just outside."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.y1 - self.y0


def _shape(marks: NDArray[np.float32] | None) -> str:
    return "None" if marks is None else f"<{marks.dtype} {marks.shape}>"


@attrs.frozen(eq=False)
class Person:
    """Somebody in the source image.

    Attributes:
        id: 1 is the best, 2 the next.
        box: Pixels of the source image.
        confidence: 0..1.
        landmarks: Face landmarks, `float32`, shape (n, 2), x and y in pixels of the source image;
            None where the detector gives none.
    """

    id: int
    box: Box
    confidence: float
    landmarks: NDArray[np.float32] | None = attrs.field(default=None, repr=_shape)

    def to_dict(self) -> dict[str, JSON]:
        """The person without landmarks, in JSON."""
        return {"id": self.id, "box": list(self.box), "confidence": round(self.confidence, 4)}

    def lossless(self) -> dict[str, JSON]:
        """The person to the last bit, in JSON; `restored` reads it."""
        marks = self.landmarks
        exact = None if marks is None else b64encode(marks.astype(LITTLE_ENDIAN).tobytes())
        return {
            "id": int(self.id),
            "box": [int(edge) for edge in self.box],
            "confidence": float(self.confidence),
            "landmarks": None if exact is None else exact.decode(),
        }

    @classmethod
    def restored(cls, written: JSON) -> Self:
        """The person that `lossless` wrote."""
        import numpy as np

        marks = written["landmarks"]
        if marks is not None:
            flat = np.frombuffer(b64decode(marks), LITTLE_ENDIAN).astype(np.float32)
            marks = flat.reshape(-1, 2)
        return cls(written["id"], Box(*written["box"]), written["confidence"], marks)


class Persons(tuple[Person, ...]):  # noqa: SLOT001 - the picture has to be somewhere
    """Persons, best first, and the picture they are in: a notebook shows both."""

    image: Image

    def __new__(cls, persons: Iterable[Person], image: Image) -> Self:
        """Keep the picture beside the persons."""
        made = super().__new__(cls, persons)
        made.image = image
        return made

    def __getnewargs__(self) -> tuple[tuple[Person, ...], Image]:
        return tuple(self), self.image

    def _repr_html_(self) -> str:
        """The picture in a notebook, with a box around each person."""
        size = (self.image.width, self.image.height)
        boxes = [(person.box, f"#{person.id} {person.confidence:.0%}") for person in self]
        over = html.labelled_boxes(boxes, size)
        return html.picture(self.image.thumbnail_url(), size, over=over)


@attrs.frozen(eq=False)
class Draft:
    """A task under way.

    Attributes:
        task_id: The task it belongs to.
        image: The source.
        speech: What is to be said, recorded or yet to be spoken.
        persons: Everybody detected, best first; None before detection.
        person: The one selected.
        portrait: What will speak: the whole image at first, then crop, cut-out, composite.
        portrait_box: The part of the source that the portrait shows.
        video: The result.
        metadata: Facts for the result, JSON only.
    """

    task_id: str
    image: Image
    portrait: Image
    portrait_box: Box
    speech: Speech | Text | None = None
    persons: tuple[Person, ...] | None = None
    person: Person | None = None
    video: Video | None = None
    metadata: dict[str, JSON] = attrs.field(factory=dict)

    def _repr_html_(self) -> str:
        """What the stages have made so far, in a notebook."""
        # A stored result may have outlived its photo.
        seen = self.persons and self.image
        source = Persons(self.persons or (), self.image) if seen else self.image
        parts = {"source": source, "portrait": self.portrait, "video": self.video}
        return html.table({name: part._repr_html_() for name, part in parts.items() if part})


@attrs.frozen(eq=False)
class Result:
    """What became of a task.

    Attributes:
        task_id: The task.
        status: `completed` or `deferred`.
        draft: Everything the stages made.
        execution_time_ms: Wall-clock time of the last attempt.
        stages_completed: Its steps that ended, like `detection_complete`.
        timings: Seconds by stage.
        metadata: Facts that the stages told: `person_detection` and the like.
    """

    task_id: str
    status: TaskState
    draft: Draft
    execution_time_ms: int
    stages_completed: tuple[str, ...] = ()
    timings: Mapping[str, float] = attrs.field(factory=dict)
    metadata: Mapping[str, JSON] = attrs.field(factory=dict)

    @property
    def success(self) -> bool:
        """The task is completed."""
        return self.status is TaskState.COMPLETED

    @property
    def video(self) -> Video:
        """The video.

        Raises:
            NotReady: The task was deferred, or none of its stages makes a video.
        """
        if self.status is TaskState.DEFERRED:
            raise NotReady(
                f"Task {self.task_id} was deferred; its video is not made yet.",
                hint="await pipeline.recover() goes on with it later.",
            )
        if self.draft.video is None:
            raise NotReady(
                f"No stage of task {self.task_id} made a video.",
                hint="End the stages with GenerateVideo(); result.draft has what they made.",
            )
        return self.draft.video

    @property
    def video_url(self) -> str | None:
        """Where the video is, if there is one and the storage has addresses."""
        return (self.draft.video.url or None) if self.draft.video else None

    def _repr_html_(self) -> str:
        """The video in a notebook, and how it came about."""
        seconds = ", ".join(f"{stage} {time:.1f} s" for stage, time in self.timings.items())
        facts = {"task": escape(self.task_id), "status": self.status.value, "took": escape(seconds)}
        shown = self.draft.video._repr_html_() if self.draft.video else ""
        return shown + html.table(facts)

    def to_dict(self) -> dict[str, JSON]:
        """The result in JSON, without pictures and sound."""
        return {
            "task_id": self.task_id,
            "status": self.status.value,
            "success": self.success,
            "video_url": self.video_url,
            "execution_time_ms": self.execution_time_ms,
            "stages_completed": list(self.stages_completed),
            "timings": {stage: round(seconds, 4) for stage, seconds in self.timings.items()},
            "metadata": dict(self.metadata),
        }
