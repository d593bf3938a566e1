"""A look at the scheduler's core, and what its numbers say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkgen.protocols import DeviceStats, ModelStats, Quantiles, SchedulerStats
from talkgen.scheduling.records import CPU, InstanceState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from talkgen._types import JSON
    from talkgen.scheduling.core import Core
    from talkgen.scheduling.records import DeviceRecord, ModelRecord

__all__ = ["snapshot", "utilization"]


def snapshot(core: Core, now: float) -> SchedulerStats:
    """The numbers of a moment."""
    return SchedulerStats(
        devices=tuple(_device(device, now) for device in core.devices),
        models=tuple(_model(record) for record in core.models.values()),
    )


def _device(device: DeviceRecord, now: float) -> DeviceStats:
    busy = device.busy + (now - device.busy_since if device.running else 0.0)
    return DeviceStats(
        name=device.name,
        budget=device.capacity if device.budget is None else device.budget,
        reserved=device.reserved,
        used=device.used,
        busy=busy / (now - device.since) if now > device.since else 0.0,
        in_service=device.lost is None,
        busy_seconds=busy,
    )


def _model(record: ModelRecord) -> ModelStats:
    states = [instance.state for instance in record.instances]
    return ModelStats(
        key=record.model.key,
        instances=len(states) - states.count(InstanceState.CLOSING),
        max_instances=record.max_instances,
        busy=states.count(InstanceState.RUNNING),
        waiting=record.waiting,
        served=record.served,
        failed=record.failed,
        batches=record.batches,
        loads=record.loads,
        evictions=record.evictions,
        waiting_time=_quantiles(record.waits),
        running_time=_quantiles(record.runs),
    )


def _quantiles(times: Iterable[float]) -> Quantiles:
    """By the nearest rank."""
    ranked = sorted(times)
    if not ranked:
        return Quantiles()
    return Quantiles(*(ranked[round(part * (len(ranked) - 1))] for part in (0.5, 0.9, 0.99)))


SLOTS = {"yolo": 2, "birefnet": 1}  # instances of each, where nothing else is said


def utilization(stats: SchedulerStats) -> dict[str, JSON]:
    """What the service that talkgen grew out of reported.

    Returns:
        `yolo_slots_available` and `birefnet_slots_available`: instances that are not in use,
        loaded or not; `gpu_utilization_percent`: the busiest device's time in use, of the
        accelerators if there are any, else of the CPU.
    """
    free: dict[str, JSON] = {
        f"{name}_slots_available": _free_slots(name, slots, stats.models)
        for name, slots in SLOTS.items()
    }
    accelerators = [device.busy for device in stats.devices if device.name != CPU]
    busy = max(accelerators or [device.busy for device in stats.devices], default=0.0)
    return {**free, "gpu_utilization_percent": round(100 * busy, 1)}


def _free_slots(name: str, default: int, models: Iterable[ModelStats]) -> int:
    known = [model for model in models if model.key.startswith(name)]
    if not known:
        return default
    return sum(max(model.max_instances - model.busy, 0) for model in known)
