"""Who runs where and when, in virtual time."""

import pytest

from talkgen.errors import ModelUnavailable, OutOfMemory, Overloaded, RunCancelled
from talkgen.scheduling.core import Core
from talkgen.scheduling.faults import Done, Failure, Fault
from talkgen.scheduling.ladder import Form, step_down
from talkgen.scheduling.records import DeviceRecord, Load, Run, Settle, Tell, Unload
from talkgen.testing import FakeDevice, FakeModel, Script, Simulation

CUDA_ERROR = RuntimeError("CUDA error: an illegal memory access was encountered")


def simulated(jobs, *devices, **options):
    """Run jobs: (model, item) each, at once. Gives the simulation and each job's outcome."""
    simulation = Simulation(devices or [FakeDevice("cpu", slots=2)], **options)
    outcomes = {}

    def job(number, model, item):
        try:
            outcomes[number] = yield model, item
        except Exception as error:  # noqa: BLE001 - looked at by the test
            outcomes[number] = error

    for number, (model, item) in enumerate(jobs):
        simulation.start(job(number, model, item))
    simulation.run()
    return simulation, [outcomes[number] for number in range(len(jobs))]


def starts(simulation):
    return [(span.model, span.device, span.start) for span in simulation.spans]


# --- placement ---------------------------------------------------------------------------------


def test_first_come_first_served_on_one_instance():
    model = FakeModel(latency=1.0)
    simulation, outcomes = simulated([(model, number) for number in range(4)])
    assert outcomes == [0, 1, 2, 3]
    assert [span.items for span in simulation.spans] == [(0,), (1,), (2,), (3,)]
    assert [span.start for span in simulation.spans] == [0, 1, 2, 3]


def test_a_second_instance_is_loaded_only_where_one_is_not_enough():
    model = FakeModel(max_instances=2, latency=1.0)
    assert simulated([(model, 0)])[0].stats().models[0].loads == 1
    simulation, _ = simulated([(model, 0), (model, 1)])
    assert [span.start for span in simulation.spans] == [0, 0]
    assert simulation.stats().models[0].loads == 2


def test_a_free_instance_takes_what_waits_up_to_its_batch():
    model = FakeModel(max_batch=3, latency=1.0)
    simulation, outcomes = simulated([(model, number) for number in range(5)])
    assert [span.items for span in simulation.spans] == [(0, 1, 2), (3, 4)]
    assert [span.start for span in simulation.spans] == [0, 1]
    assert outcomes == list(range(5))


def test_an_accelerator_comes_first_and_the_emptiest_of_them():
    gpus = [FakeDevice("cuda:0", 8), FakeDevice("cuda:1", 16)]
    model = FakeModel(bytes=6, max_instances=2, latency=1.0)
    simulation, _ = simulated([(model, 0), (model, 1)], FakeDevice("cpu", slots=4), *gpus)
    assert sorted(starts(simulation)) == [("fake", "cuda:0", 0), ("fake", "cuda:1", 0)]


@pytest.mark.parametrize(
    ("wanted", "got"),
    [("cpu", "cpu"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0"), ("auto", "cuda:1")],
)
def test_a_models_device_is_obeyed(wanted, got):
    devices = FakeDevice("cpu"), FakeDevice("cuda:0", 8), FakeDevice("cuda:1", 9)
    simulation, _ = simulated([(FakeModel(device=wanted, bytes=1), 0)], *devices)
    assert simulation.spans[0].device == got


def test_the_longest_idle_is_evicted_for_who_needs_the_room():
    gpu = FakeDevice("cuda:0", 10)
    a, b, c = (FakeModel(key, bytes=4) for key in "abc")
    simulation = Simulation([gpu])

    def job():
        for model in (a, b, a, c, a):
            yield model, 0
            yield 1.0

    simulation.start(job())
    simulation.run()
    stats = {model.key: model for model in simulation.stats().models}
    assert [(stats[key].loads, stats[key].evictions) for key in "abc"] == [(1, 0), (1, 1), (1, 0)]


def test_what_can_never_fit_is_refused_at_once():
    gpu = FakeDevice("cuda:0", 10)
    _, (error,) = simulated([(FakeModel(bytes=11), 0)], gpu)
    assert isinstance(error, OutOfMemory)
    _, (result,) = simulated([(FakeModel(bytes=11), 0)], gpu, FakeDevice("cpu"))
    assert result == 0
    _, (error,) = simulated([(FakeModel(device="mps"), 0)], gpu)
    assert isinstance(error, ModelUnavailable)


def test_who_cannot_be_placed_blocks_nobody_and_is_not_passed_over_for_ever():
    gpu = FakeDevice("cuda:0", 10)
    small, large = (
        FakeModel("small", bytes=4, latency=1.0),
        FakeModel("large", bytes=8, latency=1.0),
    )
    jobs = [(small, number) for number in range(40)]
    simulation, outcomes = simulated([*jobs[:2], (large, "big"), *jobs[2:]], gpu)
    assert "big" in outcomes
    served = [span.model for span in simulation.spans].index("large")
    assert served == 10  # so many others began while it waited
    assert len(simulation.spans) == 41


def test_room_that_is_kept_no_more_is_used_at_once():
    small = FakeModel("small", device="cuda:0", bytes=2, latency=1.0)
    beside = FakeModel("beside", device="cuda:0", bytes=6, latency=100.0)
    there = FakeModel("there", device="cuda:1", bytes=6, latency=15.0)
    large = FakeModel("large", bytes=6, load_latency=50.0)
    jobs = [(beside, 0), (there, 0), (large, 0), *[(small, number) for number in range(12)]]
    simulation, _ = simulated(jobs, FakeDevice("cuda:0", 10), FakeDevice("cuda:1", 6))
    # cuda:0 is kept for the large one, until it can be loaded on cuda:1.
    begun = [span.start for span in simulation.spans if span.model == "small"]
    assert begun == [*range(8), 15, 16, 17, 18]


def test_instances_may_be_set_by_the_beginning_of_the_key():
    models = FakeModel("birefnet-lite@fp16", latency=1.0), FakeModel("birefnet", latency=1.0)
    jobs = [(model, number) for model in models for number in range(2)]
    simulation, _ = simulated(jobs, FakeDevice(), instances={"birefnet": 1, "birefnet-lite": 2})
    assert [stats.max_instances for stats in simulation.stats().models] == [2, 1]
    assert sorted(span.start for span in simulation.spans) == [0, 0, 0, 1]


def test_a_full_queue_refuses():
    model = FakeModel(latency=1.0)
    _, outcomes = simulated([(model, number) for number in range(5)], max_waiting=2)
    assert outcomes[:2] == [0, 1]
    assert [type(outcome) for outcome in outcomes[2:]] == [Overloaded] * 3


def test_a_cpu_has_slots():
    models = [FakeModel(str(number), latency=1.0) for number in range(4)]
    simulation, _ = simulated([(model, 0) for model in models], FakeDevice("cpu", slots=2))
    assert [span.start for span in simulation.spans] == [0, 0, 1, 1]


def test_weights_stay_warm_for_a_time_after_their_last_use():
    closed = Script()
    model = FakeModel(latency=1.0, at_close=closed)
    simulation = Simulation([FakeDevice("cpu")], keep_warm=10.0)

    def job():
        yield model, 0
        yield 9.0
        yield model, 0  # still warm, and again for ten seconds
        yield 9.5
        assert not closed.calls
        yield 1.0
        assert closed.calls
        yield model, 0

    simulation.start(job())
    simulation.run()
    assert simulation.stats().models[0].loads == 2


# --- errors and the ladder ---------------------------------------------------------------------


def test_one_bad_item_of_a_batch_fails_alone():
    def shy(batch, level, device):
        if 3 in batch:
            raise ValueError("three")

    model = FakeModel(max_batch=8, at_run=shy, latency=1.0)
    _, outcomes = simulated([(model, number) for number in range(6)])
    assert isinstance(outcomes.pop(3), ValueError)
    assert outcomes == [0, 1, 2, 4, 5]


def test_the_ladder_step_by_step():
    steps, form, batch = [], Form(limit=8), 8
    while down := step_down(form, batch, levels=2, cpu=not form.on_cpu):
        step, form = down
        steps.append(step)
        batch = min(batch, form.limit)
    assert steps == ["evicted", "split", "split", "split", "level", "device", "evicted"]
    assert form == Form(limit=1, level=1, freed=True, on_cpu=True)


def fits(most, smallest, device="cuda:0"):
    """A run that has memory for so many items, at this level or a smaller one."""

    def check(batch, level, where):
        if where == device and (len(batch) > most or level < smallest):
            raise OutOfMemory("too much")

    return check


def told(model, count, *devices):
    """Drive a core until all are settled; gives back outcomes and steps in order."""
    core = Core([DeviceRecord(d.name, d.slots, d.capacity) for d in devices])
    todo, calls, outcomes, steps = [], [], {}, []
    for item in range(count):
        call, actions = core.submit(model, item, None, 0.0)
        calls.append(call)
        todo += actions
    while todo:
        match todo.pop(0):
            case Load(instance, _):
                todo += core.loaded(instance, 0.0)
            case Run(instance, items, level):
                try:
                    model.at_run(items, level, instance.device.name)
                    ended = [Done(item) for item in items]
                except Exception as error:  # noqa: BLE001 - classified as the worker does
                    ended = [Failure.of(error)] * len(items)
                todo += core.finished(instance, ended, 0.0)
            case Unload(instance):
                todo += core.unloaded(instance, 0.0)
            case Tell(call, step):
                steps.append((call.item, step.action, step.level, step.device))
            case Settle(call, outcome):
                outcomes[call.item] = outcome
    return outcomes, steps


def test_a_batch_is_split_before_anything_gets_smaller():
    model = FakeModel(max_batch=4, levels=2, bytes=1, at_run=fits(most=1, smallest=0))
    outcomes, steps = told(model, 5, FakeDevice())
    assert all(isinstance(outcome, Done) for outcome in outcomes.values())
    assert {action for _, action, _, _ in steps} == {"evicted", "split"}


def test_levels_then_the_cpu():
    model = FakeModel(levels=2, at_run=fits(most=1, smallest=1))
    outcomes, steps = told(model, 1, FakeDevice(), FakeDevice("cpu"))
    assert isinstance(outcomes[0], Done)
    assert [step[1:] for step in steps] == [("evicted", 0, "cuda:0"), ("level", 1, "cuda:0")]
    model = FakeModel(levels=2, at_run=fits(most=0, smallest=0))
    outcomes, steps = told(model, 1, FakeDevice(), FakeDevice("cpu"))
    assert isinstance(outcomes[0], Done)
    assert steps[-1] == (0, "device", 1, "cpu")


def test_the_end_of_the_ladder_is_out_of_memory_with_its_cause():
    model = FakeModel(levels=2, at_run=fits(most=0, smallest=0))
    outcomes, _ = told(model, 1, FakeDevice())
    assert isinstance(outcomes[0].error, OutOfMemory)
    assert str(outcomes[0].error.__cause__) == "too much"


def test_idle_models_are_evicted_where_memory_runs_out():
    closed = Script()
    model = FakeModel("large", bytes=1, at_run=Script(MemoryError(), None))
    simulation = Simulation([FakeDevice("cuda:0", 8)])

    def job():
        yield FakeModel("other", bytes=1, at_close=closed), 0
        result = yield model, "item"
        assert (result, closed.calls) == ("item", [("cuda:0",)])

    simulation.start(job())
    simulation.run()
    assert simulation.stats().models[0].evictions == 1


def test_a_lost_device_is_out_of_service_and_its_work_moves():
    model = FakeModel(at_run=Script(CUDA_ERROR), latency=1.0)
    jobs = [(model, number) for number in range(3)]
    simulation, outcomes = simulated(jobs, FakeDevice("cpu", slots=1), FakeDevice("cuda:0"))
    assert outcomes == [0, 1, 2]
    assert {device.name: device.in_service for device in simulation.stats().devices} == {
        "cpu": True,
        "cuda:0": False,
    }
    assert {span.device for span in simulation.spans[1:]} == {"cpu"}


def test_moving_is_told_with_the_reason():
    model = FakeModel(at_run=Script(CUDA_ERROR))
    outcomes, steps = told(model, 2, FakeDevice(), FakeDevice("cpu"))
    assert [type(outcome) for outcome in outcomes.values()] == [Done, Done]
    assert steps == [(0, "device", 0, "cpu"), (1, "device", 0, "cpu")]


def test_an_item_that_breaks_two_devices_gets_no_third():
    model = FakeModel(at_run=Script(CUDA_ERROR, CUDA_ERROR))
    gpus = [FakeDevice(f"cuda:{number}") for number in range(3)]
    simulation, (error,) = simulated([(model, 0)], *gpus)
    assert error is CUDA_ERROR
    assert [device.in_service for device in simulation.stats().devices].count(True) == 1


def test_without_a_device_left_its_calls_fail_with_the_cause():
    model = FakeModel(device="cuda", at_run=Script(CUDA_ERROR))
    _, outcomes = simulated([(model, 0), (model, 1)], FakeDevice("cpu"), FakeDevice())
    assert [type(outcome) for outcome in outcomes] == [ModelUnavailable] * 2
    assert "illegal memory access" in str(outcomes[0])


def test_a_load_that_finds_no_memory_is_tried_again():
    model = FakeModel(at_load=Script(MemoryError(), MemoryError(), None))
    simulation, outcomes = simulated([(model, 0)], FakeDevice())
    assert outcomes == [0]
    assert simulation.spans[0].start == 3.0  # after one second, and after two more


def test_a_load_that_never_finds_memory_ends_on_the_cpu_or_as_an_error():
    def full(device):
        if device != "cpu":
            raise MemoryError(device)

    _, (result,) = simulated([(FakeModel(at_load=full), 0)], FakeDevice("cpu"), FakeDevice())
    assert result == 0
    simulation, (error,) = simulated([(FakeModel(at_load=full), 0)], FakeDevice())
    assert isinstance(error, OutOfMemory)
    assert simulation.now == 31.0


def test_a_load_refused_for_memory_has_idle_models_evicted_first():
    idle = FakeModel("idle", bytes=1)
    model = FakeModel("next", bytes=1, at_load=Script(MemoryError(), None))
    simulation = Simulation([FakeDevice("cuda:0", 100)])

    def job():
        yield idle, 0
        yield model, 1
        assert simulation.now == 0.0

    simulation.start(job())
    simulation.run()
    assert [stats.evictions for stats in simulation.stats().models] == [1, 0]


def test_a_load_that_fails_for_good_is_told_to_each_who_waits():
    model = FakeModel(at_load=Script(ModelUnavailable("damaged", hint="Fetch it again.")))
    _, outcomes = simulated([(model, number) for number in range(3)])
    assert [str(outcome) for outcome in outcomes] == ["damaged"] * 3
    assert [outcome.hint for outcome in outcomes] == ["Fetch it again."] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3


# --- leaving and closing -----------------------------------------------------------------------


def opened(count, model=None):
    core = Core([DeviceRecord("cpu")])
    calls = [core.submit(model or FakeModel(), number, None, 0.0) for number in range(count)]
    ((load, *_), *_) = [actions for _, actions in calls]
    (run,) = core.loaded(load.instance, 0.0)
    return core, [call for call, _ in calls], run.instance


def test_who_leaves_while_waiting_is_never_run():
    core, (_, second, third), instance = opened(3)
    core.cancel(second, 0.0)
    settle, run = core.finished(instance, [Done(0)], 0.0)
    assert (settle.outcome, run.items) == (Done(0), (2,))
    assert third.item == 2


def test_the_result_of_who_left_while_running_is_dropped():
    core, (first, _), instance = opened(2, FakeModel(max_batch=1))
    assert core.cancel(first, 0.0) == []
    (run,) = core.finished(instance, [Done(0)], 0.0)
    assert run.items == (1,)


def test_closing_cancels_who_waits_ends_who_runs_and_unloads():
    core, (first, second), instance = opened(2)
    (settled,) = core.close(0.0)
    assert (settled.call, type(settled.outcome.error)) == (second, RunCancelled)
    with pytest.raises(RuntimeError, match="closed"):
        core.submit(FakeModel(), 0, None, 0.0)
    settled, unload = core.finished(instance, [Done(0)], 0.0)
    assert (settled.call, settled.outcome) == (first, Done(0))
    assert unload == Unload(instance)
    assert core.unloaded(instance, 0.0) == []
    assert core.close(0.0) == []


def test_what_is_loading_at_the_close_is_unloaded_at_once():
    core = Core([DeviceRecord("cpu")])
    _, (load,) = core.submit(FakeModel(), 0, None, 0.0)
    core.close(0.0)
    assert core.loaded(load.instance, 0.0) == [Unload(load.instance)]


def test_a_step_down_is_not_taken_after_the_close():
    core, (first,), instance = opened(1)
    core.close(0.0)
    settled, _ = core.finished(instance, [Failure(MemoryError(), Fault.MEMORY)], 0.0)
    assert isinstance(settled.outcome.error, RunCancelled)


def test_numbers():
    simulation = Simulation([FakeDevice("cpu", slots=1)])
    model = FakeModel(latency=1.0, bytes=5)

    def job():
        yield model, 0
        yield 1.0

    for _ in range(3):
        simulation.start(job())
    simulation.run()
    (stats,) = simulation.stats().models
    assert (stats.served, stats.failed, stats.batches, stats.loads) == (3, 0, 3, 1)
    assert (stats.waiting_time.p50, stats.waiting_time.p99) == (1.0, 2.0)
    assert (stats.running_time.p50, stats.running_time.p99) == (1.0, 1.0)
    (device,) = simulation.stats().devices
    assert device.reserved == 0
    assert device.busy == pytest.approx(3 / simulation.now)
