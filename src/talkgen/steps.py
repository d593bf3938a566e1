"""A stage as the foreign code that it is: what it raises and gives back is looked at first."""

from __future__ import annotations

from contextlib import contextmanager
from types import NoneType
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from talkgen._loops import being_cancelled
from talkgen.draft import Draft
from talkgen.errors import InvalidInput, StageFailed, TalkgenError
from talkgen.media import Image, Speech, Text, Video

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from talkgen.protocols import Stage, StageContext

__all__ = ["check_inputs", "stage_keys", "step"]

MEDIA: dict[str, tuple[type, ...]] = {
    "image": (Image,),
    "portrait": (Image,),
    "speech": (Speech, Text, NoneType),
    "video": (Video, NoneType),
}


async def stage_keys(stages: Sequence[Stage]) -> tuple[str, ...]:
    """What tells these stages from others.

    In a thread: a key may be the digest of a picture, or of a file of weights.
    """
    return await anyio.to_thread.run_sync(lambda: tuple(stage.key for stage in stages))


def check_inputs(stages: Sequence[Stage], draft: Draft, context: StageContext) -> None:
    """Let stages that have a `check` refuse before any of them works.

    Raises:
        InvalidInput: One refused with a `ValueError`.
    """
    for stage in stages:
        if (check := getattr(stage, "check", None)) is not None:
            try:
                check(draft, context)
            except TalkgenError:
                raise
            except ValueError as error:
                raise InvalidInput(str(error)) from error


async def step(stage: Stage, before: Draft, context: StageContext) -> Draft:
    """Run a stage; the draft after it.

    Raises:
        StageFailed: It gave back something else, or what no checkpoint could keep.
        Exception: Whatever the stage raises.
    """
    with _errors_of_its_own():
        after = await stage.run(before, context)
    if not isinstance(after, Draft):
        raise StageFailed(
            f"stage {stage.name!r} gave back {type(after).__name__} instead of a Draft.",
            hint="A stage's run() ends with: return attrs.evolve(draft, ...)",
        )
    for field, kinds in MEDIA.items():
        if not isinstance(value := getattr(after, field), kinds):
            # A checkpoint would leave it out, and the next attempt would have none.
            raise StageFailed(
                f"stage {stage.name!r} made {type(value).__name__} of the draft's {field}.",
                hint=f"It must be {' or '.join(kind.__name__ for kind in kinds)}.",
            )
    return after


@contextmanager
def _errors_of_its_own() -> Iterator[None]:
    """Tell a stage's errors from the cancellation of its run; neither is taken for the other."""
    cancelled = anyio.get_cancelled_exc_class()
    try:
        yield
    except cancelled as stray:
        if being_cancelled():
            raise
        # It would end the whole task group, and every other run in it.
        raise RuntimeError("something that it awaited was cancelled") from stray
    except BaseExceptionGroup as group:
        _, failed = group.split(cancelled)
        if failed is None:
            raise
        raise failed from None
