"""Who waits for which talk, and is woken when somebody else has heard of it."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import attrs

from talkgen._loops import call_soon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.lowlevel import EventLoopToken

    from talkgen.generators.did.timing import Clock

__all__ = ["Sleeper", "Sleepers"]


@attrs.define(eq=False)
class Sleeper:
    """One who waits for a talk."""

    _clock: Clock
    _loop: EventLoopToken = attrs.field(factory=anyio.lowlevel.current_token)
    _woken: anyio.Event = attrs.field(factory=anyio.Event)

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or until woken; being woken before counts."""
        with anyio.move_on_after(self._clock.real(seconds)):
            await self._woken.wait()
        self._woken = anyio.Event()

    def wake(self) -> None:
        """From any thread."""
        call_soon(self._loop, self._wake)

    def _wake(self) -> None:
        self._woken.set()


class Sleepers:
    """Everybody who waits. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        """Nobody waits yet."""
        self._clock = clock
        self._lock = threading.Lock()
        self._by_talk: defaultdict[str, set[Sleeper]] = defaultdict(set)

    @contextmanager
    def waiting(self, talk_id: str) -> Iterator[Sleeper]:
        """Be woken for this talk."""
        sleeper = Sleeper(self._clock)
        with self._lock:
            self._by_talk[talk_id].add(sleeper)
        try:
            yield sleeper
        finally:
            with self._lock:
                self._by_talk[talk_id].discard(sleeper)
                if not self._by_talk[talk_id]:
                    del self._by_talk[talk_id]

    def wake(self, talk_id: str) -> bool:
        """Wake whoever waits for this talk; False where nobody does."""
        with self._lock:
            sleepers = tuple(self._by_talk.get(talk_id, ()))
        for sleeper in sleepers:
            sleeper.wake()
        return bool(sleepers)
