"""What models run on: the CPU, and what torch drives.

torch is imported only to look for accelerators, and that is done only for a model that may run on
one: in a thread, once.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from talkgen.requirements import explained
from talkgen.scheduling.records import CPU

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CpuDevice", "CudaDevice", "Device", "MpsDevice", "accelerators", "inference"]

SHARE = 0.9  # of the free memory: the rest is for what models forget to count, and for others


class Device(Protocol):
    """Something that models run on. Called from the threads of the instances on it.

    Attributes:
        name: What `Model.load` gets: `cpu`, `cuda:0`, `mps`.
        slots: How many loads and batches at a time; None for as many as fit.
        capacity: Bytes that models may ever reserve; None where they are not counted.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - the class's docstring has the attributes
    @property
    def slots(self) -> int | None: ...  # noqa: D102
    @property
    def capacity(self) -> int | None: ...  # noqa: D102

    def budget(self) -> int | None:
        """Bytes that the models of this process may reserve now; None where nobody counts."""
        ...

    def used(self) -> int | None:
        """Bytes that this process uses now; None where nobody can tell."""
        ...

    def free_cache(self) -> None:
        """Give back memory that is kept for later use."""
        ...


class CpuDevice:
    """The CPU: always there, with a number of slots."""

    name = CPU

    def __init__(self, slots: int | None = None, capacity: int | None = None) -> None:
        """Describe it.

        Args:
            slots: How many loads and batches at a time; by default as many as this process has
                cores.
            capacity: Bytes that models may reserve; None for any number.
        """
        self.slots = slots or _cores()
        self.capacity = capacity

    def budget(self) -> int | None:
        """What was given."""
        return self.capacity

    def used(self) -> int | None:
        """Nobody tells the models' memory from the rest of the process."""
        return None

    def free_cache(self) -> None:
        """There is none."""


class CudaDevice:
    """One GPU, as torch sees it: `CUDA_VISIBLE_DEVICES` is respected."""

    def __init__(self, index: int, budget: int | None = None) -> None:
        """Look at the GPU.

        Args:
            index: Of those that torch sees.
            budget: Bytes that models may reserve; by default 90 % of what is free, at each load.
        """
        import torch

        self._cuda: Any = torch.cuda
        self._index = index
        self._budget = budget
        self.name = f"cuda:{index}"
        self.slots = None
        self.capacity = budget or int(SHARE * self._cuda.mem_get_info(index)[1])

    def budget(self) -> int:
        """90 % of what would be free without the models of this process."""
        if self._budget is not None:
            return self._budget
        free, _ = self._cuda.mem_get_info(self._index)
        return int(SHARE * (free + self._cuda.memory_reserved(self._index)))

    def used(self) -> int:
        """What torch has taken for tensors."""
        return int(self._cuda.memory_allocated(self._index))

    def free_cache(self) -> None:
        """Give back what torch keeps for later tensors."""
        with self._cuda.device(self._index):
            self._cuda.empty_cache()


class MpsDevice:
    """The GPU of an Apple machine; its memory is the machine's."""

    name = "mps"
    slots = None

    def __init__(self, budget: int | None = None) -> None:
        """Look at the GPU.

        Args:
            budget: Bytes that models may reserve; by default 90 % of what Metal recommends.
        """
        import torch

        self._mps: Any = torch.mps
        self.capacity = budget or int(SHARE * self._mps.recommended_max_memory())

    def budget(self) -> int:
        """What was given, or Metal's recommendation."""
        return self.capacity

    def used(self) -> int:
        """What torch has taken for tensors."""
        return int(self._mps.current_allocated_memory())

    def free_cache(self) -> None:
        """Give back what torch keeps for later tensors."""
        self._mps.empty_cache()


def accelerators(wanted: Sequence[str] | None, budgets: Mapping[str, int]) -> list[Device]:
    """What torch drives here; imports it, where it is installed.

    Args:
        wanted: Names; None for all there are.
        budgets: Bytes that models may reserve, by name; `cuda` is `cuda:0` here, too.

    Raises:
        talkgen.errors.MissingDependency: Names are given, and torch is not installed.
        ValueError: There is no such device.
    """
    if wanted is None and find_spec("torch") is None:
        return []
    found = _found()
    names = list(found) if wanted is None else [_full(name) for name in wanted]
    if unknown := [name for name in names if name not in found]:
        there = ", ".join([CPU, *found])
        raise ValueError(f"there is no device {', '.join(unknown)} here, only {there}")
    bytes_of = {_full(name): most for name, most in budgets.items()}
    return [_device(name, bytes_of.get(name)) for name in dict.fromkeys(names)]


def _found() -> list[str]:
    with explained():
        import torch
    if torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else []


def _full(name: str) -> str:
    return "cuda:0" if name == "cuda" else name


def _device(name: str, budget: int | None) -> Device:
    if name == "mps":
        return MpsDevice(budget)
    return CudaDevice(int(name.removeprefix("cuda:")), budget)


def inference() -> AbstractContextManager[Any]:
    """What models run in: no gradients, where torch is in use at all."""
    torch = sys.modules.get("torch")
    return nullcontext() if torch is None else torch.inference_mode()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
