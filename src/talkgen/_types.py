"""Types that every layer shares."""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = ["JSON", "Secret"]

JSON: TypeAlias = Any
"""What `json.dumps` takes: None, bool, int, float, str, and lists and dicts of these."""


class Secret(str):
    """A text that is used and never shown: its repr hides it, and a pickle leaves it out."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, ("",)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        return self
