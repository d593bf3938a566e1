"""The scheduler of this process: does what the core decides."""

from __future__ import annotations

import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs

from talkgen import telemetry
from talkgen._loops import call_soon
from talkgen._waiting import waiter
from talkgen.errors import Overloaded
from talkgen.protocols import Degradation
from talkgen.scheduling.core import Core
from talkgen.scheduling.devices import CpuDevice, accelerators
from talkgen.scheduling.faults import Failure
from talkgen.scheduling.records import CPU, DeviceRecord, Load, Run, Settle, Tell, Unload
from talkgen.scheduling.stats import snapshot
from talkgen.scheduling.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from anyio.lowlevel import EventLoopToken

    from talkgen._waiting import Waiter
    from talkgen.protocols import Model, SchedulerStats
    from talkgen.scheduling.devices import Device
    from talkgen.scheduling.faults import Outcome
    from talkgen.scheduling.records import Action, Instance

__all__ = ["LocalScheduler"]

In = TypeVar("In")
Out = TypeVar("Out")

KEEP_WARM = 300.0


class LocalScheduler:
    """Runs models on the devices of this process, where there is room, and keeps them warm.

    It serves any number of event loops; each call's waiter may be cancelled at any moment.
    """

    def __init__(
        self,
        devices: Sequence[str | Device] | None = None,
        *,
        budgets: Mapping[str, int] | None = None,
        cpu_slots: int | None = None,
        instances: Mapping[str, int] | None = None,
        max_waiting: int | None = None,
        keep_warm: float = KEEP_WARM,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Make a scheduler; nothing is loaded or looked at before the first call.

        Args:
            devices: Accelerators, by name (`cuda:0`, `mps`) or as `Device`; by default all that
                there are. The CPU is always there; `["cpu"]` means no other.
            budgets: Bytes that models may take, by the device's name; by default 90 % of what is
                free, read again at each load. On the CPU nothing is counted without one.
            cpu_slots: How many loads and batches at a time on the CPU; by default one per core.
            instances: How many of a model may be loaded at a time, by the beginning of its key
                (`{"birefnet": 2}`); by default what the model says.
            max_waiting: How many calls may wait, before `Overloaded`; by default any number.
            keep_warm: Seconds after its last use for which a model stays loaded.
            clock: Seconds that never go back.
        """
        self._budgets = dict(budgets or {})
        self._names = _names(devices)
        cpu = CpuDevice(cpu_slots, self._budgets.get(CPU))
        given = [device for device in devices or () if not isinstance(device, str)]
        self._devices: dict[str, Device] = {device.name: device for device in (cpu, *given)}
        self._clock = clock
        self._core = Core(
            map(self._record, self._devices.values()),
            instances=instances,
            max_waiting=max_waiting,
            keep_warm=keep_warm,
        )
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._looked = self._names == ()
        self._workers: dict[Instance, Worker] = {}
        self._threads: list[Worker] = []
        self._alarm: threading.Timer | None = None
        self._due = float("inf")

    # --- for everybody -------------------------------------------------------------------------

    async def run(
        self,
        model: Model[In, Out],
        item: In,
        *,
        on_degraded: Callable[[Degradation], None] | None = None,
    ) -> Out:
        """Run one item through a model, loading it first where needed.

        Args:
            model: What to run.
            item: What it runs on.
            on_degraded: Told of every step down for this item, in the caller's event loop. What it
                raises, the call raises.

        Raises:
            talkgen.errors.OutOfMemory: It fits nowhere, at no level.
            talkgen.errors.Overloaded: `max_waiting` calls wait already, or there is no thread to be
                had for the model.
            talkgen.errors.ModelUnavailable: It cannot be loaded, or has no device here.
            talkgen.errors.RunCancelled: The scheduler was closed before the call's turn came.
            RuntimeError: The scheduler is closed.
        """
        if not self._looked and model.device != CPU:
            await anyio.to_thread.run_sync(self._look_for_accelerators, abandon_on_cancel=True)
        waiter = _Waiter()
        with self._lock:
            call, actions = self._core.submit(model, item, waiter, self._clock())
            told = self._do(actions)
        _wake(told)
        try:
            return cast("Out", await waiter.result(on_degraded))
        finally:
            if not waiter.settled:
                self._happened(self._core.cancel, call)

    def stats(self) -> SchedulerStats:
        """A snapshot; no I/O."""
        with self._lock:
            return snapshot(self._core, self._clock())

    async def aclose(self) -> None:
        """Refuse new calls, cancel those that wait, end those that run, unload the models."""
        self._happened(self._core.close)
        with anyio.CancelScope(shield=True):
            while workers := self._alive():
                await anyio.to_thread.run_sync(_join, workers)
        with self._lock:
            self._stop_alarm()

    # --- reports of the workers, from their threads --------------------------------------------

    def loaded(self, instance: Instance) -> None:
        """A worker's model is ready."""
        self._measure(instance)
        self._happened(self._core.loaded, instance)

    def load_failed(self, instance: Instance, failure: Failure) -> None:
        """A worker could not load its model."""
        self._measure(instance)
        self._happened(self._core.load_failed, instance, failure)

    def finished(self, instance: Instance, outcomes: list[Outcome]) -> None:
        """A worker has run its batch."""
        self._happened(self._core.finished, instance, outcomes)

    def unloaded(self, instance: Instance) -> None:
        """A worker's model is gone."""
        self._measure(instance)
        self._happened(self._core.unloaded, instance)

    def _measure(self, instance: Instance) -> None:
        """Read what a device has and uses, for the statistics."""
        device = self._devices[instance.device.name]
        with suppress(Exception):  # one that has failed cannot be read, and is told of elsewhere
            instance.device.budget, instance.device.used = device.budget(), device.used()

    # --- between the core and the threads ------------------------------------------------------

    def _happened(self, event: Callable[..., list[Action]], *facts: Any) -> None:
        with self._lock:
            told = self._do(event(*facts, self._clock()))
        _wake(told)

    def _do(self, actions: list[Action]) -> list[_Waiter]:
        """Under the lock, so that nobody's actions overtake another's. Nothing here waits.

        Returns:
            Who is to be woken when the lock is free again: waking gives the turn to the waiter's
            thread, which may need the lock for its next call.
        """
        told: list[_Waiter] = []
        for action in actions:
            match action:
                case Settle(call, news) | Tell(call, news):
                    call.owner.news.append(news)
                    told.append(call.owner)
                case Run(instance, items, level):
                    callers = [call.owner.caller for call in instance.calls]
                    self._workers[instance].run(items, level, callers)
                case Unload(instance):
                    self._workers.pop(instance).unload()
                case Load(instance, reserved, call):
                    actions += self._started(instance, reserved, call.owner.caller)
        self._set_alarm()
        return told

    def _started(self, instance: Instance, reserved: int, caller: Any) -> list[Action]:
        """Have an instance loaded; what is to be done where no thread can be had for it."""
        device = self._devices[instance.device.name]
        worker = Worker(instance, device, reserved, self, caller)
        try:
            worker.start()
        except RuntimeError as error:
            return self._core.load_failed(instance, _no_thread(error), self._clock())
        self._workers[instance] = worker
        self._threads = [*filter(Worker.is_alive, self._threads), worker]
        return []

    def _alive(self) -> list[Worker]:
        with self._lock:
            return list(filter(Worker.is_alive, self._threads))

    # --- devices -------------------------------------------------------------------------------

    def _record(self, device: Device) -> DeviceRecord:
        return DeviceRecord(device.name, device.slots, device.capacity, since=self._clock())

    def _look_for_accelerators(self) -> None:
        """Once; those who come meanwhile wait. In a thread: importing torch takes seconds."""
        with self._looking:
            if self._looked:
                return
            found = accelerators(self._names, self._budgets)
            with self._lock:
                self._devices |= {device.name: device for device in found}
                self._core.devices += map(self._record, found)
                self._looked = True

    # --- time ----------------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        """Have `tick` called when it is due: by a thread that is there only while it is needed."""
        if self._alarm is not None and not self._core.retrying:
            return  # what is used later is due later: an alarm that comes early sets the next one
        due = self._core.next_tick()
        if due is None or due >= self._due:
            return
        self._stop_alarm()
        alarm = threading.Timer(max(due - self._clock(), 0.0), self._ring)
        alarm.daemon = True
        with suppress(RuntimeError):  # there is no thread to be had: the next event tries again
            alarm.start()
            self._due, self._alarm = due, alarm

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._due = None, float("inf")

    def _ring(self) -> None:
        with self._lock:
            self._alarm, self._due = None, float("inf")
        self._happened(self._core.tick)


def _names(devices: Sequence[str | Device] | None) -> tuple[str, ...] | None:
    """The accelerators to look for; None for all."""
    if devices is None:
        return None
    return tuple(device for device in devices if isinstance(device, str) and device != CPU)


def _no_thread(cause: RuntimeError) -> Failure:
    error = Overloaded(
        "This process can start no more threads.",
        hint="Run less at a time, or raise the limit of its user's threads.",
    )
    error.__cause__ = cause
    return Failure.of(error)


def _wake(waiters: Iterable[_Waiter]) -> None:
    for each in waiters:
        each.wake()


def _join(workers: list[Worker]) -> None:
    for worker in workers:
        worker.join()


@attrs.define(eq=False)
class _Waiter:
    """A caller, in its event loop.

    Attributes:
        news: What it has not heard yet, in order; added to under the scheduler's lock.
        settled: It has heard its outcome.
        caller: Where its call is among the spans.
    """

    news: list[Degradation | Outcome] = attrs.field(factory=list)
    settled: bool = False
    caller: Any = attrs.field(factory=telemetry.here)
    _token: EventLoopToken = attrs.field(factory=anyio.lowlevel.current_token)
    _waiting: Waiter = attrs.field(init=False)

    @_waiting.default
    def _here(self) -> Waiter:
        return waiter(self._token)

    def wake(self) -> None:
        """From any thread, without waiting."""
        call_soon(self._token, self._waiting.wake)

    async def result(self, on_degraded: Callable[[Degradation], None] | None) -> Any:
        """Pass on what is told, until the outcome comes."""
        while isinstance(news := await self._next(), Degradation):
            if on_degraded is not None:
                on_degraded(news)
        self.settled = True
        if isinstance(news, Failure):
            raise news.error
        return news.value

    async def _next(self) -> Degradation | Outcome:
        while not self.news:
            await self._waiting.until_woken()
        return self.news.pop(0)
