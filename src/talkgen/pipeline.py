"""The pipeline: assembled stages, opened around any number of runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

import anyio
import anyio.to_thread
import attrs

from talkgen import observed, telemetry
from talkgen.cache import ResultCache
from talkgen.choice import choose_backends
from talkgen.decisions import check_order, wants_speech
from talkgen.defaults import (
    default_cache,
    default_journal,
    default_stages,
    default_storage,
    shared_scheduler,
)
from talkgen.draft import TaskState
from talkgen.errors import TalkgenError, TaskNotFound
from talkgen.jobs import Job
from talkgen.journal import SQLiteJournal
from talkgen.journal.attempts import busy
from talkgen.progress import ProgressTracker
from talkgen.recovery import recover
from talkgen.runs import Run, Workshop
from talkgen.scheduling.stats import utilization
from talkgen.settings import Settings
from talkgen.storage.names import check_task_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from anyio.abc import TaskGroup
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from talkgen._types import JSON
    from talkgen.choice import Choice
    from talkgen.draft import Result
    from talkgen.events import Event
    from talkgen.protocols import (
        Backends,
        GPUScheduler,
        Journal,
        Stage,
        Storage,
        TaskJournal,
    )
    from talkgen.recovery import Recovery

__all__ = ["Pipeline"]

logger = logging.getLogger("talkgen.pipeline")

K = TypeVar("K")

CLEANUP_INTERVAL = timedelta(minutes=60)
TICK = 1.0  # seconds between two looks at the runs that are silent


@asynccontextmanager
async def _tasks() -> AsyncIterator[TaskGroup]:
    """A task group of tasks that never raise, so that an error is the body's and stays bare."""
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        error = group.exceptions[0]
    else:
        return
    raise error


@attrs.define(eq=False)
class _Session:
    """One opening of a pipeline."""

    workshop: Workshop
    tracker: ProgressTracker
    tasks: TaskGroup
    runs: dict[str, Run]

    @property
    def closing(self) -> bool:
        """Nothing can be started in it any more."""
        return self.tasks.cancel_scope.cancel_called

    def start(self, job: Job) -> Run:
        """The run of the task that is under way, or a new one."""
        run = self.runs.get(job.task_id) or self._executed(job)
        run.join()
        return run

    def resume(self, claimed: TaskJournal) -> Run:
        """A run of a task that recovery has claimed."""
        run = self._executed(Job(task_id=claimed.task.spec.task_id, claimed=claimed))
        run.join()
        return run

    def _executed(self, job: Job) -> Run:
        run = Run(job, self.workshop, self.tracker.begin(job.task_id))
        self.runs[job.task_id] = run
        self.tasks.start_soon(run.execute, name=f"talkgen run {job.task_id}")
        return run


class Pipeline:
    """Stages, and what they need, assembled once and used for any number of runs.

    `await pipeline.run(...)` works at once and closes everything again; inside
    `async with Pipeline() as pipeline:` models stay warm, and `start` gives runs to watch.
    It reads no environment, downloads nothing and uses nobody's service unless told to.
    """

    def __init__(
        self,
        stages: Sequence[Stage] | None = None,
        *,
        settings: Settings | None = None,
        scheduler: GPUScheduler | None = None,
        storage: Storage | None = None,
        journal: Journal | None = None,
        tracker: ProgressTracker | None = None,
        strict: bool = False,
        previews: bool = False,
        defer: Sequence[str] = ("external",),
        on_alert: Callable[[TalkgenError], object] | None = None,
        cleanup_interval: timedelta = CLEANUP_INTERVAL,
    ) -> None:
        """Assemble a pipeline; nothing is loaded or opened yet.

        Args:
            stages: In order; by default detection, background removal and the video.
            settings: By default all defaults; `Settings.from_env()` reads the environment.
            scheduler: By default the process's own, shared among pipelines.
            storage: By default `settings.storage_root`, else a temporary folder that lives as
                long as the pipeline and the videos from it.
            journal: By default beside the storage where that is a folder that stays, else in
                memory.
            tracker: By default its own.
            strict: Fail rather than go on with less than was asked for.
            previews: Tell `Preview` events, too: each portrait that a stage has made, and a few
                frames a second of a video while it is rendered. They cost nothing while nobody
                listens, and some milliseconds of a thread each while somebody does.
            defer: What is waited out instead of failing: `external`, an outside service that is
                down; `resource`, memory or disk that is full.
            on_alert: Called, in the event loop, with the error of each run that was deferred
                because memory or disk was full: somebody should make room.
            cleanup_interval: How often expired files are deleted while the pipeline is open.

        Raises:
            ValueError: The stages cannot follow each other, or `defer` has another word.
            TypeError: A stage is a class, or the storage a path.
        """
        self._settings = settings or Settings()
        self._stages = tuple(default_stages(self._settings) if stages is None else stages)
        check_order(self._stages)
        if not {"external", "resource"}.issuperset(defer):
            raise ValueError(f"defer={defer!r}: must be some of ('external', 'resource')")
        if isinstance(storage, str | PathLike):
            raise TypeError(f"storage={storage!r}: must be a storage, like LocalStorage(folder)")
        self._defer = frozenset(defer)
        self._strict = strict
        self._previews = previews
        self._scheduler = scheduler
        # Not by `or`: a storage that has a length is false while it is empty.
        self._storage = default_storage(self._settings) if storage is None else storage
        self._journal = default_journal(self._storage) if journal is None else journal
        self._owned = self._journal if journal is None else None
        self._on_alert = on_alert
        self._cleanup_interval = cleanup_interval
        self._warn_volatile = cache(self._say_volatile)
        self._cache = default_cache(self._settings, self._storage)
        self._tracker = tracker or ProgressTracker(
            retention=timedelta(minutes=self._settings.progress_retention_minutes)
        )
        self._sessions = 0  # each `run` of a pipeline that is not open has one of its own
        self._session: _Session | None = None
        self._opening: AbstractAsyncContextManager[_Session] | None = None
        self._host: asyncio.Task[None] | None = None
        self._closing = anyio.Event()

    @property
    def tracker(self) -> ProgressTracker:
        """What keeps the events of its runs."""
        return self._tracker

    # --- life cycle ----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._opening is not None:
            raise RuntimeError("this pipeline is open already")
        self._opening = self._open_session()
        try:
            self._session = await self._opening.__aenter__()
        except BaseException:
            self._opening = None
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._opening is not None  # noqa: S101 - __aenter__ has set it
        try:
            return await self._opening.__aexit__(kind, error, traceback)
        finally:
            self._session = self._opening = None

    @classmethod
    async def open(cls, stages: Sequence[Stage] | None = None, **options: Any) -> Self:
        """Open a pipeline that no block surrounds: for notebooks, whose cells end. asyncio only.

        `await pipeline.aclose()` closes it. Everywhere else `async with Pipeline()` is better: it
        closes by itself, whatever happens.

        Args:
            stages: As for `Pipeline()`.
            **options: As for `Pipeline()`.

        Raises:
            RuntimeError: The event loop is not asyncio's.
            ValueError: As `Pipeline()`, or the settings' D-ID key is none.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "Pipeline.open() needs asyncio; use 'async with Pipeline() as pipeline: ...'"
            ) from None
        pipeline = cls(stages, **options)
        opened = asyncio.Event()
        # A task of its own: what opens a task group must be the one to close it.
        host = loop.create_task(pipeline._stay_open(opened), name="talkgen pipeline")
        host.add_done_callback(lambda _: opened.set())
        try:
            await opened.wait()
        except asyncio.CancelledError:
            host.cancel()
            raise
        if host.done():
            await host  # it could not be opened
        pipeline._host = host
        return pipeline

    async def _stay_open(self, opened: asyncio.Event) -> None:
        async with self:
            opened.set()
            await self._closing.wait()

    async def aclose(self) -> None:
        """Close a pipeline that `open` opened, after its runs have ended."""
        self._closing.set()
        if self._host is not None:
            await self._host

    @asynccontextmanager
    async def _open_session(self) -> AsyncIterator[_Session]:
        runs: dict[str, Run] = {}
        self._sessions += 1
        try:
            async with _tasks() as tasks:
                choice = await anyio.to_thread.run_sync(choose_backends, self._settings)
                scheduler = self._scheduler or shared_scheduler.get()
                keys = await anyio.to_thread.run_sync(self._backend_keys, choice)
                workshop = self._workshop(scheduler, runs, choice, keys)
                tasks.start_soon(_keep_alive, runs)
                tasks.start_soon(_clean_up, self._storage, self._cleanup_interval)
                with observed.shown(scheduler, self._storage) as gauges:
                    if telemetry.load():
                        tasks.start_soon(gauges.keep_counting)
                    yield _Session(workshop, self._tracker, tasks, runs)
                    while runs:  # some are perhaps started while others are waited for
                        await next(iter(runs.values())).wait_ended()
                tasks.cancel_scope.cancel()
        finally:
            self._sessions -= 1
            if not self._sessions and isinstance(self._owned, SQLiteJournal):
                with anyio.CancelScope(shield=True):
                    await self._owned.aclose()

    def _backend_keys(self, choice: Choice) -> tuple[str, ...]:
        """For the spans; none where there are none. In a thread: it imports, and may read files."""
        return observed.backend_keys(self._stages, choice.backends) if telemetry.load() else ()

    def _workshop(
        self,
        scheduler: GPUScheduler,
        runs: dict[str, Run],
        choice: Choice,
        keys: tuple[str, ...],
    ) -> Workshop:
        def ended(run: Run) -> None:
            if runs.get(run.task_id) is run:
                del runs[run.task_id]
            self._tracker.end(run.history)

        return Workshop(
            settings=self._settings,
            stages=tuple(_bound(stage, choice.backends) for stage in self._stages),
            backends=choice.backends,
            shortfalls=choice.shortfalls_of(self._stages),
            scheduler=scheduler,
            storage=self._storage,
            journal=self._journal,
            cache=self._cache,
            strict=self._strict,
            previews=self._previews,
            defer=self._defer,
            backend_keys=keys,
            subscribe=self._tracker.read,
            begun=self._tracker.take_over,
            ended=ended,
            alert=self._alert,
            paying=self._warn_volatile,
        )

    def _alert(self, error: TalkgenError) -> None:
        if self._on_alert is not None:
            try:
                self._on_alert(error)
            except Exception:
                logger.exception("on_alert failed for task %s", error.task_id)

    def _say_volatile(self) -> None:
        if not (self._storage.durable and self._journal.durable):
            logger.warning(
                "Something is about to be paid for, and would be lost with this process: use "
                "LocalStorage(folder), or a durable storage with journal=SQLiteJournal(file)."
            )

    # --- runs ----------------------------------------------------------------------------------

    def start(self, image: Any, speech: Any = None, *, task_id: str | None = None) -> Run:
        """Start a run, in an open pipeline.

        Args:
            image: An `Image`, or whatever `Image.open` takes.
            speech: A `Speech` or `Text`, or whatever `Speech.open` takes; None where no stage
                requires speech.
            task_id: Names the task; by default a new UUID. A task that runs here is joined,
                without a look at the inputs; `run` looks.

        Raises:
            RuntimeError: The pipeline is not open.
            TypeError: A stage requires speech and there is none.
            talkgen.errors.InvalidName: The task id could not be part of a file's name.
        """
        if (session := self._open_for_more) is None:
            raise RuntimeError(
                "start() needs an open pipeline: 'async with Pipeline() as pipeline: ...', "
                "or use 'await pipeline.run(...)', which opens and closes by itself"
            )
        return session.start(self._job(image, speech, task_id))

    async def run(self, image: Any, speech: Any = None, *, task_id: str | None = None) -> Result:
        """Run to the end. Takes what `start` takes; cancelling it cancels the run.

        Where several have joined one run, it is cancelled with the last of them; what `start`
        has started is cancelled by `Run.cancel`.

        Raises:
            TalkgenError: The run failed, or what runs under this id has other inputs.
            TypeError: A stage requires speech and there is none.
        """
        job = self._job(image, speech, task_id)
        async with self._opened() as session:
            return await self._run(session, job)

    async def _run(self, session: _Session, job: Job) -> Result:
        run = session.start(job)
        try:
            await run.agree(job)
            return await run
        except BaseException:
            if run.give_up():
                with anyio.CancelScope(shield=True):
                    await run.wait_ended()
            raise

    def _job(self, image: Any, speech: Any, task_id: str | None) -> Job:
        if speech is None and (stage := wants_speech(self._stages)) is not None:
            raise TypeError(f"stage {stage!r} requires speech: run(image, speech)")
        if task_id is not None:
            check_task_id(task_id)
        return Job(task_id=task_id or str(uuid4()), image=image, speech=speech)

    @asynccontextmanager
    async def map(
        self,
        pairs: Mapping[K, Any] | Iterable[Any],
        *,
        limit: int = 20,
        task_id: Callable[[Any], str] | None = None,
    ) -> AsyncIterator[MemoryObjectReceiveStream[tuple[Any, Result | TalkgenError]]]:
        """Run many, some at a time: `async with pipeline.map(pairs, limit=20) as results:`.

        Args:
            pairs: Each an (image, speech) pair or an image; a mapping's keys are kept, others
                are numbered from 0. Taken only as fast as they are worked on.
            limit: How many at a time, those among them whose result nobody has taken yet.
            task_id: Names the task of a key, as `"batch-1.{}".format` does, so that a second call
                goes on where the first was broken off. By default each is a new task.

        Yields:
            A stream of `(key, result or error)`, as they finish. Leaving the block, or closing the
            stream, cancels the rest.

        Raises:
            TypeError: A stage requires speech and a pair has none.
            ValueError: `limit` is below 1.
        """
        if limit < 1:
            raise ValueError(f"limit={limit}: must be 1 or more")
        items = pairs.items() if isinstance(pairs, Mapping) else enumerate(pairs)
        jobs = ((key, self._pair_job(key, pair, task_id)) for key, pair in items)
        send, receive = anyio.create_memory_object_stream[Any](0)
        with receive:
            async with self._opened() as session, _tasks() as tasks:
                tasks.start_soon(self._feed, session, jobs, send, limit)
                yield receive
                tasks.cancel_scope.cancel()

    async def _feed(
        self,
        session: _Session,
        jobs: Iterable[tuple[Any, Job]],
        send: MemoryObjectSendStream[Any],
        limit: int,
    ) -> None:
        async def one(key: Any, job: Job) -> None:
            try:
                outcome: Any = await self._run(session, job)
            except TalkgenError as error:
                outcome = error
            try:
                await send.send((key, outcome))
            except anyio.BrokenResourceError:  # the stream is closed: nobody wants the rest
                tasks.cancel_scope.cancel()
            room.release()

        room = anyio.Semaphore(limit)
        async with send, _tasks() as tasks:
            for key, job in jobs:
                await room.acquire()
                tasks.start_soon(one, key, job)

    def _pair_job(self, key: Any, pair: Any, task_id: Callable[[Any], str] | None) -> Job:
        parts = pair if isinstance(pair, (tuple, list)) else (pair, None)
        if len(parts) != len(("image", "speech")):
            raise TypeError(f"{key!r} has {len(parts)} parts; give (image, speech) or an image")
        image, speech = parts
        return self._job(image, speech, task_id and task_id(key))

    @property
    def _open_for_more(self) -> _Session | None:
        """What runs can be started in; None where the pipeline is not open, or is closing."""
        return None if self._session is None or self._session.closing else self._session

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[_Session]:
        if (session := self._open_for_more) is not None:
            yield session
        else:
            async with self._open_session() as session:
                yield session

    # --- tasks ---------------------------------------------------------------------------------

    async def recover(self, task_ids: Collection[str] | None = None) -> Recovery:
        """Go on with what was deferred, or broken off when a process died.

        A task is taken up by the stages of its own keys only; its inputs are where they were
        staged. What nobody knows or has failed is discarded. Two who recover at a time never
        take the same task.

        Args:
            task_ids: Only these; by default all.

        Raises:
            RuntimeError: The pipeline is not open.
            TypeError: `task_ids` is one id rather than some.
        """
        if isinstance(task_ids, str):
            raise TypeError(f"task_ids={task_ids!r}: must be some ids, like [{task_ids!r}]")
        if (session := self._open_for_more) is None:
            raise RuntimeError("recover() needs an open pipeline: 'async with Pipeline() as ...'")
        return await recover(session.workshop, session.runs.keys(), session.resume, task_ids)

    async def status(self, task_id: str) -> Event | JSON:
        """The last event of a task, or what the journal keeps of it.

        A completed task whose files are gone is told as expired.

        Raises:
            TaskNotFound: Neither knows the task.
        """
        if (event := self._tracker.latest(task_id)) is not None:
            return event
        if (record := await self._journal.get(task_id)) is None:
            raise TaskNotFound(f"No task {task_id!r} is known here.")
        if record.state is TaskState.COMPLETED and not await self._has_files(task_id):
            return attrs.evolve(record, state=TaskState.EXPIRED)
        return record

    def gpu_utilization(self) -> dict[str, JSON]:
        """What the models' devices are doing, in short; `scheduler.stats()` says more.

        Returns:
            `yolo_slots_available` and `birefnet_slots_available`: how many more of each model
            could run now; `gpu_utilization_percent`: of its time, the busiest accelerator's, or
            the CPU's where there is none.
        """
        return utilization((self._scheduler or shared_scheduler.get()).stats())

    async def forget(self, task_id: str) -> None:
        """Delete a task's files, journal entry, events, and what is cached of its photo.

        Whatever became of it: what is paid for and not collected yet is given up.

        Raises:
            TaskBusy: It is under way.
            StorageError: Something could not be deleted; a second call goes on.
        """
        check_task_id(task_id)
        if self._session is not None and task_id in self._session.runs:
            raise busy(task_id)
        record = await self._journal.get(task_id)
        if record is not None and (image := record.spec.inputs.get("image")) is not None:
            # Also what others cached, where this pipeline does not; and before the journal forgets
            # which photo it was, so that a second call goes on where the first was broken off.
            await ResultCache(self._storage).forget(image)
        await self._journal.forget(task_id)
        if task_id in await self._storage.staged():
            await (await self._storage.open(task_id)).discard()
        await self._storage.delete_task(task_id)
        self._tracker.forget(task_id)

    async def _has_files(self, task_id: str) -> bool:
        async for _info in self._storage.list(task_id=task_id):
            return True
        return False


def _bound(stage: Stage, backends: Backends) -> Stage:
    if (bind := getattr(stage, "bound", None)) is None:
        return stage
    bound: Stage = bind(backends)
    return bound


async def _clean_up(storage: Storage, interval: timedelta) -> None:
    while True:
        await anyio.sleep(interval.total_seconds())
        try:
            await storage.cleanup()
        except Exception:
            logger.exception("The clean-up of %r failed; the next one tries again.", storage)


async def _keep_alive(runs: Mapping[str, Run]) -> None:
    while True:
        await anyio.sleep(TICK)
        for run in list(runs.values()):
            run.keep_alive()
