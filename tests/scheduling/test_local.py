"""The scheduler of this process: threads, loops, and what is left when it is closed."""

import gc
import random
import subprocess
import sys
import threading
import traceback
import weakref

import anyio
import attrs
import pytest
from blockbuster import blockbuster_ctx

from talkgen.errors import ModelUnavailable, OutOfMemory, Overloaded, RunCancelled
from talkgen.scheduling import LocalScheduler
from talkgen.testing import FakeDevice, FakeModel, Script


@pytest.fixture
async def scheduler(anyio_backend):
    scheduler = LocalScheduler([], cpu_slots=2)
    yield scheduler
    await scheduler.aclose()


def stats_of(scheduler, key="fake"):
    (found,) = [stats for stats in scheduler.stats().models if stats.key == key]
    return found


def own_threads():
    names = tuple(f"talkgen {key} on" for key in ("fake", "yolo", "birefnet", "face"))
    return [thread for thread in threading.enumerate() if thread.name.startswith(names)]


class Gate(Script):
    """Lets one batch in, and holds it until it is opened."""

    def __init__(self):
        self.entered, self.opened = threading.Event(), threading.Event()
        super().__init__(self.opened)

    def __call__(self, *arguments):
        self.entered.set()
        super().__call__(*arguments)

    async def wait_entered(self):
        assert await anyio.to_thread.run_sync(self.entered.wait, 10)


async def test_each_waiter_gets_its_own_result_and_the_model_is_loaded_once(anyio_backend):
    loads, closings, results = Script(), Script(), {}
    model = FakeModel(function=lambda number: 2 * number, at_load=loads, at_close=closings)
    scheduler = LocalScheduler([])

    async def call(number):
        results[number] = await scheduler.run(model, number)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(call, number)
    await scheduler.aclose()
    assert results == {number: number * 2 for number in range(20)}
    assert loads.calls == closings.calls == [("cpu",)]


async def test_cancelled_waiters_leave_at_once_and_their_device_when_it_is_free(scheduler):
    gate = Gate()
    model = FakeModel(at_run=gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run, model, 1)  # runs
        await gate.wait_entered()
        tasks.start_soon(scheduler.run, model, 2)  # waits
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    # Both are gone; the thread works on, and nothing else may use its instance.
    assert (stats_of(scheduler).busy, stats_of(scheduler).waiting) == (1, 0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run, model, 3)
        await anyio.wait_all_tasks_blocked()
        assert stats_of(scheduler).waiting == 1
        gate.opened.set()
    assert [batch for batch, _, _ in gate.calls] == [(1,), (3,)]


async def test_a_caller_leaves_at_once_while_accelerators_are_looked_for(
    anyio_backend, monkeypatch
):
    looking, found = threading.Event(), threading.Event()

    def slow(wanted, budgets):  # as the import of torch is
        looking.set()
        assert found.wait(5), "somebody waits for it who has left"
        return [FakeDevice("cuda:0", 10)]

    monkeypatch.setattr("talkgen.scheduling.local.accelerators", slow)
    scheduler = LocalScheduler()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run, FakeModel(), 1)
        assert await anyio.to_thread.run_sync(looking.wait, 30)
        tasks.cancel_scope.cancel()
    found.set()
    assert await scheduler.run(FakeModel(), 2) == 2
    assert [device.name for device in scheduler.stats().devices] == ["cpu", "cuda:0"]
    await scheduler.aclose()


async def test_closing_ends_what_runs_and_cancels_what_waits(anyio_backend):
    gate, outcomes = Gate(), {}
    model, scheduler = FakeModel(at_run=gate, at_close=Script()), LocalScheduler([])

    async def call(number):
        try:
            outcomes[number] = await scheduler.run(model, number)
        except RunCancelled as error:
            outcomes[number] = error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, 1)
        await gate.wait_entered()
        tasks.start_soon(call, 2)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(scheduler.aclose)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="closed"):
            await scheduler.run(model, 3)
        gate.opened.set()
    assert outcomes[1] == 1
    assert isinstance(outcomes[2], RunCancelled)
    assert model.at_close.calls == [("cpu",)]
    assert own_threads() == []


async def test_nothing_blocks_the_loop(anyio_backend):
    with blockbuster_ctx():
        scheduler = LocalScheduler([FakeDevice("cuda:0", 10)])
        for device in ("cpu", "cuda"):
            assert await scheduler.run(FakeModel(device=device, bytes=1), 1) == 1
        scheduler.stats()
        await scheduler.aclose()


async def test_idle_weights_are_freed_when_their_time_is_over(anyio_backend):
    closed = threading.Event()
    model = FakeModel(at_close=lambda _: closed.set())
    scheduler = LocalScheduler([], keep_warm=0.0)
    assert await scheduler.run(model, 1) == 1
    assert await anyio.to_thread.run_sync(closed.wait, 10)
    assert await scheduler.run(model, 2) == 2
    await scheduler.aclose()
    assert stats_of(scheduler).loads == 2


async def test_items_and_results_are_not_kept(scheduler):
    class Picture:
        pass

    picture = Picture()
    seen = weakref.ref(picture)
    result = await scheduler.run(FakeModel(), picture)
    del picture, result
    await scheduler.run(FakeModel(), None)
    gc.collect()
    assert seen() is None


class Weights:
    """Memory of a device."""


held = []  # every one, as long as somebody holds it


class Hoarder(FakeModel):
    """Fails with memory in its hands, at loading and at running."""

    def load(self, device):
        weights = Weights()
        held.append(weakref.ref(weights))
        super().load(device)
        return LoadedHoarder(self, weights)


class LoadedHoarder:
    def __init__(self, model, weights):
        self.model, self.weights = model, weights

    def run(self, batch, *, level=0):
        activations = Weights()
        held.append(weakref.ref(activations))
        self.forward(batch, activations)

    def forward(self, batch, activations):
        try:
            self.model.at_run()
        except ValueError as error:
            raise RuntimeError("CUDA out of memory") from error

    def close(self):
        pass


@attrs.define(eq=False)
class Watchful(FakeDevice):
    """Notes what is left when the cache is freed."""

    left: list[int] = attrs.field(factory=list)

    def free_cache(self):
        self.left.append(sum(weights() is not None for weights in held))


async def test_an_error_holds_no_memory_of_its_device(anyio_backend):
    """Neither while the cache is freed for the next try, nor for as long as somebody keeps it."""
    held.clear()
    gpu = Watchful("cuda:0", 10)
    scheduler = LocalScheduler([gpu])
    model = Hoarder(device="cuda", at_run=Script(ValueError(), ValueError()))
    with pytest.raises(OutOfMemory) as kept:
        await scheduler.run(model, 1)
    assert gpu.left == [1, 1]  # the weights of what is loaded
    refused = Hoarder("other", device="cuda", at_load=Script(ValueError("no such file")))
    with pytest.raises(ValueError, match="no such file") as kept_too:
        await scheduler.run(refused, 1)
    assert gpu.left == [1, 1, 1]
    await scheduler.aclose()
    assert gpu.left == [1, 1, 1, 0]
    told = [traceback.format_exception(error.value) for error in (kept, kept_too)]
    assert all("test_local.py" in "".join(lines) for lines in told)  # where it came from


async def test_memory_that_others_take_is_waited_for(anyio_backend):
    gpu = FakeDevice("cuda:0", 10, taken=8)
    model = FakeModel(device="cuda", bytes=5, at_load=Script())
    scheduler = LocalScheduler([gpu])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run, model, 1)
        while scheduler.stats().devices[1].used is None:  # until the first load was refused
            await anyio.to_thread.run_sync(threading.Event().wait, 0.01)
        assert model.at_load.calls == []
        gpu.taken = 0
    device = scheduler.stats().devices[1]
    assert (device.name, device.budget, device.reserved, device.used) == ("cuda:0", 10, 5, 0)
    await scheduler.aclose()


async def test_steps_down_are_told_in_the_callers_thread(anyio_backend):
    gpu, here = FakeDevice("cuda:0", 10), threading.get_ident()
    model = FakeModel(levels=2, at_run=Script(MemoryError(), MemoryError()))
    scheduler, steps = LocalScheduler([gpu]), []

    def on_degraded(step):
        assert threading.get_ident() == here
        steps.append((step.action, step.level, step.device))

    assert await scheduler.run(model, 1, on_degraded=on_degraded) == 1
    assert steps == [("evicted", 0, "cuda:0"), ("level", 1, "cuda:0")]
    assert gpu.caches_freed == 2
    await scheduler.aclose()


async def test_a_full_queue_refuses(anyio_backend):
    gate = Gate()
    model, scheduler = FakeModel(at_run=gate), LocalScheduler([], max_waiting=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run, model, 1)
        await gate.wait_entered()
        tasks.start_soon(scheduler.run, model, 2)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Overloaded, match="1 calls wait"):
            await scheduler.run(model, 3)
        gate.opened.set()
    await scheduler.aclose()


async def test_a_wrong_number_of_results_is_an_error_of_each(scheduler):
    class Short(FakeModel):
        def load(self, device):
            return self

        def run(self, batch, *, level=0):
            return []

        def close(self):
            raise OSError("cannot be closed either")

    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        await scheduler.run(Short(), 1)


async def test_two_loops_share_a_scheduler(scheduler):
    model, results = FakeModel(function=lambda number: -number), []

    def other_loop():
        results.append(anyio.run(scheduler.run, model, 1, backend="trio"))
        results.append(anyio.run(scheduler.run, model, 2, backend="asyncio"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, other_loop)
        for number in range(20):
            assert await scheduler.run(model, number) == -number
    assert results == [-1, -2]


async def test_other_work_goes_on_while_a_device_is_held(scheduler):
    gate = Gate()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run, FakeModel(at_run=gate), 1)
        await gate.wait_entered()
        assert await anyio.to_thread.run_sync(lambda: "encoded") == "encoded"
        assert await scheduler.run(FakeModel("other"), 2) == 2
        gate.opened.set()


def test_an_open_scheduler_does_not_hold_the_interpreter():
    code = """
import anyio
from talkgen import LocalScheduler
from talkgen.testing import FakeModel
scheduler = LocalScheduler(["cpu"])
print(anyio.run(scheduler.run, FakeModel(device="cpu"), 1))
import sys; print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["1", "False"]
    assert done.stderr == ""


class Moody(FakeModel):
    """Fails in every way, by its own dice."""

    def load(self, device):
        return LoadedMoody(self.key, random.Random(device + self.key))


class LoadedMoody:
    def __init__(self, key, dice):
        self.key, self.dice, self.busy = key, dice, threading.Lock()

    def run(self, batch, *, level=0):
        assert self.busy.acquire(blocking=False), "two batches in one instance"
        try:
            mood = self.dice.random()
            if mood < 0.1:
                raise MemoryError("no room")
            if mood < 0.2:
                raise ValueError(batch[0])
            return [(self.key, item) for item in batch]
        finally:
            self.busy.release()

    def close(self):
        pass


MOODS = (
    Moody("yolo", max_instances=2, max_batch=4, levels=2, bytes=3),
    Moody("birefnet", levels=2, bytes=7),
    Moody("face", device="cpu", max_instances=2, max_batch=8),
)


@pytest.mark.parametrize("seed", range(3))
async def test_a_random_walk_loses_nobody(anyio_backend, seed):
    dice, ended = random.Random(seed), {}
    scheduler = LocalScheduler([FakeDevice("cuda:0", 9)], cpu_slots=2, keep_warm=0.01)

    async def call(number, model, patience):
        with anyio.move_on_after(patience) as scope:
            try:
                ended[number] = await scheduler.run(model, number)
                assert ended[number] == (model.key, number)
            except (ValueError, OutOfMemory) as error:
                ended[number] = error
        if scope.cancelled_caught:
            ended[number] = "left"

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                patience = dice.choice([0.0, 0.002, 60.0, 60.0])
                tasks.start_soon(call, number, dice.choice(MOODS), patience)
                if dice.random() < 0.3:
                    await anyio.lowlevel.checkpoint()
    assert sorted(ended) == list(range(200))
    for stats in scheduler.stats().models:
        assert stats.waiting == 0
    await scheduler.aclose()
    assert [device.reserved for device in scheduler.stats().devices] == [0, 0]
    assert own_threads() == []


async def test_what_cannot_be_loaded_is_asked_for_again_by_the_next_call(scheduler):
    model = FakeModel(at_load=Script(ModelUnavailable("not yet"), None))
    with pytest.raises(ModelUnavailable):
        await scheduler.run(model, 1)
    assert await scheduler.run(model, 1) == 1


@pytest.mark.parametrize("kind", [threading.Thread, threading.Timer])
async def test_without_a_thread_to_be_had_nobody_waits_for_ever(anyio_backend, monkeypatch, kind):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    scheduler = LocalScheduler([])
    with monkeypatch.context() as full, anyio.fail_after(10):
        full.setattr(kind, "start", refuse)
        if kind is threading.Thread:
            with pytest.raises(Overloaded, match="no more threads"):
                await scheduler.run(FakeModel(), 1)
        else:  # the alarm's, which only frees what is idle
            assert await scheduler.run(FakeModel(), 1) == 1
    with anyio.fail_after(10):
        assert await scheduler.run(FakeModel(), 2) == 2
    await scheduler.aclose()
