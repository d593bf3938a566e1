"""The scheduler of this process."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from talkgen.protocols import DeviceStats, ModelStats, SchedulerStats
from talkgen.scheduling.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from talkgen.protocols import Degradation, LoadedModel, Model

__all__ = ["LocalScheduler"]

In = TypeVar("In")
Out = TypeVar("Out")

CPU = "cpu"


class LocalScheduler:
    """Runs one call at a time on the CPU and keeps every model loaded until it is closed.

    It serves any number of event loops; each call's waiter may be cancelled at any moment.
    """

    def __init__(self) -> None:
        """Make a scheduler; its thread starts with the first call."""
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._closed = False
        self._loaded: dict[Model[Any, Any], LoadedModel[Any, Any]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    async def run(
        self,
        model: Model[In, Out],
        item: In,
        *,
        on_degraded: Callable[[Degradation], None] | None = None,  # noqa: ARG002 - the protocol's
    ) -> Out:
        """Run one item through a model, loading it first where needed.

        Raises:
            RuntimeError: The scheduler is closed.
            talkgen.errors.ModelUnavailable: The model cannot be loaded.
        """
        worker = self._started()
        self._count(model, waiting=+1)
        try:
            return await worker.run(partial(self._call, model, item))
        finally:
            self._count(model, waiting=-1)

    def stats(self) -> SchedulerStats:
        """A snapshot; no I/O."""
        with self._lock:
            counts = self._counts.copy()
            loaded = {model.key for model in self._loaded}
        device = DeviceStats(name=CPU, budget=None, reserved=0, busy=0.0)
        keys = sorted({key for key, _ in counts})
        return SchedulerStats(
            devices=(device,),
            models=tuple(
                ModelStats(
                    key=key,
                    instances=int(key in loaded),
                    max_instances=1,
                    busy=counts[key, "busy"],
                    waiting=counts[key, "waiting"],
                    served=counts[key, "served"],
                    failed=counts[key, "failed"],
                    loads=counts[key, "loads"],
                )
                for key in keys
            ),
        )

    async def aclose(self) -> None:
        """Refuse new calls, finish those under way, unload the models."""
        with self._lock:
            self._closed, worker, self._worker = True, self._worker, None
        if worker is not None:
            await worker.aclose()
        for model in list(self._loaded):
            self._loaded.pop(model).close()

    def _started(self) -> Worker:
        with self._lock:
            if self._closed:
                raise RuntimeError("this scheduler is closed; make a new LocalScheduler()")
            if self._worker is None:
                self._worker = Worker("talkgen-models")
            return self._worker

    def _call(self, model: Model[In, Out], item: In) -> Out:
        self._count(model, waiting=-1, busy=+1)
        outcome = "failed"
        try:
            (result,) = self._instance(model).run([item])
            outcome = "served"
        finally:
            self._count(model, waiting=+1, busy=-1, **{outcome: +1})
        return result

    def _instance(self, model: Model[In, Out]) -> LoadedModel[In, Out]:
        if model not in self._loaded:
            instance = model.load(CPU)
            with self._lock:
                self._loaded[model] = instance
            self._count(model, loads=+1)
        return cast("LoadedModel[In, Out]", self._loaded[model])

    def _count(self, model: Model[Any, Any], **changes: int) -> None:
        with self._lock:
            for name, change in changes.items():
                self._counts[model.key, name] += change
