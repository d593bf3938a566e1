"""The thread of one instance: it loads the model, runs its batches, and frees it."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from talkgen import telemetry
from talkgen.errors import OutOfMemory
from talkgen.scheduling.devices import inference
from talkgen.scheduling.faults import Done, Failure, Fault, let_go

if TYPE_CHECKING:
    from collections.abc import Sequence

    from talkgen.protocols import LoadedModel, Model
    from talkgen.scheduling.devices import Device
    from talkgen.scheduling.faults import Outcome
    from talkgen.scheduling.records import Instance

__all__ = ["Reports", "Worker", "perform"]

logger = logging.getLogger("talkgen.scheduling")


class Reports(Protocol):
    """Whom a worker tells, from its thread."""

    def loaded(self, instance: Instance) -> None:
        """The model is ready."""

    def load_failed(self, instance: Instance, failure: Failure) -> None:
        """It could not be loaded; nothing of it is left."""

    def finished(self, instance: Instance, outcomes: list[Outcome]) -> None:
        """A batch has ended."""

    def unloaded(self, instance: Instance) -> None:
        """The model's memory is free again."""


class _Batch(NamedTuple):
    """What a worker is given to do."""

    items: Sequence[Any]
    level: int
    callers: Sequence[Any]


class Worker:
    """A plain thread that owns a loaded model, from its loading to its end."""

    def __init__(
        self, instance: Instance, device: Device, reserved: int, reports: Reports, caller: Any
    ) -> None:
        """Make the thread.

        Args:
            instance: What to load.
            device: Where.
            reserved: Bytes that all models on the device have reserved, this one among them.
            reports: Whom to tell.
            caller: Where the call that needs it is among the spans.
        """
        self._instance = instance
        self._model: Model[Any, Any] = instance.record.model
        self._device = device
        self._reserved = reserved
        self._reports = reports
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        # A daemon, so that a program that forgets to close a pipeline still ends.
        name = f"talkgen {self._model.key} on {device.name}"
        self._thread = threading.Thread(target=self._work, args=(caller,), name=name, daemon=True)

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def run(self, items: Sequence[Any], level: int, callers: Sequence[Any]) -> None:
        """Run a batch; `finished` tells its outcomes.

        Args:
            items: One for each call.
            level: At what size.
            callers: Where each call is among the spans.
        """
        self._batches.put(_Batch(items, level, callers))

    def unload(self) -> None:
        """Free the model; `unloaded` tells when that is done."""
        self._batches.put(None)

    def is_alive(self) -> bool:
        """The thread has not ended."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for the thread's end."""
        self._thread.join()

    def _work(self, caller: Any) -> None:
        try:
            with telemetry.loading(caller, self._model.key, self._device.name):
                loaded = self._load()
        except BaseException as error:  # noqa: BLE001 - handed over to the waiters, whole
            failure = Failure.of(error)
            let_go(error)
            self._free_cache()
            self._reports.load_failed(self._instance, failure)
            return
        self._reports.loaded(self._instance)
        with inference():
            self._serve(loaded)
        try:
            loaded.close()
        except Exception:
            logger.exception("%s could not be closed", self._model.key)
        del loaded
        self._free_cache()
        self._reports.unloaded(self._instance)

    def _load(self) -> LoadedModel[Any, Any]:
        budget = self._device.budget()
        if budget is not None and self._reserved > budget:
            raise OutOfMemory(
                f"There is no room for {self._model.key} on {self._device.name} now.",
                hint="Somebody else uses the device.",
            )
        return self._model.load(self._device.name)

    def _serve(self, loaded: LoadedModel[Any, Any]) -> None:
        while (batch := self._batches.get()) is not None:
            outcomes = self._perform(loaded, batch)
            self._clear_up(outcomes)
            # The next get() must not keep pictures alive.
            del batch
            self._reports.finished(self._instance, outcomes)
            del outcomes
        del loaded  # an error keeps this frame, too: it called those that the error came through

    def _perform(self, loaded: LoadedModel[Any, Any], batch: _Batch) -> list[Outcome]:
        key, device = self._model.key, self._device.name
        with telemetry.batch(batch.callers, key, device, batch.level) as span:
            outcomes = perform(loaded, batch.items, batch.level)
            for outcome in outcomes:
                if isinstance(outcome, Failure):
                    span.failed(outcome.error)
        return outcomes

    def _clear_up(self, outcomes: Sequence[Outcome]) -> None:
        """Free what failures have left on the device, before anybody tries again."""
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        for failure in failures:
            let_go(failure.error)
        if any(failure.fault is Fault.MEMORY for failure in failures):
            self._free_cache()

    def _free_cache(self) -> None:
        try:
            self._device.free_cache()
        except Exception:  # a device that has failed fails here, too
            logger.debug("%s: its cache could not be freed", self._device.name, exc_info=True)


def perform(loaded: LoadedModel[Any, Any], items: Sequence[Any], level: int) -> list[Outcome]:
    """Run a batch; an error that is one item's own is found by running each alone."""
    try:
        results = loaded.run(items, level=level)
    except BaseException as error:  # noqa: BLE001 - handed over to the waiters, whole
        failure = Failure.of(error)
    else:
        if len(results) == len(items):
            return [Done(result) for result in results]
        message = f"the model gave {len(results)} results for {len(items)} items"
        failure = Failure(RuntimeError(message), Fault.ITEM)
    if failure.fault is not Fault.ITEM or len(items) == 1:
        return [failure] * len(items)
    return [outcome for item in items for outcome in perform(loaded, [item], level)]
