"""Random walks through the core: whatever happens, its promises hold."""

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from talkgen.errors import ModelUnavailable, OutOfMemory, Overloaded, RunCancelled
from talkgen.scheduling.core import Core
from talkgen.scheduling.faults import Done, Failure, Fault
from talkgen.scheduling.records import DeviceRecord, Load, Run, Settle, Tell, Unload
from talkgen.testing import FakeModel

MODELS = (
    FakeModel("yolo", max_instances=2, max_batch=8, bytes=2),
    FakeModel("birefnet", levels=2, bytes=6),
    FakeModel("large", levels=3, max_batch=4, bytes=9),
    FakeModel("face", device="cpu", max_instances=2, max_batch=8, bytes=1),
    FakeModel("cuda only", device="cuda", max_instances=3, max_batch=2, bytes=4),
    FakeModel("second", device="cuda:1", bytes=3),
)
KEEP_WARM = 300.0

times = st.floats(0, 2, allow_nan=False)
faults = st.sampled_from([None] * 12 + [Fault.ITEM] * 3 + [Fault.MEMORY] * 5 + [Fault.LOST])


def failure(fault):
    return Failure(RuntimeError(fault.name), fault)


class Walk(RuleBasedStateMachine):
    """Drives a core as a shell would, and keeps its own accounts."""

    @initialize(slots=st.sampled_from([1, 2, None]), most=st.sampled_from([None, None, 6]))
    def begin(self, slots, most):
        self.devices = [
            DeviceRecord("cpu", slots, 14),
            DeviceRecord("cuda:0", None, 10),
            DeviceRecord("cuda:1", None, 6),
        ]
        self.core = Core(self.devices, max_waiting=most, keep_warm=KEEP_WARM)
        self.most = most
        self.now = 0.0
        self.called = {}  # every call that was ever taken
        self.settled = {}
        self.left = set()
        self.loading, self.running, self.idle, self.closing = [], {}, [], []
        self.granted = defaultdict(list)  # by model: numbers of calls that never failed, in order

    # --- what happens --------------------------------------------------------------------------

    @rule(model=st.sampled_from(MODELS), after=times)
    def submit(self, model, after):
        self.now += after
        waiting = self.core.waiting
        try:
            call, actions = self.core.submit(model, object(), None, self.now)
        except RuntimeError:
            assert self.core.closed
        except Overloaded:
            assert waiting >= self.most  # those called back by a failure are not sent away
        except (OutOfMemory, ModelUnavailable):
            assert self.lost()
        else:
            self.called[call.number] = call
            self.do(actions)

    @precondition(lambda self: self.open())
    @rule(data=st.data())
    def cancel(self, data):
        number = data.draw(st.sampled_from(self.open()))
        self.left.add(number)
        self.do(self.core.cancel(self.called[number], self.now))

    @precondition(lambda self: self.loading)
    @rule(data=st.data(), after=times, fault=faults)
    def load_ends(self, data, after, fault):
        self.now += after
        instance = data.draw(st.sampled_from(self.loading))
        self.loading.remove(instance)
        if fault is None:
            self.idle.append(instance)
            self.do(self.core.loaded(instance, self.now))
        else:
            self.do(self.core.load_failed(instance, failure(fault), self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), after=times, fault=faults, whole=st.booleans())
    def batch_ends(self, data, after, fault, whole):
        self.now += after
        instance = data.draw(st.sampled_from(list(self.running)))
        size = len(self.running.pop(instance))
        self.idle.append(instance)
        if fault is None:
            outcomes = [Done(None)] * size
        elif whole or fault is Fault.LOST:
            outcomes = [failure(fault)] * size
        else:
            outcomes = [failure(fault), *[Done(None)] * (size - 1)]
        self.do(self.core.finished(instance, outcomes, self.now))

    @precondition(lambda self: self.closing)
    @rule(data=st.data(), after=times)
    def unloading_ends(self, data, after):
        self.now += after
        instance = data.draw(st.sampled_from(self.closing))
        self.closing.remove(instance)
        self.do(self.core.unloaded(instance, self.now))

    @rule(after=st.sampled_from([0.5, 5.0, KEEP_WARM]))
    def time_passes(self, after):
        self.now += after
        self.do(self.core.tick(self.now))

    @precondition(lambda self: len(self.called) > 20)
    @rule()
    def close(self):
        self.do(self.core.close(self.now))

    # --- doing and checking --------------------------------------------------------------------

    def do(self, actions):
        for action in actions:
            match action:
                case Load(instance, reserved):
                    self.loading.append(instance)
                    assert reserved <= instance.device.capacity
                    assert instance.device.lost is None
                case Run(instance, items, _):
                    assert instance in self.idle, "a batch for an instance that is not free"
                    self.idle.remove(instance)
                    self.running[instance] = instance.calls
                    self.check_batch(instance, items)
                case Unload(instance):
                    assert instance in self.idle, "an instance is unloaded that is not free"
                    self.idle.remove(instance)
                    self.closing.append(instance)
                case Settle(call, outcome):
                    assert call.number not in self.settled, "settled twice"
                    assert call.number not in self.left, "settled though the caller had left"
                    self.settled[call.number] = outcome
                case Tell(call, step):
                    assert call.number not in self.left
                    assert step.action in ("evicted", "split", "level", "device")
                    assert step.level < call.record.model.levels

    def check_batch(self, instance, items):
        calls = instance.calls
        assert 1 <= len(calls) <= instance.record.model.max_batch
        assert len({(call.record, call.form) for call in calls}) == 1, "calls that do not mix"
        assert items == tuple(call.item for call in calls)
        assert not self.left & {call.number for call in calls}, "run for nobody"
        # In the order of their coming, whoever was not called back by a failure.
        fresh = [call for call in calls if call.form == call.record.form and not call.lost]
        before = self.granted[instance.record]
        for call in fresh:
            assert not before or before[-1] < call.number, "somebody was overtaken"
            before.append(call.number)

    def open(self):
        return sorted(self.called.keys() - self.settled.keys() - self.left)

    def lost(self):
        return [device for device in self.devices if device.lost]

    @invariant()
    def budgets_hold(self):
        for device in getattr(self, "devices", ()):
            assert device.reserved == sum(instance.bytes for instance in device.instances)
            assert 0 <= device.reserved <= device.capacity
            working = [i for i in device.instances if i in self.loading or i in self.running]
            assert device.active == len(working)
            assert device.running == sum(instance in self.running for instance in working)
            assert device.slots is None or device.active <= device.slots

    @invariant()
    def accounts_agree(self):
        if not hasattr(self, "core"):
            return
        known = {i for device in self.devices for i in device.instances}
        assert known == {*self.loading, *self.running, *self.idle, *self.closing}
        for record in self.core.models.values():
            assert set(record.instances) == {i for i in known if i.record is record}
            for kind in (["cpu"], ["cuda:0", "cuda:1"]):
                there = [i for i in record.instances if i.device.name in kind and not i.device.lost]
                assert len(there) <= record.max_instances
        lined_up = [number for lane in self.core._lanes.values() for number in lane.calls]
        runs = [call.number for calls in self.running.values() for call in calls]
        assert len(lined_up) == self.core.waiting == len(set(lined_up))
        assert sorted([*lined_up, *(n for n in runs if n not in self.left)]) == self.open()

    @invariant()
    def nobody_waits_beside_a_free_instance(self):
        if not hasattr(self, "core"):
            return
        for lane in self.core._lanes.values():
            for instance in self.idle:
                free = (
                    instance.record is lane.record
                    and instance.device in self.core._places(lane.record, lane.form)
                    and instance.device.has_slot
                    and instance.device.kept_for is None
                    and not lane.form.freed
                )
                assert not free

    def teardown(self):
        """From here on all goes well: everybody is served, and everything freed."""
        if not hasattr(self, "core"):
            return
        for _ in range(10_000):
            if self.loading:
                self.load_ends_well()
            elif self.running:
                instance, calls = self.running.popitem()
                self.idle.append(instance)
                self.do(self.core.finished(instance, [Done(None)] * len(calls), self.now))
            elif self.closing:
                self.do(self.core.unloaded(self.closing.pop(0), self.now))
            elif self.open() and (due := self.core.next_tick()) is not None:
                assert due < self.now + KEEP_WARM, "only the unloading of others helps"
                self.now = max(due, self.now)
                self.do(self.core.tick(self.now))
            else:
                break
        assert self.open() == [], "somebody is lost"
        self.everything_is_freed()
        self.everybody_is_counted()

    def everything_is_freed(self):
        self.time_passes(KEEP_WARM)
        while self.closing:
            self.do(self.core.unloaded(self.closing.pop(0), self.now))
        assert [device.reserved for device in self.devices] == [0, 0, 0]
        assert not any(device.instances for device in self.devices)
        assert self.core.next_tick() is None

    def everybody_is_counted(self):
        for record in self.core.models.values():
            outcomes = [o for n, o in self.settled.items() if self.called[n].record is record]
            assert record.served == sum(isinstance(outcome, Done) for outcome in outcomes)
            assert record.failed == len(outcomes) - record.served
        for outcome in self.settled.values():
            if isinstance(outcome, Failure) and isinstance(outcome.error, RunCancelled):
                assert self.core.closed

    def load_ends_well(self):
        instance = self.loading.pop(0)
        self.idle.append(instance)
        self.do(self.core.loaded(instance, self.now))


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
