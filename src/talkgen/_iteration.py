"""Iterating over what one call fetches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

__all__ = ["Fetched"]

T = TypeVar("T")


class Fetched(Generic[T]):
    """An asynchronous iterator over the result of one call, made when the first item is wanted.

    Unlike an asynchronous generator it may be dropped half way: there is nothing to finalise.
    """

    def __init__(self, fetch: Callable[[], Awaitable[Iterable[T]]]) -> None:
        self._fetch = fetch
        self._items: Iterator[T] | None = None

    def __aiter__(self) -> Fetched[T]:
        return self

    async def __anext__(self) -> T:
        if self._items is None:
            self._items = iter(await self._fetch())
        for item in self._items:
            return item
        raise StopAsyncIteration
