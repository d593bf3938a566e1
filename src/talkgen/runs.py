"""One attempt of one task: the owner of its files, its journal entry and its events."""

from __future__ import annotations

import logging
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import attrs

from talkgen import events
from talkgen.decisions import Answer, answer, as_talkgen_error, paid_open, space_needed
from talkgen.draft import Box, Draft, Result, TaskState
from talkgen.errors import Degraded, RunCancelled, TalkgenError
from talkgen.media import Image, Speech, Text
from talkgen.progress import FIRST, LAST, Span, spans
from talkgen.protocols import TaskSpec
from talkgen.scheduling.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence

    from talkgen._types import JSON
    from talkgen.cache import ResultCache
    from talkgen.choice import Shortfall
    from talkgen.progress import History, Subscription
    from talkgen.protocols import (
        Backends,
        Codec,
        Degradation,
        GPUScheduler,
        Journal,
        Operations,
        Stage,
        StagedFiles,
        Storage,
        TaskJournal,
        Transaction,
    )
    from talkgen.settings import Settings

__all__ = ["Job", "Run", "Workshop"]

logger = logging.getLogger("talkgen.pipeline")

T = TypeVar("T")

THINNING = 1.0  # seconds: reports of the same per cent are passed on this often
SILENCE = 4.0  # seconds after which a working run repeats its last word; the promise is 5


@attrs.frozen
class Workshop:
    """What all runs of an open pipeline share."""

    settings: Settings
    stages: tuple[Stage, ...]
    backends: Backends
    shortfalls: tuple[Shortfall, ...]
    scheduler: GPUScheduler
    storage: Storage
    journal: Journal
    cache: ResultCache | None
    strict: bool
    defer: frozenset[str]
    subscribe: Callable[[History], Subscription]
    ended: Callable[[Run], None]


@attrs.frozen
class Job:
    """What a caller asked for, not decoded yet."""

    task_id: str
    image: Any
    speech: Any = None


@attrs.define(eq=False)
class Context:
    """What a stage may touch."""

    task_id: str
    attempt: int
    settings: Settings
    backends: Backends
    scheduler: GPUScheduler
    files: StagedFiles
    operations: Operations
    _history: History
    _strict: bool
    _name: str = "initialized"
    _span: Span = attrs.field(factory=partial(Span, 0, 0))
    _cache: ResultCache | None = None
    _origin: str = ""
    _degradations: int = 0
    _reported: tuple[str, int, float] = ("", -1, 0.0)

    def enter(self, name: str, span: Span) -> None:
        """From now on the reports are this stage's."""
        self._name, self._span = name, span
        if span.announced:
            self.report(0.0, f"{name.replace('_', ' ').capitalize()} is running.")

    def leave(self) -> None:
        """The stage has ended; say so if it did not."""
        if self._span.announced and self._reported[0] != f"{self._name}_complete":
            message = f"{self._name.replace('_', ' ').capitalize()} is complete."
            self.report(1.0, message, stage=f"{self._name}_complete")

    def report(
        self, fraction: float, message: str, *, stage: str | None = None, **metadata: JSON
    ) -> None:
        """Tell how far the stage is."""
        stage = stage or f"{self._name}_running"
        progress = int(self._span.at(fraction))
        before, reached, when = self._reported
        now = monotonic()
        if stage == before and progress <= reached and now - when < THINNING:
            return
        self._reported = (stage, max(progress, reached), now)
        kind = events.ProgressUpdate if stage == before else events.StageUpdate
        self._history.publish(kind, stage, progress, message, metadata)

    def degraded(self, message: str, **metadata: JSON) -> None:
        """Tell that the result will be less than asked for."""
        if self._strict:
            raise Degraded(message)
        self._degradations += 1
        self._tell_degraded(message, metadata)

    def stepped_down(self, step: Degradation) -> None:
        """Tell what the scheduler gave up. Strict refuses what is less, not what is slower."""
        if step.action in ("evicted", "split"):
            logger.debug("task %s: %s: %s", self.task_id, step.reason, step.action)
            return
        facts = {"action": step.action, "level": step.level, "device": step.device}
        if step.action == "device":
            self._tell_degraded(f"{step.reason}: going on on {step.device}, more slowly.", facts)
        else:
            self.degraded(
                f"{step.reason}: going on at a smaller size (level {step.level}).", **facts
            )

    def _tell_degraded(self, message: str, metadata: Mapping[str, JSON]) -> None:
        logger.warning("task %s: %s", self.task_id, message)
        progress = self._span.at(0.0)
        self._history.publish(events.Degraded, self._name, progress, message, metadata)

    def preview(self, image: Image) -> None:
        """Show a picture of the work so far."""
        self._history.show(image)

    async def remember(self, key: str, make: Callable[[], Awaitable[T]], codec: Codec[T]) -> T:
        """What `make` gave an earlier task with the same photo and key, or gives now."""
        if self._cache is None:
            return await make()
        before = self._degradations
        return await self._cache.remember(
            self._origin, key, make, codec, worth_keeping=lambda: self._degradations == before
        )


class Run:
    """A task under way. Iterate over it for its events, await it for its result.

    Both as often as wanted, by anybody in the same event loop. Leaving the iteration does not
    cancel the run, nor does cancelling somebody who awaits it.

    Attributes:
        task_id: The task.
        history: Its events so far.
    """

    def __init__(self, job: Job, workshop: Workshop, history: History) -> None:
        """Made by `Pipeline.start`."""
        self.task_id = job.task_id
        self.history = history
        self._job = job
        self._workshop = workshop
        self._scope = anyio.CancelScope()
        self._finished = anyio.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._stage: str | None = None
        self._began = monotonic()
        self._timings: dict[str, float] = {}

    def __repr__(self) -> str:
        last = self.history.latest
        return f"<Run {self.task_id}: {f'{last.progress} % {last.message}' if last else 'new'}>"

    def __aiter__(self) -> Subscription:
        return self._workshop.subscribe(self.history)

    def __await__(self) -> Generator[Any, Any, Result]:
        return self._outcome().__await__()

    @property
    def done(self) -> bool:
        """It has ended, one way or another."""
        return self._finished.is_set()

    def cancel(self) -> None:
        """Ask it to stop; whoever awaits it gets `RunCancelled`."""
        self._scope.cancel()

    async def wait_ended(self) -> None:
        """Wait until it has ended, without its result or error."""
        await self._finished.wait()

    async def _outcome(self) -> Result:
        await self._finished.wait()
        if self._result is not None:
            return self._result
        assert self._error is not None  # noqa: S101 - a run that ended has one of the two
        raise self._error

    # --- the attempt ---------------------------------------------------------------------------

    async def execute(self) -> None:
        """Do the work. Called once, by the pipeline's task group; never raises an `Exception`."""
        try:
            with self._scope:
                await self._attempt()
        except Exception as error:
            logger.exception("task %s: its files or its journal could not be ended", self.task_id)
            self._fail(as_talkgen_error(error, stage=self._stage, task_id=self.task_id))
        finally:
            if self._result is None and self._error is None:
                self._error = RunCancelled(f"Task {self.task_id} was cancelled.")
                self.history.publish(events.Cancelled, "cancelled", 0, "Cancelled")
            self._finished.set()
            self._workshop.ended(self)

    def keep_alive(self) -> None:
        """Repeat the last word when there has been none for a while."""
        last = self.history.latest
        if last is None or self.history.ended:
            return
        if (self.history.clock() - last.timestamp).total_seconds() >= SILENCE:
            self.history.publish(events.ProgressUpdate, last.stage, last.progress, last.message)

    async def _attempt(self) -> None:
        self._tell("initialized", 0, "Validating the inputs")
        try:
            draft = await self._decode()
            spec = await anyio.to_thread.run_sync(self._spec, draft)
            journal = await self._workshop.journal.begin(spec)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's alone
            self._fail(as_talkgen_error(error, stage=None, task_id=self.task_id))
            return
        await self._own(draft, journal)

    async def _decode(self) -> Draft:
        settings, job = self._workshop.settings, self._job
        image = await anyio.to_thread.run_sync(partial(_open_image, job.image, settings))
        speech = await anyio.to_thread.run_sync(partial(_open_speech, job.speech, settings))
        whole = Box(0, 0, image.width, image.height)
        return Draft(
            task_id=self.task_id, image=image, portrait=image, portrait_box=whole, speech=speech
        )

    def _spec(self, draft: Draft) -> TaskSpec:
        inputs = {"image": draft.image.digest}
        if draft.speech is not None:
            inputs["speech"] = draft.speech.digest
        keys = tuple(stage.key for stage in self._workshop.stages)
        return TaskSpec(task_id=self.task_id, inputs=inputs, stages=keys)

    async def _own(self, draft: Draft, journal: TaskJournal) -> None:
        """Open the transaction and end it, whatever happens: publish, discard or keep."""
        files: Transaction | None = None
        try:
            await self._workshop.storage.ensure_free(space_needed(draft.image, draft.speech))
            files = await self._opened()
            draft = await self._work(draft, files, journal)
            await self._publish(draft, files, journal)
        except Exception as error:  # noqa: BLE001 - the one place that answers errors
            known = as_talkgen_error(error, stage=self._stage, task_id=self.task_id)
            with anyio.CancelScope(shield=True):
                await self._give_up(known, draft, files, journal)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._cancelled(files, journal)
            raise

    async def _opened(self) -> Transaction:
        """A transaction without what an attempt that died has left."""
        storage = self._workshop.storage
        if self.task_id in await storage.staged():
            await (await storage.open(self.task_id)).discard()
        return await storage.open(self.task_id)

    async def _work(self, draft: Draft, files: Transaction, journal: TaskJournal) -> Draft:
        workshop = self._workshop
        context = Context(
            task_id=self.task_id,
            attempt=journal.task.attempt,
            settings=workshop.settings,
            backends=workshop.backends,
            scheduler=workshop.scheduler,
            files=files,
            operations=journal,
            history=self.history,
            strict=workshop.strict,
            cache=workshop.cache,
            origin=draft.image.digest,
        )
        context.scheduler = Watched(workshop.scheduler, context.stepped_down)
        self._tell_shortfalls(context)
        _check(workshop.stages, draft, context)
        await _keep_originals(draft, files)
        self._tell("upload_complete", FIRST, "Inputs validated")
        shares = spans((stage.name, stage.weight) for stage in workshop.stages)
        for stage, span in zip(workshop.stages, shares, strict=True):
            draft = await self._stage_run(stage, span, draft, context)
        self._stage = None
        return draft

    def _tell_shortfalls(self, context: Context) -> None:
        """Say which full models are missing; a strict run is refused before it begins."""
        for shortfall in self._workshop.shortfalls:
            if self._strict:
                raise shortfall.error()
            context.degraded(f"{shortfall.message} {shortfall.hint}", backend=shortfall.role)

    async def _stage_run(self, stage: Stage, span: Span, draft: Draft, context: Context) -> Draft:
        self._stage, began = stage.name, monotonic()
        context.enter(stage.name, span)
        try:
            draft = await stage.run(draft, context)
        except Exception as error:  # noqa: BLE001 - a stage may raise anything
            self._go_on_without(stage, error, context)
        else:
            context.leave()
        self._timings[stage.name] = monotonic() - began
        return draft

    def _go_on_without(self, stage: Stage, error: Exception, context: Context) -> None:
        """Return if the run can go on without the stage, else raise the error."""
        known = as_talkgen_error(error, stage=stage.name, task_id=self.task_id)
        optional = getattr(stage, "optional", False)
        chosen = answer(known, optional=optional, strict=self._strict, defer=(), paid=False)
        if chosen is not Answer.GO_ON:
            raise known
        context.degraded(
            f"{stage.name.replace('_', ' ').capitalize()} failed and was left out: {known}",
            error_type=type(known).__name__,
        )

    @property
    def _strict(self) -> bool:
        return self._workshop.strict

    # --- the endings ---------------------------------------------------------------------------

    async def _publish(self, draft: Draft, files: Transaction, journal: TaskJournal) -> None:
        self._tell("finalizing", LAST, "Publishing the files")
        if draft.video is not None:
            video = attrs.evolve(draft.video, reader=self._workshop.storage)
            draft = attrs.evolve(draft, video=video)
        result = self._made(draft, TaskState.COMPLETED)
        with anyio.CancelScope(shield=True):
            summary = result.to_dict()
            await journal.finish(TaskState.PUBLISHING, summary)
            await files.publish(summary)
            await journal.finish(TaskState.COMPLETED, summary)
        self._result = result
        self.history.publish(
            events.Complete,
            "completed",
            100,
            "Completed",
            video_url=result.video_url,
            execution_time_ms=result.execution_time_ms,
        )

    async def _give_up(
        self, error: TalkgenError, draft: Draft, files: Transaction | None, journal: TaskJournal
    ) -> None:
        paid = await self._paid_open()
        defer = self._workshop.defer
        chosen = answer(error, optional=False, strict=self._strict, defer=defer, paid=paid)
        if chosen is Answer.DEFER:
            await _close(files)
            await journal.finish(TaskState.DEFERRED, _facts(error))
            self._defer(error, draft)
        else:
            await _discard(files)
            await journal.finish(TaskState.FAILED, _facts(error))
            self._fail(error)

    async def _cancelled(self, files: Transaction | None, journal: TaskJournal) -> None:
        paid = await self._paid_open()
        await (_close(files) if paid else _discard(files))
        await journal.finish(TaskState.DEFERRED if paid else TaskState.CANCELLED, None)
        self._error = RunCancelled(f"Task {self.task_id} was cancelled.")
        self.history.publish(events.Cancelled, "cancelled", 0, "Cancelled", recoverable=paid)

    async def _paid_open(self) -> bool:
        record = await self._workshop.journal.get(self.task_id)
        return record is not None and paid_open(record.operations.values())

    def _defer(self, error: TalkgenError, draft: Draft) -> None:
        self._result = self._made(draft, TaskState.DEFERRED)
        self.history.publish(
            events.Deferred,
            "deferred",
            0,
            "Deferred; recover() goes on with it",
            error=str(error),
            error_type=type(error).__name__,
            hint=error.hint,
        )

    def _fail(self, error: TalkgenError) -> None:
        self._error = error
        self.history.publish(
            events.Error,
            error.stage or "failed",
            0,
            str(error),
            error=str(error),
            error_type=type(error).__name__,
            severity=error.severity.value,
            hint=error.hint,
        )

    def _made(self, draft: Draft, status: TaskState) -> Result:
        completed = [
            event.stage
            for event in self.history.events
            if isinstance(event, events.StageUpdate) and event.stage.endswith("_complete")
        ]
        if status is TaskState.COMPLETED:
            completed.append("completed")
        return Result(
            task_id=self.task_id,
            status=status,
            draft=draft,
            execution_time_ms=int((monotonic() - self._began) * 1000),
            stages_completed=tuple(completed),
            timings=dict(self._timings),
            metadata=draft.metadata,
        )

    def _tell(self, stage: str, progress: float, message: str) -> None:
        self.history.publish(events.StageUpdate, stage, progress, message)


def _open_image(source: Any, settings: Settings) -> Image:
    return Image.open(
        source, max_pixels=settings.max_image_pixels, max_bytes=settings.max_image_bytes
    )


def _open_speech(source: Any, settings: Settings) -> Speech | Text | None:
    if source is None or isinstance(source, Text):
        return source
    return Speech.open(
        source, max_seconds=settings.max_audio_seconds, max_bytes=settings.max_audio_bytes
    )


def _check(stages: Sequence[Stage], draft: Draft, context: Context) -> None:
    """Let stages that have a `check` refuse before any of them works."""
    for stage in stages:
        if (check := getattr(stage, "check", None)) is not None:
            check(draft, context)


async def _keep_originals(draft: Draft, files: Transaction) -> None:
    for name, original in (("original", draft.image), ("audio", draft.speech)):
        if isinstance(original, (Image, Speech)):
            file = await anyio.to_thread.run_sync(original.original)
            await files.put("uploads", f"{name}.{file.type}", file.data)


async def _close(files: Transaction | None) -> None:
    if files is not None:
        await files.close()


async def _discard(files: Transaction | None) -> None:
    if files is not None:
        await files.discard()


def _facts(error: TalkgenError) -> dict[str, JSON]:
    return {
        "error": str(error),
        "error_type": type(error).__name__,
        "severity": error.severity.value,
        "stage": error.stage,
        "hint": error.hint,
    }
