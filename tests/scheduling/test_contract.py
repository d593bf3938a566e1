"""Schedulers keep the contract, in this process and across others."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import anyio
import pytest

from talkgen.errors import OutOfMemory
from talkgen.protocols import Degradation, DeviceStats, ModelStats, SchedulerStats
from talkgen.scheduling import LocalScheduler
from talkgen.testing import FakeDevice, check_scheduler


@pytest.mark.parametrize(
    "options", [{}, {"devices": [FakeDevice()]}, {"devices": ["cpu"], "cpu_slots": 1}]
)
async def test_local_scheduler_keeps_the_contract(anyio_backend, options):
    await check_scheduler(lambda: LocalScheduler(**{"devices": []} | options))


_loaded = cache(lambda model: model.load("cpu"))


def _work(pickled):
    """In a process of the pool: the ladder, and an outcome that pickles."""
    model, item = pickle.loads(pickled)
    for level in range(model.levels):
        try:
            (result,) = _loaded(model).run([item], level=level)
        except OutOfMemory as error:
            outcome = level, None, error
        except Exception as error:  # noqa: BLE001 - it is what is tested
            return level, None, error
        else:
            return level, result, None
    return outcome


class ProcessPoolScheduler:
    """Each call in a process of its own: models, items, results and errors have to pickle."""

    def __init__(self, pool):
        self._pool = pool
        self._closed = False
        self._served, self._failed = {}, {}

    async def run(self, model, item, *, on_degraded=None):
        if self._closed:
            raise RuntimeError("closed")
        future = self._pool.submit(_work, pickle.dumps((model, item)))
        level, result, error = await anyio.to_thread.run_sync(future.result, abandon_on_cancel=True)
        counted = self._served if error is None else self._failed
        counted[model.key] = counted.get(model.key, 0) + 1
        for step in range(1, level + 1):
            if on_degraded is not None:
                on_degraded(Degradation("level", step, "cpu"))
        if error is not None:
            raise error
        return result

    def stats(self):
        keys = {*self._served, *self._failed}
        return SchedulerStats(
            devices=(DeviceStats("cpu", None, 0, None, 0.0),),
            models=tuple(
                ModelStats(
                    key, 1, 2, 0, 0, self._served.get(key, 0), self._failed.get(key, 0), 0, 0, 0
                )
                for key in keys
            ),
        )

    async def aclose(self):
        self._closed = True


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


async def test_a_process_pool_keeps_the_contract(anyio_backend, pool):
    await check_scheduler(lambda: ProcessPoolScheduler(pool))
