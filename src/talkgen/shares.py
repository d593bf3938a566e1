"""How a run's progress is divided among its stages: pure arithmetic."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FIRST", "LAST", "Span", "spans"]


@attrs.frozen
class Span:
    """A stage's share of the progress.

    Attributes:
        start: Per cent when it begins.
        end: Per cent when it has ended.
        announced: The run tells its beginning and end as `{name}_running` and `{name}_complete`;
            otherwise the stage tells its own steps.
    """

    start: float
    end: float
    announced: bool = True

    def at(self, fraction: float) -> float:
        """The per cent at a fraction, 0..1, of the stage."""
        return self.start + (self.end - self.start) * min(max(fraction, 0.0), 1.0)


# The percentages that the wire form promises for the stages everybody has.
WELL_KNOWN = {
    "detection": Span(25, 40),
    "background_removal": Span(50, 60),
    "video_generation": Span(70, 80, announced=False),
}
FIRST, LAST = 20.0, 90.0


def spans(stages: Iterable[tuple[str, float]]) -> list[Span]:
    """Divide the progress among stages.

    The well-known ones, as long as they stand in their usual order, have fixed places; the others
    share the gaps between those by weight.

    Args:
        stages: Name and weight of each, in order.

    Returns:
        A span for each; none begins before the one before it ends.
    """
    divided: list[Span] = []
    others: list[float] = []
    position = FIRST
    for name, weight in stages:
        known = WELL_KNOWN.get(name)
        if known is None or known.start < position:
            others.append(weight)
            continue
        divided += [*_shared(position, known.start, others), known]
        others, position = [], known.end
    return divided + _shared(position, LAST, others)


def _shared(start: float, end: float, weights: list[float]) -> list[Span]:
    total = sum(weights) or 1.0
    edges = [start + (end - start) * part / total for part in accumulate(weights, initial=0.0)]
    return [Span(*edge) for edge in pairwise(edges)]
