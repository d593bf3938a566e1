"""One attempt of one task: the owner of its files, its journal entry and its events."""

from __future__ import annotations

import logging
from itertools import takewhile
from time import monotonic
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from talkgen import events, notebook, telemetry
from talkgen.checkpoints import UPLOAD, DraftFiles, collected, restored
from talkgen.context import Context, WatchedOperations
from talkgen.decisions import Answer, answer, as_talkgen_error, paid_for, space_needed, unsettled
from talkgen.draft import Draft, Result, TaskState
from talkgen.errors import FileMissing, RunCancelled, Severity, TalkgenError, TaskConflict
from talkgen.jobs import decoded, digests
from talkgen.protocols import TaskSpec
from talkgen.scheduling.watched import Watched
from talkgen.shares import FIRST, LAST, spans
from talkgen.steps import check_inputs, stage_keys, step

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator
    from types import TracebackType

    from talkgen._types import JSON
    from talkgen.cache import ResultCache
    from talkgen.choice import Shortfall
    from talkgen.jobs import Job
    from talkgen.progress import History, Subscription
    from talkgen.protocols import (
        Backends,
        Checkpoint,
        GPUScheduler,
        Journal,
        Operation,
        Stage,
        Storage,
        TaskJournal,
        TaskRecord,
        Transaction,
    )
    from talkgen.settings import Settings
    from talkgen.shares import Span

__all__ = ["Run", "Workshop"]

logger = logging.getLogger("talkgen.pipeline")

OUTCOMES: dict[str, telemetry.Outcome] = {
    "complete": "completed",
    "error": "failed",
    "deferred": "deferred",
    "cancelled": "cancelled",
}
# Seconds until a run repeats its last word. It is looked at once a second: the promise is 5.
SILENCE = 3.5


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
    previews: bool
    defer: frozenset[str]
    backend_keys: tuple[str, ...]
    subscribe: Callable[[History], Subscription]
    begun: Callable[[History], None]  # the attempt is the task's latest
    ended: Callable[[Run], None]
    alert: Callable[[TalkgenError], None]
    paying: Callable[[], None]  # somebody is about to take an action outside that costs


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
        self._inputs = job.claimed.task.spec.inputs if job.claimed else None
        self._joining: anyio.Event | None = None  # somebody waits to know what it was begun for
        self._workshop = workshop
        self._scope = anyio.CancelScope()
        self._finished = anyio.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._draft: Draft | None = None
        self._stage: str | None = None
        self._stored_before = False
        self._began = monotonic()
        self._timings: dict[str, float] = {}
        self._wanted = 0

    def __repr__(self) -> str:
        last = self.history.latest
        return f"<Run {self.task_id}: {f'{last.progress} % {last.message}' if last else 'new'}>"

    def _ipython_display_(self) -> None:
        """In a notebook: a live bar, and the video at the end."""
        notebook.show(self, self._result or self._error)

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

    def join(self) -> None:
        """One more wants it."""
        self._wanted += 1

    async def agree(self, job: Job) -> None:
        """Return if whoever joins asks for what this run was begun for.

        Raises:
            InvalidInput: What they give cannot be read.
            TaskConflict: They give something else.
        """
        if job is self._job:
            return
        try:
            asked = await digests(await decoded(job, self._workshop.settings))
        except Exception as error:  # noqa: BLE001 - it is raised as one of ours
            known = as_talkgen_error(error, stage=None, task_id=self.task_id)
            raise known from known.__cause__  # not from itself, as it may be
        if self._inputs is None and not self.done:
            self._joining = self._joining or anyio.Event()
            await self._joining.wait()
        if self._inputs not in (None, asked):
            raise TaskConflict(f"Task {self.task_id} was begun with other inputs.")

    def _let_join(self) -> None:
        """What it was begun for is known, or never will be."""
        if self._joining is not None:
            self._joining.set()

    def give_up(self) -> bool:
        """One of those who joined wants it no more; it is cancelled when that was the last."""
        self._wanted -= 1
        if not self._wanted:
            self.cancel()
        return not self._wanted

    async def wait_ended(self) -> None:
        """Wait until it has ended, without its result or error."""
        await self._finished.wait()

    async def _outcome(self) -> Result:
        await self._finished.wait()
        if self._result is not None:
            return self._result
        assert self._error is not None  # noqa: S101 - a run that ended has one of the two
        # Its own traceback: each who awaits it would otherwise add theirs for all others to keep.
        raise self._error.with_traceback(self._traceback)

    # --- the attempt ---------------------------------------------------------------------------

    async def execute(self) -> None:
        """Do the work. Called once, by the pipeline's task group; never raises an `Exception`."""
        names = [stage.name for stage in self._workshop.stages]
        with telemetry.run(self.task_id, names, self._workshop.backend_keys) as span:
            try:
                await self._execute()
            finally:
                span.ended(self.history.attempt, self._outcome_in_a_word, self._error)

    async def _execute(self) -> None:
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
            if self._error is not None:
                self._traceback = self._error.__traceback__
            self._let_join()
            self._finished.set()
            self._workshop.ended(self)

    @property
    def _outcome_in_a_word(self) -> telemetry.Outcome:
        """How it ended, once it has."""
        last = self.history.latest
        assert last is not None  # noqa: S101 - the terminal event
        return "stored" if self._stored_before else OUTCOMES[last.event_type]

    def keep_alive(self) -> None:
        """Repeat the last word when there has been none for a while."""
        last = self.history.latest
        if last is None or self.history.ended:
            return
        if (self.history.clock() - last.timestamp).total_seconds() >= SILENCE:
            self.history.publish(events.ProgressUpdate, last.stage, last.progress, last.message)

    async def _attempt(self) -> None:
        try:
            journal = self._job.claimed or await self._begun()
            self._workshop.begun(self.history)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's alone
            self._fail(as_talkgen_error(error, stage=None, task_id=self.task_id))
            return
        if journal is None:
            self._stored_before = True
        else:
            await self._own(journal)

    async def _begun(self) -> TaskJournal | None:
        """The journal of a new attempt; None where the task's stored result was found."""
        journal = self._workshop.journal
        self.history.attempt = _number(await journal.get(self.task_id))
        self._tell("initialized", 0, "Validating the inputs")
        self._draft = await decoded(self._job, self._workshop.settings)
        self._inputs = await digests(self._draft)
        self._let_join()
        stages = await stage_keys(self._workshop.stages)
        spec = TaskSpec(task_id=self.task_id, inputs=self._inputs, stages=stages)
        attempt = await journal.begin(spec)
        while attempt.task.state is TaskState.COMPLETED:
            if await self._stored(attempt.task):
                return None
            await journal.forget(self.task_id)  # its files have expired: it is to be done anew
            attempt = await journal.begin(spec)
        return attempt

    async def _own(self, journal: TaskJournal) -> None:
        """Open the transaction and end it, whatever happens: publish, discard or keep."""
        if self._job.claimed is not None:
            self.history.attempt = journal.task.attempt
            self._tell("initialized", 0, "Going on where the last attempt ended")
        files: Transaction | None = None
        publishing = journal.task.state is TaskState.PUBLISHING
        try:
            # Past the point of no return, nobody can cancel it.
            with anyio.CancelScope(shield=publishing):
                files = await self._opened(journal.task)
                if publishing:
                    await self._roll_forward(files, journal)
                else:
                    draft = await self._work(files, journal)
                    await self._publish(draft, files, journal)
        except Exception as error:  # noqa: BLE001 - the one place that answers errors
            known = as_talkgen_error(error, stage=self._stage, task_id=self.task_id)
            with anyio.CancelScope(shield=True):
                await self._give_up(known, files, journal)
        # A group is what trio makes of several tasks of a stage that are cancelled.
        except (anyio.get_cancelled_exc_class(), BaseExceptionGroup):
            with anyio.CancelScope(shield=True):
                await self._cancelled(files, journal)
            raise

    async def _opened(self, task: TaskRecord) -> Transaction:
        """The transaction of the attempt before, where this one can go on with it; else none."""
        storage = self._workshop.storage
        files = await storage.open(self.task_id)
        if UPLOAD in task.checkpoints or self.task_id not in await storage.staged():
            return files
        await files.discard()
        return await storage.open(self.task_id)

    # --- the stages ----------------------------------------------------------------------------

    async def _work(self, files: Transaction, journal: TaskJournal) -> Draft:
        workshop, kept = self._workshop, DraftFiles(files)
        restored = await self._restore(journal.task, files, kept)
        draft = self._known_draft()
        if restored <= len(workshop.stages):
            await workshop.storage.ensure_free(space_needed(draft.image, draft.speech))
        context = self._context(kept, journal)
        self._tell_shortfalls(context)
        check_inputs(workshop.stages, draft, context)
        if not restored:
            await kept.put_originals(draft)
            await journal.stage_done(UPLOAD, await kept.checkpoint(0, draft))
        self._tell("upload_complete", FIRST, "Inputs validated")
        for number, (stage, span) in enumerate(self._divided(), start=1):
            if number < restored:
                self._tell_restored(stage, span, journal.task.checkpoints[stage.name])
            else:
                ending = await self._run_stage(stage, span, context)
                checkpoint = await kept.checkpoint(number, self._known_draft(), **ending)
                await journal.stage_done(stage.name, checkpoint)
        self._stage = None
        return self._known_draft()

    async def _restore(self, task: TaskRecord, files: Transaction, kept: DraftFiles) -> int:
        """Take up the draft after the last stage that need not be run again.

        Returns:
            How many checkpoints need not be made again: the upload's and one for each stage.
        """
        names = (UPLOAD, *(stage.name for stage in self._workshop.stages))
        done = [task.checkpoints[name] for name in takewhile(task.checkpoints.__contains__, names)]
        while done:
            try:
                self._draft = await kept.restore(self.task_id, done[-1])
            except FileMissing as error:
                logger.warning("task %s: a stage is run again: %s", self.task_id, error)
                done.pop()
            else:
                break
        named = [file for point in done for file in point.files.values()]
        await files.retain([*named, *collected(task.operations.values())])
        return len(done)

    def _known_draft(self) -> Draft:
        if self._draft is None:
            raise FileMissing(
                f"The inputs of task {self.task_id} are gone.",
                hint="Run it again with its inputs and the same task_id.",
            )
        return self._draft

    def _context(self, kept: DraftFiles, journal: TaskJournal) -> Context:
        workshop = self._workshop
        context = Context(
            task_id=self.task_id,
            attempt=journal.task.attempt,
            settings=workshop.settings,
            backends=workshop.backends,
            scheduler=workshop.scheduler,
            files=kept,
            operations=WatchedOperations(journal, workshop.paying),
            history=self.history,
            strict=workshop.strict,
            previews=workshop.previews,
            cache=workshop.cache,
            origin=journal.task.spec.inputs["image"],
        )
        context.scheduler = Watched(workshop.scheduler, context.stepped_down)
        return context

    def _tell_shortfalls(self, context: Context) -> None:
        """Say which full models are missing; a strict run is refused before it begins."""
        for shortfall in self._workshop.shortfalls:
            if self._strict:
                raise shortfall.error()
            context.degraded(f"{shortfall.message} {shortfall.hint}", backend=shortfall.role)

    def _divided(self) -> list[tuple[Stage, Span]]:
        stages = self._workshop.stages
        shares = spans((stage.name, stage.weight) for stage in stages)
        return list(zip(stages, shares, strict=True))

    def _tell_restored(self, stage: Stage, span: Span, checkpoint: Checkpoint) -> None:
        """What the attempt before told of a stage's end."""
        fields, title = checkpoint.fields, _title(stage)
        self._timings[stage.name] = fields["seconds"]
        if left_out := fields.get("left_out"):
            self.history.publish(
                events.Degraded, stage.name, span.start, left_out, {"restored": True}
            )
        step = fields.get("step", f"{stage.name}_restored")
        self.history.publish(
            events.StageUpdate, step, span.end, f"{title} was restored", {"restored": True}
        )

    async def _run_stage(self, stage: Stage, span: Span, context: Context) -> dict[str, JSON]:
        """Run a stage on the draft; how it ended."""
        self._stage, began = stage.name, monotonic()
        context.enter(stage.name, span)
        ending: dict[str, JSON] = {}
        before = self._known_draft()
        try:
            with telemetry.stage(stage.name):
                self._draft = await step(stage, before, context)
        except Exception as error:  # noqa: BLE001 - a stage may raise anything
            ending["left_out"] = await self._go_on_without(stage, error, context)
        else:
            ending["step"] = context.leave()
            if self._workshop.previews and self._draft.portrait is not before.portrait:
                self.history.show(self._draft.portrait)
        ending["seconds"] = self._timings[stage.name] = monotonic() - began
        return ending

    async def _go_on_without(self, stage: Stage, error: Exception, context: Context) -> str:
        """Say what is left out if the run can go on without the stage, else raise the error."""
        known = as_talkgen_error(error, stage=stage.name, task_id=self.task_id)
        optional = getattr(stage, "optional", False)
        paid = unsettled(await self._operations())
        chosen = answer(known, optional=optional, strict=self._strict, defer=(), paid=paid)
        if chosen is not Answer.GO_ON:
            raise known
        message = f"{_title(stage)} failed and was left out: {known}"
        context.degraded(message, error_type=type(known).__name__)
        return message

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
        summary = result.to_dict()
        with anyio.CancelScope(shield=True):
            await journal.finish(TaskState.PUBLISHING, summary)
            await self._published(files, journal, summary)
        self._complete(result)

    async def _published(self, files: Transaction, journal: TaskJournal, summary: JSON) -> None:
        await files.publish(summary)
        try:
            await journal.finish(TaskState.COMPLETED, summary)
        except Exception:
            # Everybody can see the files: the run has succeeded, and recovery will note it.
            logger.exception("task %s is published, but not journaled as completed", self.task_id)

    async def _roll_forward(self, files: Transaction, journal: TaskJournal) -> None:
        """Publish what an attempt that died was about to publish."""
        task = journal.task
        for stage, span in self._divided():
            if stage.name in task.checkpoints:
                self._tell_restored(stage, span, task.checkpoints[stage.name])
        self._tell("finalizing", LAST, "Publishing the files")
        storage = self._workshop.storage
        if self.task_id not in await storage.staged() and not await self._is_published():
            raise FileMissing(f"What task {self.task_id} was about to publish is gone.")
        await self._published(files, journal, task.summary)
        if not await self._stored(task):
            raise FileMissing(f"What task {self.task_id} has published is gone again.")

    async def _is_published(self) -> bool:
        return bool([info async for info in self._workshop.storage.list(task_id=self.task_id)])

    async def _stored(self, task: TaskRecord) -> bool:
        """Take the result of a completed task from the storage; False if it is not there."""
        storage, summary = self._workshop.storage, task.summary
        if not await self._is_published() or not task.checkpoints:
            return False
        last = list(task.checkpoints.values())[-1]
        draft = await restored(self.task_id, last, storage.get, partly=True)
        if draft.video is not None:
            names = {info.file.name async for info in storage.list("videos", self.task_id)}
            if draft.video.file.name not in names:
                return False
            draft = attrs.evolve(draft, video=attrs.evolve(draft.video, reader=storage))
        self._complete(
            Result(
                task_id=self.task_id,
                status=TaskState.COMPLETED,
                draft=draft,
                execution_time_ms=summary["execution_time_ms"],
                stages_completed=tuple(summary["stages_completed"]),
                timings=summary["timings"],
                metadata=summary["metadata"],
            )
        )
        return True

    async def _give_up(
        self, error: TalkgenError, files: Transaction | None, journal: TaskJournal
    ) -> None:
        paid = await self._paid_for()
        defer = self._workshop.defer
        chosen = answer(error, optional=False, strict=self._strict, defer=defer, paid=paid)
        if chosen is Answer.DEFER:
            await _close(files)
            await journal.finish(TaskState.DEFERRED, _facts(error))
            self._defer(error)
        else:
            await self._discard(files)
            await journal.finish(TaskState.FAILED, _facts(error))
            self._fail(error)

    async def _cancelled(self, files: Transaction | None, journal: TaskJournal) -> None:
        paid = await self._paid_for()
        try:
            await (_close(files) if paid else self._discard(files))
        finally:  # what the disk refuses is left to recovery, which would go on with an open task
            await journal.finish(TaskState.DEFERRED if paid else TaskState.CANCELLED, None)
        self._error = RunCancelled(
            f"Task {self.task_id} was cancelled.",
            hint="Something is paid for: await pipeline.recover() collects it." if paid else None,
        )
        self.history.publish(events.Cancelled, "cancelled", 0, "Cancelled", recoverable=paid)

    async def _discard(self, files: Transaction | None) -> None:
        """Leave nothing, not even of an attempt before; it may not have come to opening it."""
        await (files or await self._workshop.storage.open(self.task_id)).discard()

    async def _paid_for(self) -> bool:
        return paid_for(await self._operations())

    async def _operations(self) -> Collection[Operation]:
        record = await self._workshop.journal.get(self.task_id)
        return () if record is None else record.operations.values()

    def _defer(self, error: TalkgenError) -> None:
        logger.warning("task %s is deferred: %s", self.task_id, error)
        if error.severity is Severity.RESOURCE:
            self._workshop.alert(error)
        if self._draft is None:
            self._error = error
        else:
            self._result = self._made(self._draft, TaskState.DEFERRED)
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

    def _complete(self, result: Result) -> None:
        self._result = result
        self.history.publish(
            events.Complete,
            "completed",
            100,
            "Completed",
            video_url=result.video_url,
            execution_time_ms=result.execution_time_ms,
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


def _number(task: TaskRecord | None) -> int:
    """The number that the next attempt will have; a completed task keeps its own."""
    if task is None:
        return 1
    return task.attempt + (task.state is not TaskState.COMPLETED)


def _title(stage: Stage) -> str:
    return stage.name.replace("_", " ").capitalize()


async def _close(files: Transaction | None) -> None:
    if files is not None:
        await files.close()


def _facts(error: TalkgenError) -> dict[str, JSON]:
    return {
        "error": str(error),
        "error_type": type(error).__name__,
        "severity": error.severity.value,
        "stage": error.stage,
        "hint": error.hint,
    }
