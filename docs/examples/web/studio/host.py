"""What lives as long as the server, and the tasks in it."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from studio import wire
from studio.orders import Orders
from studio.pipelines import Pipelines
from studio.problems import Problem, is_public
from talkgen import LocalScheduler, LocalStorage, Pipeline, ProgressTracker, SQLiteJournal
from talkgen.defaults import default_storage
from talkgen.errors import FileMissing, Overloaded, TalkgenError, TaskConflict
from talkgen.protocols import TaskRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from anyio.abc import TaskGroup

    from studio.config import Config
    from studio.options import Options
    from studio.uploads import Order
    from talkgen import Run, Settings
    from talkgen.events import Event
    from talkgen.protocols import VideoGenerator

__all__ = ["Host", "open_host"]

logger = logging.getLogger("studio")


@attrs.define(eq=False)
class Host:
    """One storage, journal and tracker, and the tasks of all pipelines.

    Tasks are known by their ids alone: whoever has one sees that task, and nothing lists them.

    Attributes:
        storage: Where all files are.
        max_tasks: More than these at a time are turned away.
    """

    storage: LocalStorage
    max_tasks: int
    _journal: SQLiteJournal
    _tracker: ProgressTracker
    _orders: Orders
    _pipelines: Pipelines
    _desk: Pipeline  # runs nothing: answers for the tasks of all, and deletes what has expired
    _tasks: TaskGroup
    _runs: dict[str, Run] = attrs.field(factory=dict, init=False)
    _arriving: int = attrs.field(default=0, init=False)

    # --- taking tasks in -----------------------------------------------------------------------

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place for a request while it arrives.

        Raises:
            Overloaded: There is none.
        """
        if self._arriving + len(self._runs) >= self.max_tasks:
            raise Overloaded(
                f"Tasks under way: {self.max_tasks}, as many as may be.",
                hint="Send the request again later.",
            )
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    async def start(self, order: Order) -> Run:
        """Start a task, or join it where it is under way.

        Raises:
            TaskConflict: The task was begun with other files or options.
        """
        if await self._orders.keep(order.task_id, order.asked) != order.asked:
            raise TaskConflict(f"Task {order.task_id} was begun with other files or options.")
        if (running := self._runs.get(order.task_id)) is not None:
            return running
        pipeline = await self._pipelines.of(order.asked.options)
        run = pipeline.start(order.image, order.speech, task_id=order.task_id)
        self._watch(run)
        return run

    def _watch(self, run: Run) -> None:
        if run.task_id not in self._runs:
            self._runs[run.task_id] = run
            self._tasks.start_soon(self._see_off, run)

    async def _see_off(self, run: Run) -> None:
        try:
            await run
        except TalkgenError as error:
            if is_public(type(error).__name__):
                logger.info("Task %s: %s", run.task_id, error)
            else:  # the clients are not told
                logger.exception("Task %s", run.task_id)
        del self._runs[run.task_id]
        with _logged():
            await self._forget_ended(run.task_id)

    # --- going on after a crash, or an outage ----------------------------------------------------

    async def keep_recovering(self, seconds: float) -> None:
        """Try again, now and then, what an outage has deferred."""
        while True:
            await anyio.sleep(seconds)
            with _logged():
                await self.recover()

    async def recover(self) -> None:
        """Go on with every task that has not ended and is not under way here."""
        for options, task_ids in (await self._orders.unfinished()).items():
            await self._recover(options, [one for one in task_ids if one not in self._runs])

    async def _recover(self, options: Options, task_ids: list[str]) -> None:
        recovery = await (await self._pipelines.of(options)).recover(task_ids)
        for run in recovery.runs:
            self._watch(run)
        for task_id in set(task_ids) - self._runs.keys():
            await self._forget_ended(task_id)

    async def _forget_ended(self, task_id: str) -> None:
        record = await self._journal.get(task_id)
        if record is None or record.state.final:
            await self._orders.forget(task_id)

    # --- telling about tasks -------------------------------------------------------------------

    async def last(self, task_id: str) -> Event:
        """The last event of a task.

        Raises:
            TaskNotFound: There is no such task.
        """
        known = await self._desk.status(task_id)
        return wire.recalled(known) if isinstance(known, TaskRecord) else known

    async def events(self, task_id: str, after: str | None = None) -> AsyncIterator[Event]:
        """The events of a task up to its end, those of earlier days summed up in one.

        Args:
            task_id: The task.
            after: The cursor of the last event already seen.

        Raises:
            TaskNotFound: There is no such task.
            Problem: That event was its last, or it is no cursor.
        """
        last = self._tracker.latest(task_id)
        forgotten = last is None and task_id not in self._runs
        if forgotten:
            last = await self.last(task_id)
        if last is not None and last.terminal and last.cursor == after:
            # To a browser's EventSource, the one answer after which it does not connect again.
            raise Problem(HTTPStatus.NO_CONTENT, "There is nothing after this event.")
        if forgotten and last is not None:
            return _once(last)
        try:
            return self._tracker.subscribe(task_id, after)
        except ValueError as error:
            raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error

    async def video(self, task_id: str) -> Path:
        """The file of a finished video.

        Raises:
            TaskNotFound: There is no such task.
            Problem: It has no video, not yet or not any more.
        """
        await self.last(task_id)
        async for info in self.storage.list("videos", task_id):
            return self.storage.root / info.file.tier / info.file.name
        raise Problem(
            HTTPStatus.NOT_FOUND,
            f"Task {task_id} has no video.",
            hint="Look at its status.",
            error_type=FileMissing.__name__,
        )


@contextmanager
def _logged() -> Iterator[None]:
    """What fails on nobody's behalf must not end the server; it is tried again later."""
    try:
        yield
    except Exception:
        logger.exception("A task could not be followed up.")


async def _once(event: Event) -> AsyncIterator[Event]:
    yield event


@asynccontextmanager
async def open_host(
    settings: Settings, config: Config, generator: VideoGenerator
) -> AsyncIterator[Host]:
    """Open everything, go on with what was left, and close when all tasks have ended.

    Whoever cannot wait that long may kill the process: the next one goes on.
    """
    storage = default_storage(settings)
    journal = SQLiteJournal(storage.root / "journal.db")
    scheduler = LocalScheduler()
    tracker = ProgressTracker(retention=timedelta(minutes=settings.progress_retention_minutes))
    shared: dict[str, Any] = {
        "settings": settings,
        "storage": storage,
        "journal": journal,
        "scheduler": scheduler,
        "tracker": tracker,
        "previews": True,
    }
    try:
        async with anyio.create_task_group() as tasks, Pipeline(**shared) as desk:
            pipelines = Pipelines(generator, shared, tasks)
            host = Host(
                storage=storage,
                max_tasks=config.max_tasks,
                journal=journal,
                tracker=tracker,
                orders=Orders(storage.root / "orders.db"),
                pipelines=pipelines,
                desk=desk,
                tasks=tasks,
            )
            await host.recover()
            async with anyio.create_task_group() as meanwhile:
                meanwhile.start_soon(host.keep_recovering, config.recover_seconds)
                yield host
                meanwhile.cancel_scope.cancel()
            pipelines.close()
    finally:
        with anyio.CancelScope(shield=True):
            await scheduler.aclose()
            await journal.aclose()
