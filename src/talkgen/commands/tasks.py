"""`python -m talkgen recover` and `tasks`: what is unfinished, and going on with it."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import anyio
import attrs
from rich.table import Table

from talkgen.commands import DEFERRED, DONE, FAILED
from talkgen.commands.folder import add_folder_options, print_json, print_table, settings_of
from talkgen.commands.run import add_stage_options, stages_of
from talkgen.defaults import default_journal, default_storage
from talkgen.display import progress
from talkgen.errors import TalkgenError
from talkgen.pipeline import Pipeline

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from talkgen._types import JSON
    from talkgen.commands import Commands
    from talkgen.protocols import TaskRecord
    from talkgen.runs import Run
    from talkgen.settings import Settings

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Describe the commands."""
    tasks = commands.add_parser("tasks", help="what the journal knows of each task")
    tasks.set_defaults(command=_tasks)
    recover = commands.add_parser("recover", help="go on with what was deferred or broken off")
    recover.set_defaults(command=_recover)
    recover.add_argument("tasks", nargs="*", metavar="TASK", help="only these; by default all")
    add_stage_options(recover)
    for one in (tasks, recover):
        add_folder_options(one)


def _settings(options: argparse.Namespace) -> Settings:
    return settings_of(options, holding="journal.db", what="journal")


# --- tasks -------------------------------------------------------------------------------------


def _tasks(options: argparse.Namespace, console: Console) -> int:  # noqa: ARG001 - all commands alike
    tasks = anyio.run(_known, _settings(options))
    if options.json:
        print_json([_facts(task) for task in tasks])
    else:
        _show(tasks)
    return DONE


async def _known(settings: Settings) -> list[TaskRecord]:
    return [task async for task in default_journal(default_storage(settings)).tasks()]


def _facts(task: TaskRecord) -> dict[str, JSON]:
    return {
        "task_id": task.spec.task_id,
        "state": task.state.value,
        "attempt": task.attempt,
        "created": task.created.isoformat(),
        "updated": task.updated.isoformat(),
        "stages": list(task.spec.stages),
        "finished": list(task.checkpoints),
        "operations": {name: one.settled or "open" for name, one in task.operations.items()},
    }


def _show(tasks: list[TaskRecord]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("task", "state", "attempt", "updated", "operations"):
        table.add_column(name)
    for task in tasks:
        facts = _facts(task)
        operations = ", ".join(f"{name}: {how}" for name, how in facts["operations"].items())
        moment = f"{task.updated:%Y-%m-%d %H:%M:%S}"
        table.add_row(facts["task_id"], facts["state"], str(task.attempt), moment, operations)
    print_table(table)


# --- recover -----------------------------------------------------------------------------------


def _recover(options: argparse.Namespace, console: Console) -> int:
    return anyio.run(partial(_go_on, options, _settings(options), console))


async def _go_on(options: argparse.Namespace, settings: Settings, console: Console) -> int:
    stages = stages_of(options, settings)
    async with Pipeline(stages, settings=settings) as pipeline:
        recovery = await pipeline.recover(options.tasks or None)
        outcomes = [await _outcome(run, console) for run in recovery.runs]
    found = {one.task_id for one in outcomes}.union(recovery.discarded)
    unknown = [task_id for task_id in options.tasks if task_id not in found]
    skipped = dict.fromkeys(unknown, "nothing unfinished has this id") | dict(recovery.skipped)
    report = {
        "recovered": [attrs.asdict(outcome) for outcome in outcomes],
        "discarded": list(recovery.discarded),
        "skipped": skipped,
    }
    if options.json:
        print_json(report)
    else:
        _tell(outcomes, recovery.discarded, skipped)
    return max((outcome.code for outcome in outcomes), default=DONE)


@attrs.frozen
class Outcome:
    """What became of a recovered run."""

    task_id: str
    state: str
    video_url: str | None = None
    error: str | None = None

    @property
    def code(self) -> int:
        """The exit code that it asks for; the highest wins."""
        return {"completed": DONE, "deferred": DEFERRED}.get(self.state, FAILED)


async def _outcome(run: Run, console: Console) -> Outcome:
    await progress(run, console)
    try:
        result = await run
    except TalkgenError as error:
        return Outcome(run.task_id, "failed", error=str(error))
    why = getattr(run.history.latest, "error", None)  # of a run that was deferred again
    return Outcome(run.task_id, result.status.value, video_url=result.video_url, error=why)


def _tell(outcomes: list[Outcome], discarded: tuple[str, ...], skipped: JSON) -> None:
    lines = [f"{one.task_id}: {one.state} {one.video_url or one.error or ''}" for one in outcomes]
    lines += [f"{task_id}: discarded" for task_id in discarded]
    lines += [f"{task_id}: left alone: {why}" for task_id, why in skipped.items()]
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines or ["Nothing to recover."]))
