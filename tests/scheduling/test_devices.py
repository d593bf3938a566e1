"""What models run on. Torch runs on the CPU everywhere; the same tests run on a GPU at hand."""

import gc

import anyio
import attrs
import pytest

from talkgen.errors import MissingDependency, ModelUnavailable
from talkgen.scheduling import LocalScheduler
from talkgen.scheduling.devices import CpuDevice, accelerators
from talkgen.testing import FakeModel, check_scheduler

MB = 2**20

DEVICES = [pytest.param("cpu"), pytest.param("cuda:0", marks=pytest.mark.gpu)]


@attrs.frozen
class Matrix:
    """A model of torch: multiplies by a matrix that takes some memory."""

    device: str
    key: str = "matrix"
    max_instances: int = 1
    max_batch: int = 4
    levels: int = 2
    greedy: bool = False

    def vram_bytes(self, device):
        return 64 * MB

    def load(self, device):
        import torch

        return LoadedMatrix(torch.eye(1024, device=device) * 2, self.greedy)


class LoadedMatrix:
    def __init__(self, matrix, greedy):
        self.matrix, self.greedy = matrix, greedy

    def run(self, batch, *, level=0):
        import torch

        assert torch.is_inference_mode_enabled()
        if self.greedy and level == 0:
            torch.empty(2**60, dtype=torch.uint8, device=self.matrix.device)
        vectors = torch.tensor(batch, dtype=torch.float32, device=self.matrix.device)
        return list((vectors[:, None].expand(-1, 1024) @ self.matrix)[:, 0].cpu().tolist())

    def close(self):
        del self.matrix


@pytest.mark.parametrize("device", DEVICES)
async def test_a_model_of_torch_runs_without_gradients(anyio_backend, device):
    pytest.importorskip("torch")
    scheduler, results = LocalScheduler(), {}

    async def call(number):
        results[number] = await scheduler.run(Matrix(device), number)

    async with anyio.create_task_group() as tasks:
        for number in range(9):
            tasks.start_soon(call, number)
    assert results == {number: 2.0 * number for number in range(9)}
    await scheduler.aclose()


@pytest.mark.parametrize("device", DEVICES)
async def test_torchs_own_lack_of_memory_goes_down_the_ladder(anyio_backend, device):
    pytest.importorskip("torch")
    scheduler, steps = LocalScheduler(), []
    model = Matrix(device, greedy=True)
    assert await scheduler.run(model, 1, on_degraded=steps.append) == 2.0
    assert [(step.action, step.level) for step in steps] == [("evicted", 0), ("level", 1)]
    await scheduler.aclose()


@pytest.mark.gpu
async def test_a_gpu_keeps_the_contract_and_gets_its_memory_back(anyio_backend):
    import torch

    await check_scheduler(LocalScheduler)
    before = torch.cuda.memory_allocated(0)
    scheduler = LocalScheduler(["cuda:0"])
    await scheduler.run(Matrix("cuda"), 1)
    device = {device.name: device for device in scheduler.stats().devices}["cuda:0"]
    assert device.budget <= torch.cuda.get_device_properties(0).total_memory
    assert device.used > before
    await scheduler.aclose()
    gc.collect()
    assert torch.cuda.memory_allocated(0) == before


async def test_without_a_gpu_the_cpu_does_it(anyio_backend):
    scheduler = LocalScheduler(["cpu"])
    assert await scheduler.run(FakeModel(), 1) == 1
    with pytest.raises(ModelUnavailable, match="no such device"):
        await scheduler.run(FakeModel(device="cuda"), 1)
    assert [device.name for device in scheduler.stats().devices] == ["cpu"]
    await scheduler.aclose()


async def test_a_device_that_is_not_there_is_named(anyio_backend):
    pytest.importorskip("torch")
    scheduler = LocalScheduler(["cuda:99"])
    assert await scheduler.run(FakeModel(device="cpu"), 1) == 1
    with pytest.raises(ValueError, match="cuda:99"):
        await scheduler.run(FakeModel(), 1)
    await scheduler.aclose()


def test_torch_is_needed_only_by_those_who_ask_for_its_devices(monkeypatch):
    monkeypatch.setattr("talkgen.scheduling.devices.find_spec", lambda name: None)
    assert accelerators(None, {}) == []
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingDependency, match="torch"):
        accelerators(["cuda:0"], {})


class FakeCuda:
    """What of `torch.cuda` is used."""

    def __init__(self, free, total, reserved=0, allocated=0):
        self.numbers = (free, total)
        self.reserved, self.allocated = reserved, allocated

    def is_available(self):
        return True

    def device_count(self):
        return 2

    def mem_get_info(self, index):
        return self.numbers

    def memory_reserved(self, index):
        return self.reserved

    def memory_allocated(self, index):
        return self.allocated


def test_the_budget_is_read_again_and_leaves_others_theirs(monkeypatch):
    torch = pytest.importorskip("torch")
    cuda = FakeCuda(free=10_000, total=16_000)
    monkeypatch.setattr(torch, "cuda", cuda)
    first, second = accelerators(None, {"cuda:1": 5_000})
    assert (first.name, first.capacity, first.budget()) == ("cuda:0", 14_400, 9_000)
    # What this process itself holds is its own: it is not counted against it.
    cuda.numbers, cuda.reserved, cuda.allocated = (4_000, 16_000), 6_000, 5_500
    assert (first.budget(), first.used()) == (9_000, 5_500)
    cuda.numbers = (1_000, 16_000)  # another process has come
    assert first.budget() == 6_300
    assert (second.name, second.capacity, second.budget()) == ("cuda:1", 5_000, 5_000)
    (named,) = accelerators(["cuda"], {"cuda": 5_000})
    assert (named.name, named.capacity) == ("cuda:0", 5_000)


def test_the_cpu_has_a_slot_for_each_core():
    assert CpuDevice().slots >= 1
    assert (CpuDevice(3).slots, CpuDevice(3, 100).budget()) == (3, 100)
