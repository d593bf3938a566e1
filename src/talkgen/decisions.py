"""What a pipeline decides, apart from doing it: pure functions of plain facts."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

import attrs

from talkgen.checkpoints import UPLOAD
from talkgen.draft import Draft
from talkgen.errors import Severity, StageFailed, TalkgenError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from talkgen.media import Image, Speech, Text
    from talkgen.protocols import Operation, Stage

__all__ = [
    "Answer",
    "answer",
    "as_talkgen_error",
    "check_order",
    "paid_for",
    "space_needed",
    "unsettled",
    "wants_speech",
]

FIELDS = frozenset(field.name for field in attrs.fields(Draft))
AT_START = frozenset({"task_id", "image", "portrait", "portrait_box", "speech", "metadata"})


def check_order(stages: Sequence[Stage]) -> None:
    """Refuse stages that cannot follow each other.

    Raises:
        ValueError: Two stages have one name, or one has the inputs' own; a stage requires a
            field that none before it provides; or makes anew what one before it made. The
            message names the field.
        TypeError: One is a class.
    """
    made_by: dict[str, str] = {}
    names: set[str] = set()
    for stage in stages:
        if isinstance(stage, type):
            raise TypeError(f"{stage.__name__} is a class, not a stage; put {stage.__name__}()")
        if stage.name in names:
            raise ValueError(f"two stages are named {stage.name!r}; names must differ")
        names.add(stage.name)
        _check_fields(stage)
        for field in sorted(stage.requires - AT_START - made_by.keys()):
            raise ValueError(
                f"stage {stage.name!r} requires {field!r}, which no earlier stage provides"
            )
        for field in sorted(stage.resets & made_by.keys()):
            raise ValueError(
                f"stage {stage.name!r} makes {field!r} anew and would lose what stage "
                f"{made_by[field]!r} made; put {stage.name!r} first"
            )
        made_by |= dict.fromkeys(stage.provides, stage.name)


def _check_fields(stage: Stage) -> None:
    for field in sorted((stage.requires | stage.provides | stage.resets) - FIELDS):
        raise ValueError(f"stage {stage.name!r} names {field!r}, which is no field of a Draft")
    if stage.name == UPLOAD:
        raise ValueError(f"no stage may be named {UPLOAD!r}: the inputs' own step is")
    if stage.weight <= 0:
        raise ValueError(f"stage {stage.name!r} has weight {stage.weight}; it must be above 0")


def wants_speech(stages: Iterable[Stage]) -> str | None:
    """The first stage that requires speech."""
    return next((stage.name for stage in stages if "speech" in stage.requires), None)


class Answer(Enum):
    """What a run does about an error."""

    GO_ON = auto()  # without what the stage would have made
    DEFER = auto()  # keep everything, go on later
    FAIL = auto()  # leave nothing


def answer(
    error: TalkgenError, *, optional: bool, strict: bool, defer: Collection[str], paid: bool
) -> Answer:
    """Decide about an error: the one place where that is done.

    Args:
        error: What a stage, the storage or the journal raised.
        optional: The stage may be left out.
        strict: The caller wants all or nothing.
        defer: Kinds of trouble that are waited out: `external`, `resource`.
        paid: Something paid for would be lost.
    """
    if optional and not (strict or paid):
        return Answer.GO_ON
    outage = error.outage and "external" in defer
    shortage = error.severity is Severity.RESOURCE and "resource" in defer
    return Answer.DEFER if paid or outage or shortage else Answer.FAIL


def paid_for(operations: Iterable[Operation]) -> bool:
    """Something is or may be paid for, and would be lost with the run's files.

    Neither refused nor past finding out: it is open, or it is collected and not published yet.
    """
    return any(operation.settled in {None, "collected"} for operation in operations)


def unsettled(operations: Iterable[Operation]) -> bool:
    """Something may be paid for that nobody has collected: it would be lost with its stage."""
    return any(operation.settled is None for operation in operations)


def as_talkgen_error(error: Exception, *, stage: str | None, task_id: str) -> TalkgenError:
    """The error itself, or wrapped if it is a stranger; with where it happened filled in.

    One that is alone in an exception group, as a task group raises it, is that error.
    """
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if not isinstance(error, TalkgenError):
        stranger, where = error, f"stage {stage!r}" if stage else "the run"
        error = StageFailed(
            f"{where} raised {type(stranger).__name__}: {stranger}",
            hint="This is a bug in the stage, or in talkgen if the stage is one of its own.",
        )
        error.__cause__ = stranger
    error.stage = error.stage or stage
    error.task_id = error.task_id or task_id
    return error


# Generous: lossless cut-outs take up to 4 bytes a pixel, and there are three of them; a video of
# the largest size takes up to 0.5 MB a second.
BYTES_PER_PIXEL = 12
VIDEO_BYTES_PER_SECOND = 500_000
OVERHEAD = 1_000_000


def space_needed(image: Image, speech: Speech | Text | None) -> int:
    """Bytes that a run may write at most."""
    seconds = getattr(speech, "duration", 60.0) if speech else 0.0
    return int(
        image.width * image.height * BYTES_PER_PIXEL + seconds * VIDEO_BYTES_PER_SECOND + OVERHEAD
    )
