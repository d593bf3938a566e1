"""Expecting an error without a test framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["expect_raises"]


async def expect_raises(
    expected: type[Exception], function: Callable[..., Awaitable[object]], *args: Any
) -> None:
    """Check that awaiting a call raises an error of this type.

    Raises:
        AssertionError: It does not.
    """
    try:
        got = await function(*args)
    except expected:
        return
    raise AssertionError(
        f"{function.__name__}{args} gave {got!r} instead of raising {expected.__name__}"
    )
