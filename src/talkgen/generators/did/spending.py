"""What was spent, so that a budget can say no."""

from __future__ import annotations

import threading

from talkgen.errors import BudgetExceeded

__all__ = ["Spending"]


class Spending:
    """What the runs of one generator have cost, or are about to. Thread-safe."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._lock = threading.Lock()
        self._open: dict[str, int] = {}
        self.credits = 0

    def reserve(self, task_id: str, cost: int, budget: float | None) -> None:
        """Count a run in.

        Raises:
            talkgen.errors.BudgetExceeded: It would be too much.
        """
        with self._lock:
            if budget is not None and self.credits + cost > budget:
                raise BudgetExceeded(
                    f"The run costs {cost} credits; {self.credits} of the budget of {budget:g} "
                    "are spent already."
                )
            self._open[task_id] = cost
            self.credits += cost

    def give_back(self, task_id: str) -> None:
        """Count a run out that cost nothing after all."""
        with self._lock:
            self.credits -= self._open.pop(task_id, 0)

    def settle(self, task_id: str, cost: int) -> None:
        """Count a run for what it did cost, if it was counted in."""
        with self._lock:
            if task_id in self._open:
                self.credits += cost - self._open.pop(task_id)

    def __reduce__(self) -> tuple[type[Spending], tuple[()]]:
        return Spending, ()
