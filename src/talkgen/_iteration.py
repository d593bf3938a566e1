"""Iterating over what calls fetch; unlike an asynchronous generator, to be dropped anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

__all__ = ["Fetched", "Paged"]

T = TypeVar("T")


class Fetched(Generic[T]):
    """An asynchronous iterator over the result of one call, made when the first item is wanted."""

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


class Paged(Generic[T]):
    """An asynchronous iterator over pages, each fetched when its first item is wanted."""

    def __init__(self, fetch: Callable[[T | None], Awaitable[Sequence[T]]]) -> None:
        """Fetch nothing yet.

        Args:
            fetch: Gives what comes after an item, or the first page; an empty page at the end.
        """
        self._fetch = fetch
        self._last: T | None = None
        self._page: Iterator[T] = iter(())

    def __aiter__(self) -> Paged[T]:
        return self

    async def __anext__(self) -> T:
        item = next(self._page, None)
        if item is None:
            self._page = iter(await self._fetch(self._last))
            item = next(self._page, None)
        if item is None:
            raise StopAsyncIteration
        self._last = item
        return item
