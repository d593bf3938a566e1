"""Devices and models that need no hardware, and do what they are told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

__all__ = ["FakeDevice", "FakeModel", "LoadedFake", "Script"]

PATIENCE = 30.0  # seconds after which an event that a script waits for is taken for forgotten


@attrs.define(eq=False)
class FakeDevice:
    """A device with as much memory as it says: `LocalScheduler([FakeDevice("cuda:0", ...)])`.

    Attributes:
        name: Like `cuda:0`; `cpu` stands for the CPU itself.
        capacity: Bytes that models may reserve; None for any number.
        slots: How many loads and batches at a time; None for as many as fit.
        taken: Bytes that other processes have taken; may be changed at any time.
        caches_freed: How often `free_cache` was called.
    """

    name: str = "cuda:0"
    capacity: int | None = None
    slots: int | None = None
    taken: int = 0
    caches_freed: int = 0

    def budget(self) -> int | None:
        """What the others have left."""
        return None if self.capacity is None else self.capacity - self.taken

    def used(self) -> int | None:
        """What the others have taken."""
        return self.taken

    def free_cache(self) -> None:
        """Count."""
        self.caches_freed += 1


@attrs.define(eq=False)
class Script:
    """What happens at one call after the other: an error is raised, an event is waited for.

    None goes on, and so does everything after the last. Pickles while it holds no event; a copy
    goes its own way then.

    Attributes:
        outcomes: What is still to come.
        calls: The arguments of the calls so far.
    """

    outcomes: list[BaseException | threading.Event | None]
    calls: list[tuple[Any, ...]]

    def __init__(self, *outcomes: BaseException | threading.Event | None) -> None:
        """Write the script."""
        self.outcomes = list(outcomes)
        self.calls = []

    def __call__(self, *arguments: Any) -> None:
        """Play the next outcome."""
        self.calls.append(arguments)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome is not None and not outcome.wait(PATIENCE):
            raise TimeoutError(f"nobody set the event of call {len(self.calls)}")


def _same(item: Any) -> Any:
    return item


def _pass(seconds: float) -> None:
    if seconds:  # sleeping for no time takes some
        time.sleep(seconds)


@attrs.frozen
class FakeModel:
    """A model that takes its time and gives back its items, or what `function` makes of them.

    Pickles as long as its functions do.

    Attributes:
        key: Names it.
        device: Where it may run.
        max_instances: How many may be loaded at a time.
        max_batch: How many items one call takes.
        levels: Sizes it can run at.
        bytes: What an instance takes.
        latency: Seconds that a batch takes.
        load_latency: Seconds that loading takes.
        function: An item's result.
        at_load: Called with the device's name at each load; what it raises, the load raises.
        at_run: Called with batch, level and device before each batch; likewise.
        at_close: Called with the device's name at each end.
    """

    key: str = "fake"
    device: str = "auto"
    max_instances: int = 1
    max_batch: int = 1
    levels: int = 1
    bytes: int = 0
    latency: float = 0.0
    load_latency: float = 0.0
    function: Callable[[Any], Any] = _same
    at_load: Callable[[str], None] | None = None
    at_run: Callable[[Sequence[Any], int, str], None] | None = None
    at_close: Callable[[str], None] | None = None

    def vram_bytes(self, device: str) -> int:  # noqa: ARG002 - the same everywhere
        """What an instance takes."""
        return self.bytes

    def load(self, device: str) -> LoadedFake:
        """Play the script, and take the time."""
        loaded = self.load_at_once(device)
        _pass(self.load_latency)
        return loaded

    def load_at_once(self, device: str) -> LoadedFake:
        """Play the script, in no time."""
        if self.at_load is not None:
            self.at_load(device)
        return LoadedFake(self, device)


@attrs.frozen
class LoadedFake:
    """A loaded `FakeModel`.

    Attributes:
        model: Which.
        device: Where.
    """

    model: FakeModel
    device: str

    def run(self, batch: Sequence[Any], *, level: int = 0) -> list[Any]:
        """Play the script, and take the time."""
        results = self.run_at_once(batch, level=level)
        _pass(self.model.latency)
        return results

    def run_at_once(self, batch: Sequence[Any], *, level: int = 0) -> list[Any]:
        """Play the script, in no time."""
        if self.model.at_run is not None:
            self.model.at_run(batch, level, self.device)
        return [self.model.function(item) for item in batch]

    def close(self) -> None:
        """Play the script."""
        if self.model.at_close is not None:
            self.model.at_close(self.device)
