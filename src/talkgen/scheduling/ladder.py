"""What is given up, step by step, where memory runs out: a pure function."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

__all__ = ["Form", "Step", "step_down"]

Step: TypeAlias = Literal["evicted", "split", "level", "device"]


@attrs.frozen(cache_hash=True)
class Form:
    """How a call is to be run. Calls of one form may share a batch.

    Attributes:
        limit: The largest batch that it may be part of.
        level: The model's level.
        freed: The cache was freed and idle models were evicted for its sake.
        on_cpu: Accelerators are out of the question.
    """

    limit: int
    level: int = 0
    freed: bool = False
    on_cpu: bool = False


def step_down(form: Form, batch: int, *, levels: int, cpu: bool) -> tuple[Step, Form] | None:
    """The next form to try after one that did not fit; None when there is none.

    Args:
        form: What did not fit.
        batch: How many items it was tried with.
        levels: How many the model has.
        cpu: There is a CPU left to go to.
    """
    if not form.freed:
        return "evicted", attrs.evolve(form, freed=True)
    if batch > 1:
        return "split", attrs.evolve(form, limit=batch // 2)
    if form.level + 1 < levels:
        return "level", attrs.evolve(form, level=form.level + 1)
    if cpu:
        return "device", attrs.evolve(form, on_cpu=True, freed=False)
    return None
