"""The scheduler in virtual time: hours of work in a moment, the same at every run."""

from __future__ import annotations

import heapq
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from talkgen.errors import TalkgenError
from talkgen.scheduling.core import Core
from talkgen.scheduling.faults import Failure
from talkgen.scheduling.records import Action, Call, DeviceRecord, Load, Run, Settle, Unload
from talkgen.scheduling.stats import snapshot
from talkgen.scheduling.worker import perform

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from talkgen.protocols import SchedulerStats
    from talkgen.scheduling.faults import Outcome
    from talkgen.scheduling.records import Instance
    from talkgen.testing._devices import FakeDevice, FakeModel, LoadedFake

__all__ = ["Job", "Simulation", "Span"]

Job: TypeAlias = "Generator[float | tuple[FakeModel, Any], Any, None]"
"""Yields seconds to wait, or a model and an item whose result it is sent (or whose error)."""


@attrs.frozen
class Span:
    """A batch that ran.

    Attributes:
        model: The model's key.
        device: Where.
        start: When it began, in seconds.
        end: When it ended.
        items: The batch.
    """

    model: str
    device: str
    start: float
    end: float
    items: tuple[Any, ...]


class Simulation:
    """Runs jobs on fake devices and models as `LocalScheduler` would, in virtual time.

        def job():
            person = yield yolo, "photo"
            cutout = yield birefnet, person
            yield 45.0

    Attributes:
        now: Seconds since the beginning.
        spans: The batches that ran, in the order of their ends.
    """

    def __init__(self, devices: Iterable[FakeDevice], **options: Any) -> None:
        """Begin at 0 with nothing loaded.

        Args:
            devices: All there are, the CPU among them if there is to be one.
            **options: `instances`, `max_waiting` and `keep_warm` of `LocalScheduler`.
        """
        self.now = 0.0
        self.spans: list[Span] = []
        self._core = Core(
            [DeviceRecord(device.name, device.slots, device.capacity) for device in devices],
            **options,
        )
        self._loaded: dict[Instance, LoadedFake] = {}
        self._order = count()
        self._due = float("inf")
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []

    def start(self, job: Job) -> None:
        """Begin a job now."""
        self._at(self.now, partial(self._resume, job, partial(next, job)))

    def run(self) -> None:
        """Go on until everything has ended, and what was warm is unloaded."""
        while self._agenda:
            self.now, _, event = heapq.heappop(self._agenda)
            event()

    def stats(self) -> SchedulerStats:
        """As `LocalScheduler.stats`."""
        return snapshot(self._core, self.now)

    # --- jobs ----------------------------------------------------------------------------------

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), event))

    def _resume(self, job: Job, step: Callable[[], Any]) -> None:
        try:
            wanted = step()
        except StopIteration:
            return
        if isinstance(wanted, tuple):
            self._submit(job, *wanted)
        else:
            self._at(self.now + wanted, partial(self._resume, job, partial(next, job)))

    def _submit(self, job: Job, model: FakeModel, item: Any) -> None:
        try:
            _, actions = self._core.submit(model, item, job, self.now)
        except TalkgenError as error:
            self._at(self.now, partial(self._resume, job, partial(job.throw, error)))
        else:
            self._do(actions)

    def _settled(self, call: Call, outcome: Outcome) -> None:
        job: Job = call.owner
        if isinstance(outcome, Failure):
            step: Callable[[], Any] = partial(job.throw, outcome.error)
        else:
            step = partial(job.send, outcome.value)
        self._at(self.now, partial(self._resume, job, step))

    # --- the core's actions --------------------------------------------------------------------

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Settle(call, outcome):
                    self._settled(call, outcome)
                case Load(instance, _):
                    latency = instance.record.model.load_latency  # type: ignore[attr-defined]
                    self._at(self.now + latency, partial(self._load, instance))
                case Run(instance, items, level):
                    latency = self._loaded[instance].model.latency
                    ended = partial(self._ran, instance, items, level, self.now)
                    self._at(self.now + latency, ended)
                case Unload(instance):
                    self._at(self.now, partial(self._unload, instance))
        due = self._core.next_tick()
        if due is not None and due < self._due:
            self._due = due
            self._at(max(due, self.now), self._tick)

    def _load(self, instance: Instance) -> None:
        model: FakeModel = instance.record.model  # type: ignore[assignment]
        try:
            self._loaded[instance] = model.load_at_once(instance.device.name)
        except Exception as error:  # noqa: BLE001 - handed over to the waiters
            self._do(self._core.load_failed(instance, Failure.of(error), self.now))
        else:
            self._do(self._core.loaded(instance, self.now))

    def _ran(self, instance: Instance, items: tuple[Any, ...], level: int, start: float) -> None:
        model = instance.record.model.key
        self.spans.append(Span(model, instance.device.name, start, self.now, items))
        outcomes = perform(_AtOnce(self._loaded[instance]), items, level)
        self._do(self._core.finished(instance, outcomes, self.now))

    def _unload(self, instance: Instance) -> None:
        self._loaded.pop(instance).close()
        self._do(self._core.unloaded(instance, self.now))

    def _tick(self) -> None:
        self._due = float("inf")
        self._do(self._core.tick(self.now))


@attrs.frozen
class _AtOnce:
    """A loaded fake whose time has been counted already."""

    fake: LoadedFake

    def run(self, batch: Any, *, level: int = 0) -> list[Any]:
        return self.fake.run_at_once(batch, level=level)

    def close(self) -> None:
        self.fake.close()
