"""What an error of a model means for the scheduler."""

from __future__ import annotations

import copy
import re
import traceback
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from talkgen.errors import OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Done", "Failure", "Fault", "Outcome", "classify", "let_go"]


class Fault(Enum):
    """Whose fault an error is."""

    ITEM = auto()  # the item's, or the model's: it goes to the caller
    MEMORY = auto()  # there was no room: the ladder goes one step down
    LOST = auto()  # the device's: nothing runs there any more


@attrs.frozen
class Done:
    """An item's result."""

    value: Any


@attrs.frozen
class Failure:
    """An item's or a load's error, and whose fault it is."""

    error: BaseException
    fault: Fault

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Classify an error."""
        return cls(error, classify(error))

    def own_copy(self) -> Failure:
        """For one of several waiters: each run fills in where it happened to itself."""
        return Failure(_copied(self.error), self.fault)


Outcome: TypeAlias = Done | Failure

# torch is never imported to recognise its errors: they are told by name and by message.
_TORCH_MEMORY = "OutOfMemoryError"
_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|_ALLOC_FAILED", re.IGNORECASE
)
_TORCH_LOST = "AcceleratorError"
_LOST = re.compile(r"CUDA error:")


def classify(error: BaseException) -> Fault:
    """Whose fault an error is. What it was raised from counts, too."""
    for link in _chain(error):
        if _is_memory(link):
            return Fault.MEMORY
        if _is_lost(link):
            return Fault.LOST
    return Fault.ITEM


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def let_go(error: BaseException) -> None:
    """Empty the frames that an error came through: what they hold would live as long as it does.

    That is the memory of a device, which the accounts know as free: tensors that were being made,
    and the model itself. Where it happened is still told. Frames that still run stay as they are.
    """
    links, seen = [error], set[int]()
    while links:
        link = links.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        links += filter(None, (link.__cause__, link.__context__))
        traceback.clear_frames(link.__traceback__)
        if link.__traceback__ is not None:
            _empty(link.__traceback__.tb_frame)


def _empty(frame: FrameType) -> None:
    """A frame that has ended keeps those that called it."""
    for caller, _ in traceback.walk_stack(frame):
        with suppress(RuntimeError):  # it still runs
            caller.clear()


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, (OutOfMemory, MemoryError)) or _is_torch(error, _TORCH_MEMORY):
        return True
    return isinstance(error, RuntimeError) and _MEMORY.search(str(error)) is not None


def _is_lost(error: BaseException) -> bool:
    if _is_torch(error, _TORCH_LOST):
        return True
    return isinstance(error, RuntimeError) and _LOST.match(str(error)) is not None


def _is_torch(error: BaseException, name: str) -> bool:
    return any(
        kind.__name__ == name and kind.__module__.partition(".")[0] == "torch"
        for kind in type(error).__mro__
    )


def _copied(error: BaseException) -> BaseException:
    try:
        copied = copy.copy(error)
    except Exception:  # noqa: BLE001 - a stranger's constructor may do anything
        return error
    if type(copied) is not type(error):
        return error
    copied.__cause__ = error.__cause__
    return copied.with_traceback(error.__traceback__)
