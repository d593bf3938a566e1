"""What was spent, so that a budget can say no."""

from __future__ import annotations

import threading

from talkgen.errors import BudgetExceeded

__all__ = ["Spending"]


class Spending:
    """What a generator has spent, or is about to. Thread-safe."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._lock = threading.Lock()
        self.credits = 0

    def reserve(self, cost: int, budget: float | None) -> None:
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
            self.credits += cost

    def give_back(self, cost: int) -> None:
        """Count a run out that cost nothing after all."""
        with self._lock:
            self.credits -= cost

    def __reduce__(self) -> tuple[type[Spending], tuple[()]]:
        return Spending, ()
