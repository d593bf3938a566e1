"""What somebody who collects metrics is shown of an open pipeline."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import anyio
import attrs

from talkgen import telemetry
from talkgen.errors import TalkgenError
from talkgen.protocols import Backends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from talkgen.protocols import DeviceStats, GPUScheduler, Stage, Storage, StorageStats

__all__ = ["DeviceGauges", "StorageGauges", "backend_keys", "shown"]

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
class DeviceGauges:
    """The use of a scheduler's devices, read by the threads of exporters."""

    _scheduler: GPUScheduler
    _clock: Callable[[], float] = monotonic
    _windows: dict[str, _Window] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def utilization(self) -> Iterator[tuple[float, dict[str, str]]]:
        """Per cent of each device's time since the last look; from any thread."""
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


@attrs.define(eq=False)
class StorageGauges:
    """What is stored, read by the threads of exporters, which never wait for a loop.

    They are told what was counted last. Where nobody collects, nothing is counted; who looks first
    is told the second time.
    """

    _storage: Storage
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _counted: StorageStats | None = None
    _wanted: bool = False
    _counting: bool = False
    _not_before: float = 0.0

    def used(self) -> Iterator[tuple[float, dict[str, str]]]:
        """Bytes of each tier; from any thread."""
        self._wanted = True
        if (counted := self._counted) is not None:
            for tier, stats in counted.tiers.items():
                facts = {"storage": counted.storage_root, "tier": tier}
                yield round(stats.size_mb * MEBIBYTE), facts

    def free(self) -> Iterator[tuple[float, dict[str, str]]]:
        """Bytes that can be written, where there is a disk; from any thread."""
        self._wanted = True
        counted = self._counted
        if counted is not None and counted.disk is not None:
            yield round(counted.disk.free_gb * GIBIBYTE), {"storage": counted.storage_root}

    async def keep_counting(self) -> None:
        """Count whenever somebody has looked since the last time.

        All pipelines of the storage do this, in whatever loops, and one of them counts.
        """
        while True:
            await anyio.sleep(GLANCE)
            if self._is_due():
                try:
                    await self._count()
                finally:  # who is cancelled leaves the count to the next
                    self._counting = False

    def _is_due(self) -> bool:
        """It is to be counted now, by the caller."""
        with self._lock:
            due = self._wanted and not self._counting and monotonic() >= self._not_before
            self._counting |= due
            return due

    async def _count(self) -> None:
        began = monotonic()
        try:
            self._counted = await self._storage.stats()
        except Exception:
            logger.exception("%r could not be counted; its gauges stay as they are.", self._storage)
        self._wanted = False
        ended = monotonic()
        self._not_before = ended + max(PAUSE, SHARE * (ended - began))


G = TypeVar("G", DeviceGauges, StorageGauges)

# By the id of what they show, which they keep alive. Pipelines that share a scheduler or a storage
# share its gauges: what each of them counted would cost each time, and be told differently.
_devices: WeakValueDictionary[int, DeviceGauges] = WeakValueDictionary()
_storages: WeakValueDictionary[int, StorageGauges] = WeakValueDictionary()
_lock = threading.Lock()


@contextmanager
def shown(scheduler: GPUScheduler, storage: Storage) -> Iterator[StorageGauges]:
    """Show a scheduler's devices and a storage as long as the block lasts.

    Yields:
        What has to `keep_counting` meanwhile.
    """
    devices = _shared(_devices, scheduler, DeviceGauges)
    stored = _shared(_storages, storage, StorageGauges)
    with telemetry.showing(
        gpu_utilization_percent=devices.utilization,
        storage_used_bytes=stored.used,
        storage_free_bytes=stored.free,
    ):
        yield stored


def _shared(known: WeakValueDictionary[int, G], of: Any, make: Callable[[Any], G]) -> G:
    with _lock:
        gauges = known.get(id(of))
        if gauges is None:
            gauges = known[id(of)] = make(of)
        return gauges
