"""The scheduler's decisions: who runs where and when.

A state machine without threads, clock or I/O. Whoever drives it tells what has happened and when,
and does what it asks for, in order:

    submit, cancel, loaded, load_failed, finished, unloaded, tick, close
        ->  Load, Run, Unload, Tell, Settle

Every `Load` is answered by `loaded` or `load_failed`, every `Run` by `finished`, every `Unload` by
`unloaded`. Times are seconds of a clock that never goes back.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from talkgen.errors import ModelUnavailable, OutOfMemory, Overloaded, RunCancelled, TalkgenError
from talkgen.protocols import Degradation
from talkgen.scheduling.faults import Done, Failure, Fault
from talkgen.scheduling.ladder import Form, step_down
from talkgen.scheduling.records import (
    CPU,
    Action,
    Call,
    CallState,
    DeviceRecord,
    Instance,
    InstanceState,
    Lane,
    Load,
    ModelRecord,
    Run,
    Settle,
    Tell,
    Unload,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from talkgen.protocols import Model
    from talkgen.scheduling.faults import Outcome

__all__ = ["Core"]

logger = logging.getLogger("talkgen.scheduling")

PATIENCE = 10  # grants to others before room is kept for a model that cannot be placed
RETRY = 1.0  # seconds before a load that found no memory is tried again; doubled each time
LOAD_TRIES = 6  # loads in vain, about half a minute of waiting, before the ladder's next step


class Core:
    """Decides. Not thread-safe: whoever drives it holds a lock."""

    def __init__(
        self,
        devices: Iterable[DeviceRecord],
        *,
        instances: Mapping[str, int] | None = None,
        max_waiting: int | None = None,
        keep_warm: float = 300.0,
    ) -> None:
        """Begin with nothing loaded.

        Args:
            devices: Where models may run.
            instances: How many of a model there may be, by the beginning of its key; by default
                what the model says.
            max_waiting: How many calls may wait; None for any number.
            keep_warm: Seconds after its last use for which an instance stays loaded.
        """
        self.devices = list(devices)
        self.models: dict[Model[Any, Any], ModelRecord] = {}
        self.waiting = 0
        self.closed = False
        self._instances = dict(instances or {})
        self._max_waiting = max_waiting
        self._keep_warm = keep_warm
        self._lanes: dict[tuple[ModelRecord, Form], Lane] = {}
        self._calls = 0
        self._actions: list[Action] = []
        self._released = False  # a device is not kept any more: who was passed over may have it

    # --- what happens --------------------------------------------------------------------------

    def submit(
        self, model: Model[Any, Any], item: Any, owner: Any, now: float
    ) -> tuple[Call, list[Action]]:
        """Somebody wants an item run.

        Raises:
            RuntimeError: It is closed.
            talkgen.errors.Overloaded: Too many wait already.
            talkgen.errors.OutOfMemory: The model can never fit.
            talkgen.errors.ModelUnavailable: There is no device for it.
        """
        if self.closed:
            raise RuntimeError("this scheduler is closed; make a new LocalScheduler()")
        if self._max_waiting is not None and self.waiting >= self._max_waiting:
            raise Overloaded(
                f"{self.waiting} calls wait for their models already.",
                hint="Try again later, or raise max_waiting.",
            )
        record = self.models.get(model) or self._met(model)
        if not self._places(record, record.form):
            raise _no_place(record)
        self._calls += 1
        call = Call(self._calls, record, item, owner, now, record.form)
        self._enqueue(call)
        return call, self._decided(now)

    def cancel(self, call: Call, now: float) -> list[Action]:
        """The caller has left. What runs already ends in its own time."""
        if call.state is CallState.WAITING:
            self._dequeue(self._lanes[call.record, call.form], call)
        call.state = CallState.ENDED
        return self._decided(now)

    def loaded(self, instance: Instance, now: float) -> list[Action]:
        """An instance is ready."""
        record = instance.record
        record.loads += 1
        record.refused, record.refusals = False, 0
        record.not_before.clear()
        self._rest(instance, now)
        return self._decided(now)

    def load_failed(self, instance: Instance, failure: Failure, now: float) -> list[Action]:
        """An instance could not be loaded; nothing of it is left."""
        instance.device.active -= 1
        self._remove(instance)
        if failure.fault is Fault.MEMORY:
            self._refused(instance.record, instance.device, failure, now)
        elif _is_lost(instance.device, failure):
            self._lose(instance.device, failure.error)
            self._loaded_in_vain(instance.record, failure)
        else:
            self._fail_waiting(instance.record, failure)
        return self._decided(now)

    def finished(self, instance: Instance, outcomes: Sequence[Outcome], now: float) -> list[Action]:
        """A batch has ended, with an outcome for each item."""
        calls, instance.calls = instance.calls, ()
        record, device = instance.record, instance.device
        record.runs.append(now - instance.since)
        device.running -= 1
        if not device.running:
            device.busy += now - device.busy_since
        self._rest(instance, now)
        for call, outcome in zip(calls, outcomes, strict=True):
            if call.state is not CallState.ENDED:
                self._ended(call, outcome, len(calls), device)
        return self._decided(now)

    def unloaded(self, instance: Instance, now: float) -> list[Action]:
        """An instance's memory is free again."""
        self._remove(instance)
        return self._decided(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        for instance in self._idle():
            if instance.since + self._keep_warm <= now:
                self._unload(instance)
        for record in self.models.values():
            for device in [device for device, at in record.not_before.items() if at <= now]:
                del record.not_before[device]
        return self._decided(now)

    def close(self, now: float) -> list[Action]:
        """Take nothing more; what runs is ended, then everything is unloaded."""
        self.closed = True
        for lane in list(self._lanes.values()):
            for call in list(lane.calls.values()):
                self._dequeue(lane, call)
                self._settle(call, _closed())
        return self._decided(now)

    def next_tick(self) -> float | None:
        """When `tick` is due; None while nothing depends on the time."""
        times = [instance.since + self._keep_warm for instance in self._idle()]
        for record in self.models.values():
            if record.waiting:
                times += record.not_before.values()
        return min(times, default=None)

    @property
    def retrying(self) -> bool:
        """A load that found no memory is to be tried again soon."""
        return any(record.not_before for record in self.models.values())

    # --- calls ---------------------------------------------------------------------------------

    def _met(self, model: Model[Any, Any]) -> ModelRecord:
        """A model for the first time."""
        names = [prefix for prefix in self._instances if model.key.startswith(prefix)]
        wanted = self._instances[max(names, key=len)] if names else model.max_instances
        fitting = {
            device: model.vram_bytes(device.name)
            for device in self.devices
            if model.device in ("auto", device.name, device.name.partition(":")[0])
        }
        record = ModelRecord(model, wanted, fitting, Form(limit=model.max_batch))
        self.models[model] = record
        return record

    def _enqueue(self, call: Call) -> None:
        call.state = CallState.WAITING
        key = (call.record, call.form)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(*key)
        lane.add(call)
        call.record.waiting += 1
        self.waiting += 1

    def _dequeue(self, lane: Lane, call: Call) -> None:
        del lane.calls[call.number]
        lane.record.waiting -= 1
        self.waiting -= 1
        if not lane.calls:
            del self._lanes[lane.record, lane.form]

    def _lanes_of(self, record: ModelRecord) -> list[Lane]:
        return [lane for lane in self._lanes.values() if lane.record is record]

    def _settle(self, call: Call, outcome: Outcome) -> None:
        call.state = CallState.ENDED
        if isinstance(outcome, Done):
            call.record.served += 1
        else:
            call.record.failed += 1
        self._actions.append(Settle(call, outcome))

    def _ended(self, call: Call, outcome: Outcome, batch: int, device: DeviceRecord) -> None:
        """A call's turn is over, in vain or not."""
        if isinstance(outcome, Done):
            self._settle(call, outcome)
        elif self.closed and outcome.fault is not Fault.ITEM:
            self._settle(call, _closed())
        elif outcome.fault is Fault.MEMORY:
            self._step_down(call, outcome, batch, device)
        elif _is_lost(device, outcome):
            self._lose(device, outcome.error)
            self._escaped(call, outcome, device)
        else:
            self._settle(call, outcome)

    def _escaped(self, call: Call, failure: Failure, device: DeviceRecord) -> None:
        """A call's device is lost; one that saw it twice may be the cause and gets no third."""
        if call.lost:
            self._settle(call, failure.own_copy())
        else:
            call.lost = True
            self._again(call, call.form, f"{device.name} failed")

    def _loaded_in_vain(self, record: ModelRecord, failure: Failure) -> None:
        """A device was lost while a model was loaded for those who wait; see `_escaped`."""
        for lane in self._lanes_of(record):
            if lane.form.on_cpu:
                continue
            for call in list(lane.calls.values()):
                if call.lost:
                    self._dequeue(lane, call)
                    self._settle(call, failure.own_copy())
                call.lost = True

    def _step_down(self, call: Call, failure: Failure, batch: int, device: DeviceRecord) -> None:
        record = call.record
        cpu = device.name != CPU and any(place.name == CPU for place in self._fitting(record))
        down = step_down(call.form, batch, levels=record.model.levels, cpu=cpu)
        if down is None:
            self._settle(call, Failure(_out_of_memory(record, failure.error), Fault.MEMORY))
            return
        step, form = down
        if step == "evicted":
            for instance in _of(device, InstanceState.IDLE):
                if instance.record is not record:
                    self._evict(instance)
        reason = f"{device.name} ran out of memory"
        if step != "device":
            self._actions.append(Tell(call, Degradation(step, form.level, device.name, reason)))
        self._again(call, form, reason if step == "device" else "")

    def _again(self, call: Call, form: Form, moved: str) -> None:
        """Line a call up once more."""
        call.form, call.moved = form, moved or call.moved
        if self._places(call.record, form):
            self._enqueue(call)
        else:
            self._settle(call, Failure(_no_place(call.record), Fault.LOST))

    def _fail_waiting(self, record: ModelRecord, failure: Failure) -> None:
        """Give an error to all who wait for a model."""
        for lane in self._lanes_of(record):
            for call in list(lane.calls.values()):
                self._dequeue(lane, call)
                self._settle(call, failure.own_copy())

    # --- devices -------------------------------------------------------------------------------

    def _fitting(self, record: ModelRecord) -> list[DeviceRecord]:
        """Where a model could ever run."""
        return [
            device
            for device, size in record.bytes.items()
            if device.lost is None and (device.capacity is None or size <= device.capacity)
        ]

    def _places(self, record: ModelRecord, form: Form) -> list[DeviceRecord]:
        """Where a call may run: on an accelerator, and on the CPU only for want of one."""
        places = record.places.get(form)
        if places is None:
            fitting = self._fitting(record)
            cpu = [device for device in fitting if device.name == CPU]
            others = [device for device in fitting if device.name != CPU]
            places = record.places[form] = cpu if form.on_cpu or not others else others
        return places

    def _lose(self, device: DeviceRecord, error: BaseException) -> None:
        """Take a device out of service for ever: after such an error its context is broken."""
        if device.lost is not None:
            return
        device.lost = str(error)
        for record in self.models.values():
            record.places.clear()
        logger.error("%s is out of service: %s", device.name, error)
        for instance in _of(device, InstanceState.IDLE):
            self._unload(instance)
        for lane in list(self._lanes.values()):
            places = self._places(lane.record, lane.form)
            if not places:
                self._fail_waiting(lane.record, Failure(_no_place(lane.record), Fault.LOST))
            elif device in lane.record.bytes and places[0].name == CPU and not lane.form.on_cpu:
                for call in lane.calls.values():
                    call.moved = call.moved or f"{device.name} failed"

    def _refused(
        self, record: ModelRecord, device: DeviceRecord, failure: Failure, now: float
    ) -> None:
        """There was no memory to load a model, against all accounts: others use the device, too."""
        record.refused = True
        others = [one for one in _of(device, InstanceState.IDLE) if one.record is not record]
        if others and self._is_awaited(record, device):
            self._evict(min(others, key=lambda instance: instance.since))
            self._keep(device, record)
            return
        if not device.instances:
            record.refusals += 1
            self._keep_no_more(record)  # there is nobody to wait out: others may try
        if record.refusals < LOAD_TRIES:
            record.not_before[device] = now + RETRY * 2 ** max(record.refusals - 1, 0)
            return
        record.refusals = 0
        record.not_before.clear()
        self._give_up_loading(record, device, failure)

    def _give_up_loading(self, record: ModelRecord, device: DeviceRecord, failure: Failure) -> None:
        """Nobody waits for ever: those who would have run there go to the CPU, or fail."""
        cpu = device.name != CPU and any(place.name == CPU for place in self._fitting(record))
        for lane in self._lanes_of(record):
            if device not in self._places(record, lane.form):
                continue
            for call in list(lane.calls.values()):
                self._dequeue(lane, call)
                if cpu:
                    form = Form(call.form.limit, call.form.level, on_cpu=True)
                    self._again(call, form, f"{device.name} had no memory left")
                else:
                    error = _out_of_memory(record, failure.error)
                    self._settle(call, Failure(error, Fault.MEMORY))

    # --- instances -----------------------------------------------------------------------------

    def _idle(self) -> list[Instance]:
        return [
            instance
            for device in self.devices
            for instance in device.instances
            if instance.state is InstanceState.IDLE
        ]

    def _rest(self, instance: Instance, now: float) -> None:
        """An instance has loaded or run."""
        instance.state, instance.since = InstanceState.IDLE, now
        instance.device.active -= 1

    def _unload(self, instance: Instance) -> None:
        instance.state = InstanceState.CLOSING
        self._actions.append(Unload(instance))

    def _evict(self, instance: Instance) -> None:
        instance.record.evictions += 1
        self._unload(instance)

    def _remove(self, instance: Instance) -> None:
        instance.device.reserved -= instance.bytes
        instance.device.instances.remove(instance)
        instance.record.instances.remove(instance)

    # --- the decision --------------------------------------------------------------------------

    def _decided(self, now: float) -> list[Action]:
        """Place whoever can be placed; gives back what is to be done since the last time."""
        for device in self.devices:
            if device.kept_for is not None and not self._is_awaited(device.kept_for, device):
                device.kept_for = None
            if device.lost is not None or self.closed:
                for instance in _of(device, InstanceState.IDLE):
                    self._unload(instance)
        self._released = True
        while self._released:
            self._released = False
            self._give(now)
        actions, self._actions = self._actions, []
        return actions

    def _give(self, now: float) -> None:
        """Let each who waits have what is there for them."""
        lanes = sorted(self._lanes.values(), key=lambda lane: lane.head.number)
        # Whoever is served by a warm instance comes first: loading costs more than running.
        for lane in lanes:
            while lane.calls and self._served(lane, now):
                pass
        for lane in lanes:
            while lane.calls and self._placed(lane, now):
                pass

    def _served(self, lane: Lane, now: float) -> bool:
        """Give the head's batch to an instance that is free, if there is one."""
        places = self._places(lane.record, lane.form)
        free = [i for i in lane.record.instances if self._is_free(i, lane, places)]
        if not free:
            return False
        instance = min(free, key=lambda instance: instance.device.active)
        device, record = instance.device, lane.record
        batch = tuple(self._taken(lane, now))
        instance.state, instance.since, instance.calls = InstanceState.RUNNING, now, batch
        instance.fresh = False
        device.active += 1
        device.running += 1
        if device.running == 1:
            device.busy_since = now
        record.batches += 1
        self._keep_no_more(record)
        self._passed_over(device, record)
        for call in batch:
            self._tell_moved(call, device)
        items = tuple(call.item for call in batch)
        self._actions.append(Run(instance, items, lane.form.level))
        return True

    def _is_free(self, instance: Instance, lane: Lane, places: list[DeviceRecord]) -> bool:
        device = instance.device
        return (
            instance.state is InstanceState.IDLE
            and device in places
            and device.has_slot
            # Who has loaded runs once: two who keep the device in turn would only load for ever.
            and (instance.fresh or device.is_for(lane.record))
            # Who ran out of memory waits until those evicted for it are gone.
            and not (lane.form.freed and device.freeing)
        )

    def _taken(self, lane: Lane, now: float) -> list[Call]:
        batch: list[Call] = []
        while lane.calls and len(batch) < lane.form.limit:
            call = lane.head
            self._dequeue(lane, call)
            call.state = CallState.RUNNING
            lane.record.waits.append(now - call.submitted)
            batch.append(call)
        return batch

    def _tell_moved(self, call: Call, device: DeviceRecord) -> None:
        if call.moved:
            degradation = Degradation("device", call.form.level, device.name, call.moved)
            self._actions.append(Tell(call, degradation))
            call.moved = ""

    def _placed(self, lane: Lane, now: float) -> bool:
        """Load another instance if one is needed and there is room; else make room, if possible."""
        record = lane.record
        places = self._places(record, lane.form)
        there = [instance for instance in record.instances if instance.device in places]
        loading = sum(instance.state is InstanceState.LOADING for instance in there)
        if len(there) >= record.max_instances or len(lane.calls) <= loading * lane.form.limit:
            return False
        open_now = [
            device
            for device in places
            if device.has_slot
            and device.is_for(record)
            and record.not_before.get(device, now) <= now
            and not (record.refused and device.freeing)
        ]
        roomy = [device for device in open_now if device.room >= record.bytes[device]]
        if roomy:
            best = max(roomy, key=lambda device: (-device.active, device.room))
            self._load(lane.head, best, now)
            return True
        self._make_room(lane, open_now)
        if not there and lane.head.passed >= PATIENCE:
            self._keep_some(record, places)
        return False

    def _load(self, call: Call, device: DeviceRecord, now: float) -> None:
        record = call.record
        size = record.bytes[device]
        instance = Instance(record, device, size, since=now)
        device.reserved += size
        device.active += 1
        device.instances.append(instance)
        record.instances.append(instance)
        self._keep_no_more(record)
        self._actions.append(Load(instance, device.reserved, call))

    def _make_room(self, lane: Lane, devices: Iterable[DeviceRecord]) -> None:
        """Evict what has been idle longest, where that is enough, and keep the room."""
        record = lane.record
        for device in devices:
            closing = _of(device, InstanceState.CLOSING)
            lacking = record.bytes[device] - device.room - sum(i.bytes for i in closing)
            victims: list[Instance] = []
            for instance in sorted(_of(device, InstanceState.IDLE), key=lambda i: i.since):
                if lacking <= 0:
                    break
                victims.append(instance)
                lacking -= instance.bytes
            if lacking <= 0:
                self._keep(device, record)
                for instance in victims:
                    self._evict(instance)
                return

    def _keep_some(self, record: ModelRecord, places: list[DeviceRecord]) -> None:
        """Keep a device for a model that has been passed over too often."""
        if any(device.kept_for is record for device in places):
            return
        for device in places:
            if device.kept_for is None and device.instances:
                self._keep(device, record)
                return

    def _keep(self, device: DeviceRecord, record: ModelRecord) -> None:
        if device.kept_for is None:
            device.kept_for = record

    def _keep_no_more(self, record: ModelRecord) -> None:
        for device in self.devices:
            if device.kept_for is record:
                device.kept_for = None
                self._released = True

    def _is_awaited(self, record: ModelRecord, device: DeviceRecord) -> bool:
        """Somebody waits for a model who could have it on this device."""
        return any(device in self._places(record, lane.form) for lane in self._lanes_of(record))

    def _passed_over(self, device: DeviceRecord, record: ModelRecord) -> None:
        """A batch begins; count it for the others who could have had the device."""
        for lane in self._lanes.values():
            if lane.record is not record and device in self._places(lane.record, lane.form):
                lane.head.passed += 1


def _of(device: DeviceRecord, state: InstanceState) -> list[Instance]:
    return [instance for instance in device.instances if instance.state is state]


def _is_lost(device: DeviceRecord, failure: Failure) -> bool:
    """The device has failed. A CPU does not."""
    return failure.fault is Fault.LOST and device.name != CPU


def _closed() -> Failure:
    return Failure(RunCancelled("The scheduler was closed before the call's turn."), Fault.ITEM)


def _out_of_memory(record: ModelRecord, cause: BaseException) -> OutOfMemory:
    error = OutOfMemory(
        f"{record.model.key} ran out of memory in its smallest form.",
        hint="Use a smaller picture, close what else uses the device, or let the CPU do it.",
    )
    error.__cause__ = cause
    return error


def _no_place(record: ModelRecord) -> TalkgenError:
    """Why a model can run nowhere."""
    key, wanted = record.model.key, record.model.device
    if not record.bytes:
        return ModelUnavailable(
            f"{key} is to run on {wanted!r}, and there is no such device here.",
            hint="Give it another device, or 'auto'.",
        )
    lost = [f"{device.name} failed: {device.lost}" for device in record.bytes if device.lost]
    if len(lost) == len(record.bytes):
        return ModelUnavailable(
            f"{key} has no device left ({'; '.join(lost)}).", hint="Restart the process."
        )
    size, device = min(
        (size, device.name) for device, size in record.bytes.items() if device.lost is None
    )
    return OutOfMemory(
        f"{key} needs {size / 2**20:.0f} MiB on {device}, more than models may take there.",
        hint="Raise the device's budget, or use a smaller model.",
    )
