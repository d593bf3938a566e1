"""Whose fault an error is."""

import pickle

import pytest

from talkgen.errors import ModelUnavailable, OutOfMemory
from talkgen.scheduling.faults import Failure, Fault, classify


def torch_error(name, text):
    kind = type(name, (RuntimeError,), {"__module__": "torch"})
    return kind(text)


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OutOfMemory("no room"), Fault.MEMORY),
        (MemoryError(), Fault.MEMORY),
        (torch_error("OutOfMemoryError", "CUDA out of memory. Tried to allocate"), Fault.MEMORY),
        (torch_error("AcceleratorError", "CUDA error: out of memory"), Fault.MEMORY),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), Fault.MEMORY),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory"), Fault.MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), Fault.MEMORY),
        (caused(ModelUnavailable("broken"), MemoryError()), Fault.MEMORY),
        (torch_error("AcceleratorError", "unspecified launch failure"), Fault.LOST),
        (RuntimeError("CUDA error: device-side assert triggered"), Fault.LOST),
        (caused(ModelUnavailable("broken"), RuntimeError("CUDA error: gone")), Fault.LOST),
        (RuntimeError("shapes do not match"), Fault.ITEM),
        (ValueError("out of memory"), Fault.ITEM),
        (type("OutOfMemoryError", (Exception,), {})("somebody else's"), Fault.ITEM),
        (KeyboardInterrupt(), Fault.ITEM),
    ],
)
def test_errors_are_told_apart(error, fault):
    assert classify(error) is fault


def test_a_circle_of_causes_ends():
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    assert classify(first) is Fault.ITEM


def test_torchs_own_errors_are_known():
    torch = pytest.importorskip("torch")
    assert classify(torch.OutOfMemoryError("CUDA out of memory.")) is Fault.MEMORY


def test_each_waiter_gets_a_copy_of_its_own():
    error = caused(ModelUnavailable("damaged", hint="Fetch it again."), OSError("short"))
    copied = Failure.of(error).own_copy().error
    assert copied is not error
    assert (str(copied), copied.hint, copied.__cause__) == ("damaged", error.hint, error.__cause__)
    copied.task_id = "t"
    assert error.task_id is None
    assert pickle.loads(pickle.dumps(copied)).task_id == "t"


def test_what_cannot_be_copied_is_shared():
    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(one)

    odd = Odd(1, 2)
    assert Failure.of(odd).own_copy().error is odd
