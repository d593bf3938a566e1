"""The scheduler: one call at a time, results to their own waiter, on any loop."""

import threading

import anyio
import attrs
import pytest

from talkgen.scheduling import LocalScheduler


@attrs.frozen
class Doubling:
    """Doubles numbers; waits at the gate where there is one."""

    key: str = "doubling"
    device: str = "auto"
    max_instances: int = 1
    max_batch: int = 1
    levels: int = 1
    log: list = attrs.field(factory=list, eq=False)
    entered: threading.Event = attrs.field(factory=threading.Event, eq=False)
    gate: threading.Event | None = attrs.field(default=None, eq=False)

    def vram_bytes(self, device):
        return 0

    def load(self, device):
        self.log.append("load")
        return self

    def run(self, batch, *, level=0):
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(10)
        self.log.append(batch[0])
        return [number * 2 for number in batch]

    def close(self):
        self.log.append("close")


async def test_each_waiter_gets_its_own_result_and_the_model_is_loaded_once(anyio_backend):
    scheduler, model, results = LocalScheduler(), Doubling(), {}

    async def call(number):
        results[number] = await scheduler.run(model, number)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(call, number)
    await scheduler.aclose()
    assert results == {number: number * 2 for number in range(20)}
    assert (model.log[0], model.log[-1], len(model.log)) == ("load", "close", 22)


async def test_error_reaches_its_waiter_and_nobody_else(anyio_backend):
    scheduler, model = LocalScheduler(), Doubling()
    with pytest.raises(TypeError):
        await scheduler.run(model, None)
    assert await scheduler.run(model, 2) == 4
    (stats,) = scheduler.stats().models
    assert (stats.served, stats.failed, stats.loads, stats.waiting, stats.busy) == (1, 1, 1, 0, 0)
    await scheduler.aclose()


async def test_cancelled_waiters_leave_at_once(anyio_backend):
    scheduler, model = LocalScheduler(), Doubling(gate=threading.Event())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run, model, 1)  # runs
        await anyio.to_thread.run_sync(model.entered.wait)
        tasks.start_soon(scheduler.run, model, 2)  # waits
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    model.gate.set()
    assert await scheduler.run(model, 3) == 6
    assert model.log == ["load", 1, 3]
    await scheduler.aclose()


async def test_closed_scheduler_refuses(anyio_backend):
    scheduler = LocalScheduler()
    await scheduler.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await scheduler.run(Doubling(), 1)
