"""What every scheduler must do."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import anyio

from talkgen.errors import InvalidImage, ModelUnavailable, OutOfMemory
from talkgen.testing._devices import FakeModel
from talkgen.testing._expect import expect_raises

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from talkgen.protocols import Degradation, GPUScheduler, ModelStats

__all__ = ["check_scheduler"]

PATIENCE = 60.0  # seconds: a scheduler that is slower than that has lost somebody
LONG = 0.6  # seconds: a batch that somebody does not wait for


async def check_scheduler(make_scheduler: Callable[[], GPUScheduler]) -> None:
    """Check a scheduler against the contract of `talkgen.protocols.GPUScheduler`.

    Models, items, results and errors are picklable, so that they may cross processes.

    Args:
        make_scheduler: Makes a new scheduler; called once for each check.

    Raises:
        AssertionError: It does not keep the contract; the message says where.
    """
    for check in CHECKS:
        scheduler = make_scheduler()
        try:
            with anyio.fail_after(PATIENCE):
                await check(scheduler)
        finally:
            await scheduler.aclose()


# --- models that can be pickled ----------------------------------------------------------------


def _shy(batch: Sequence[Any], level: int, device: str) -> None:  # noqa: ARG001 - the script's
    for item in batch:
        if item == "bad":
            raise InvalidImage(f"cannot use {item!r}", hint="Take another.")


def _large(batch: Sequence[Any], level: int, device: str) -> None:  # noqa: ARG001 - as above
    if level == 0:
        raise OutOfMemory("too large for any device")


def _hopeless(batch: Sequence[Any], level: int, device: str) -> None:  # noqa: ARG001 - as above
    raise OutOfMemory("too large at every level")


def _absent(device: str) -> None:
    raise ModelUnavailable(f"no weights for {device}", hint="Fetch them.")


def _double(item: Any) -> Any:
    return item * 2


DOUBLE = FakeModel("double", max_instances=2, max_batch=4, function=_double)
LENGTH = FakeModel("length", function=operator.length_hint)
SHY = FakeModel("shy", max_batch=8, at_run=_shy)
LARGE = FakeModel("large", levels=2, at_run=_large)
HOPELESS = FakeModel("hopeless", levels=2, at_run=_hopeless)
ABSENT = FakeModel("absent", at_load=_absent)
SLOW = FakeModel("slow", latency=LONG)


# --- checks ------------------------------------------------------------------------------------


async def _each_gets_its_own_result(scheduler: GPUScheduler) -> None:
    results: dict[int, int] = {}

    async def call(number: int) -> None:
        results[number] = await scheduler.run(DOUBLE, number)

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(call, number)
    assert results == {number: 2 * number for number in range(40)}, f"results: {results}"


async def _models_do_not_meet(scheduler: GPUScheduler) -> None:
    assert await scheduler.run(DOUBLE, "ab") == "abab", "one model got another's item"
    assert await scheduler.run(LENGTH, "ab") == 2, "one model got another's item"


async def _an_items_error_is_its_own(scheduler: GPUScheduler) -> None:
    outcomes: dict[int, Any] = {}

    async def call(number: int, item: str) -> None:
        try:
            outcomes[number] = await scheduler.run(SHY, item)
        except InvalidImage as error:
            outcomes[number] = error

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(call, number, "bad" if number == 3 else "good")
    error = outcomes.pop(3)
    assert isinstance(error, InvalidImage), f"a bad item gave {error!r}"
    assert (str(error), error.hint) == ("cannot use 'bad'", "Take another."), (
        "the error is not whole"
    )
    assert set(outcomes.values()) == {"good"}, f"a bad item spoilt others: {outcomes}"


async def _a_smaller_form_is_tried(scheduler: GPUScheduler) -> None:
    steps: list[Degradation] = []
    assert await scheduler.run(LARGE, "big", on_degraded=steps.append) == "big", "another's result"
    assert steps, "nobody was told of the step down"
    assert steps[-1].level == 1, f"it ran at level {steps[-1].level}"
    again: list[Degradation] = []
    await scheduler.run(LARGE, "big", on_degraded=again.append)
    assert again, "the next call did not start at level 0"


async def _who_refuses_a_step_gets_its_error(scheduler: GPUScheduler) -> None:
    def refuse(step: Degradation) -> None:
        if step.action == "level":
            raise KeyError(step.action)

    await expect_raises(KeyError, _call_of(scheduler, LARGE, "big", refuse))
    assert await scheduler.run(DOUBLE, 1) == 2, "it serves nobody after a refusal"


async def _what_never_fits_is_out_of_memory(scheduler: GPUScheduler) -> None:
    await expect_raises(OutOfMemory, _call_of(scheduler, HOPELESS, "big"))


async def _what_cannot_be_loaded_is_told(scheduler: GPUScheduler) -> None:
    errors: list[ModelUnavailable] = []

    async def call() -> None:
        try:
            await scheduler.run(ABSENT, 1)
        except ModelUnavailable as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(call)
    assert [error.hint for error in errors] == ["Fetch them."] * 3, f"errors: {errors}"
    assert len({id(error) for error in errors}) == 3, "several callers share one error"


async def _a_cancelled_caller_leaves_at_once(scheduler: GPUScheduler) -> None:
    await scheduler.run(SLOW, 0)  # loaded, and whatever else takes time at first
    began = anyio.current_time()
    with anyio.move_on_after(LONG / 10):
        await scheduler.run(SLOW, 1)
    took = anyio.current_time() - began
    assert took < LONG, f"a cancelled caller was held for {took:.1f} s"
    assert await scheduler.run(DOUBLE, 1) == 2, "it serves nobody after a cancellation"
    assert await scheduler.run(SLOW, 2) == 2, "a cancelled call's result went to another"


async def _numbers_are_kept(scheduler: GPUScheduler) -> None:
    await scheduler.run(SHY, "good")
    await expect_raises(InvalidImage, _call_of(scheduler, SHY, "bad"))
    stats = _stats_of(scheduler, SHY)
    counted = (stats.served, stats.failed, stats.waiting, stats.busy)
    assert counted == (1, 1, 0, 0), f"served, failed, waiting, busy: {counted}"
    assert scheduler.stats().devices, "it has no device"


async def _a_closed_one_refuses(scheduler: GPUScheduler) -> None:
    await scheduler.run(DOUBLE, 1)
    await scheduler.aclose()
    await scheduler.aclose()
    await expect_raises(RuntimeError, _call_of(scheduler, DOUBLE, 1))


CHECKS = (
    _each_gets_its_own_result,
    _models_do_not_meet,
    _an_items_error_is_its_own,
    _a_smaller_form_is_tried,
    _who_refuses_a_step_gets_its_error,
    _what_never_fits_is_out_of_memory,
    _what_cannot_be_loaded_is_told,
    _a_cancelled_caller_leaves_at_once,
    _numbers_are_kept,
    _a_closed_one_refuses,
)


def _call_of(
    scheduler: GPUScheduler,
    model: FakeModel,
    item: Any,
    on_degraded: Callable[[Degradation], None] | None = None,
) -> Any:
    """A call yet to be made."""

    async def run() -> Any:
        return await scheduler.run(model, item, on_degraded=on_degraded)

    return run


def _stats_of(scheduler: GPUScheduler, model: FakeModel) -> ModelStats:
    (found,) = [stats for stats in scheduler.stats().models if stats.key == model.key]
    return found
