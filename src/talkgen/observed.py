"""What somebody who collects metrics is shown of an open pipeline."""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING

import anyio
import attrs

from talkgen import telemetry
from talkgen.errors import TalkgenError
from talkgen.protocols import Backends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from talkgen.protocols import DeviceStats, GPUScheduler, Stage, Storage, StorageStats

__all__ = ["Gauges", "backend_keys"]

logger = logging.getLogger("talkgen.pipeline")

GLANCE = 0.5  # seconds between two glances at whether anybody has looked
PAUSE = 5.0  # seconds between two counts of the storage
SHARE = 20.0  # and so many times as long as a count takes: a bucket is listed for it
SHORTEST = 1.0  # seconds over which a device's use is told
MEBIBYTE, GIBIBYTE = 2**20, 2**30


def backend_keys(stages: Sequence[Stage], backends: Backends) -> tuple[str, ...]:
    """The keys of what the stages use: their own, or else the pipeline's.

    It may read weights through to know their content.
    """
    roles = attrs.fields_dict(Backends)
    used = [
        getattr(stage, role) or getattr(backends, role)
        for stage in stages
        for role in roles
        if hasattr(stage, role)
    ]
    return tuple(map(_key, used))


def _key(backend: object) -> str:
    try:
        return str(getattr(backend, "key", type(backend).__name__))
    except TalkgenError:  # its file cannot be read: told by the run that needs it
        return type(backend).__name__


@attrs.define(eq=False)
class Gauges:
    """Devices and storage, read by the threads of exporters, which never wait for a loop."""

    _scheduler: GPUScheduler
    _storage: Storage
    _clock: Callable[[], float] = monotonic
    _windows: dict[str, _Window] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _counted: StorageStats | None = None
    _wanted: bool = False

    def shown(self) -> AbstractContextManager[None]:
        """Show them as long as the block lasts."""
        return telemetry.showing(
            gpu_utilization_percent=self._utilization,
            storage_used_bytes=self._used,
            storage_free_bytes=self._free,
        )

    async def keep_counting(self) -> None:
        """Count the storage whenever somebody has looked since the last time.

        Where nobody collects, nothing is counted; who looks first is told the second time.
        """
        while True:
            await anyio.sleep(GLANCE)
            if self._wanted:
                self._wanted, began = False, monotonic()
                await self._count()
                await anyio.sleep(max(PAUSE, SHARE * (monotonic() - began)))

    async def _count(self) -> None:
        try:
            self._counted = await self._storage.stats()
        except Exception:
            logger.exception("%r could not be counted; its gauges stay as they are.", self._storage)

    # --- from any thread -----------------------------------------------------------------------

    def _utilization(self) -> Iterator[tuple[float, dict[str, str]]]:
        for device in self._scheduler.stats().devices:
            with self._lock:
                percent = self._percent(device, self._clock())
            yield percent, {"device": device.name}

    def _percent(self, device: DeviceStats, now: float) -> float:
        if device.busy_seconds is None:
            return 100 * device.busy
        window = self._windows.get(device.name)
        if window is None:
            window = _Window(now, device.busy_seconds, 100 * device.busy)
            self._windows[device.name] = window
        return window.seen(now, device.busy_seconds)

    def _used(self) -> Iterator[tuple[float, dict[str, str]]]:
        self._wanted = True
        if (counted := self._counted) is not None:
            for tier, stats in counted.tiers.items():
                facts = {"storage": counted.storage_root, "tier": tier}
                yield round(stats.size_mb * MEBIBYTE), facts

    def _free(self) -> Iterator[tuple[float, dict[str, str]]]:
        self._wanted = True
        counted = self._counted
        if counted is not None and counted.disk is not None:
            yield round(counted.disk.free_gb * GIBIBYTE), {"storage": counted.storage_root}


@attrs.define
class _Window:
    """The time since the last look at a device."""

    since: float
    busy: float
    percent: float

    def seen(self, now: float, busy: float) -> float:
        """Per cent of the time in which it was busy; several who look at once see the same."""
        if (length := now - self.since) >= SHORTEST:
            self.percent = min(100 * (busy - self.busy) / length, 100.0)
            self.since, self.busy = now, busy
        return self.percent
