"""What the tests run in processes of its own, and kill.

A fork server runs this file with `CONFIG` set, so that a process takes milliseconds to start; it
is a process all the same, and dies of a real SIGKILL.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from hashlib import sha256
from pathlib import Path

import anyio
import attrs
import httpx
import numpy as np
from noted import STATEMENTS, Noted

from talkgen import GenerateVideo, LocalStorage, Pipeline, Speech, telemetry
from talkgen.draft import TaskState
from talkgen.errors import TaskBusy
from talkgen.generators.did import Clock, DIdGenerator, Polling
from talkgen.generators.local import LocalGenerator
from talkgen.storage.filesystem import FileSystem
from talkgen.testing import FakePaidGenerator

SYSTEM_CALLS = ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir")


class Points:
    """Counts what changes the world outside, and kills this process at one of them.

    Attributes:
        names: What was passed so far.
        at: The number of the point to die at, from 0.
        how: `before`, `after` or `half`-way.
    """

    def __init__(self, at: int | None, how: str | None) -> None:
        self.at, self.how = at, how
        self.names: list[str] = []
        self._lock = threading.Lock()

    def enter(self, name: str) -> int:
        with self._lock:
            number = len(self.names)
            self.names.append(name)
        self.die(number, "before")
        return number

    def die(self, number: int, how: str) -> None:
        if (number, how) == (self.at, self.how):
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, name: str, function):
        @wraps(function)
        def call(*args, **options):
            number = self.enter(name)
            try:
                return function(*args, **options)
            finally:
                self.die(number, "after")

        return call

    def install(self) -> None:
        for name in SYSTEM_CALLS:
            setattr(os, name, self.around(name, getattr(os, name)))
        FileSystem.write = self.writing(FileSystem.write)
        FileSystem.copy = self.around("copy", FileSystem.copy)
        sqlite3.connect = partial(sqlite3.connect, factory=self.connection())
        # The storage is counted beside the run, so that points would not keep their numbers.
        telemetry._found = lambda: None
        transport = httpx.AsyncHTTPTransport
        transport.handle_async_request = self.requesting(transport.handle_async_request)

    def writing(self, function):
        def write(disk, path, data):
            number = self.enter("write")
            if (number, "half") == (self.at, self.how):
                function(disk, path, data[: len(data) // 2])
                self.die(number, "half")
            function(disk, path, data)
            self.die(number, "after")

        return write

    def requesting(self, function):
        async def send(transport, request):
            number = self.enter(f"{request.method} {request.url.path}")
            response = await function(transport, request)
            self.die(number, "after")
            return response

        return send

    def connection(self):
        around = self.around

        class Connection(sqlite3.Connection):
            def execute(self, statement, *args):
                execute = super().execute
                word = statement.split()[0]
                if word in STATEMENTS:
                    execute = around(word, execute)
                return execute(statement, *args)

        return Connection


@attrs.frozen
class Marked:
    """A stage that brightens the portrait, so that there is something lossless to keep."""

    name = key = "marked"
    weight = 1.0
    requires = provides = frozenset({"portrait"})
    resets = frozenset()

    async def run(self, draft, context):
        portrait = attrs.evolve(draft.portrait, pixels=draft.portrait.pixels ^ 1)
        await context.files.put("processed", "marked.png", portrait.encode("png"))
        return attrs.evolve(draft, portrait=portrait, metadata={**draft.metadata, "marked": 1})


def picture() -> np.ndarray:
    rows, columns = np.mgrid[:160, :160]
    return np.stack([rows, columns, (rows + columns) // 2], axis=-1).astype(np.uint8)


def recording() -> Speech:
    return Speech(np.sin(np.arange(1_600, dtype=np.float32) / 20)[None] / 2, 16_000)


def stages(config, ran):
    if config["kind"] == "paid":
        generator = FakePaidGenerator(config["url"], poll=0.001)
    elif config["kind"] == "d-id":
        generator = DIdGenerator(
            "a:b",
            base_url=config["url"],
            clock=Clock(config["speed"]),
            polling=Polling(first=20.0, jitter=0),  # one look, so that points have their numbers
            check_face=False,
        )
    else:
        generator = LocalGenerator(size=96)
    return [Noted(Marked(), ran), Noted(GenerateVideo(generator), ran)]


def inputs(config):
    return config.get("image") or picture(), recording()


async def run(config, ran) -> dict:
    storage = LocalStorage(config["root"], min_free_bytes=0)
    async with Pipeline(stages(config, ran), storage=storage) as pipeline:
        result = await pipeline.run(*inputs(config), task_id="task")
        return {"video": sha256(await result.video.aread()).hexdigest()}


async def recover(config, ran) -> dict:
    """What a caller does after a crash: recovers, and runs again what never got under way."""
    storage = LocalStorage(config["root"], min_free_bytes=0)
    async with Pipeline(stages(config, ran), storage=storage) as pipeline:
        record = await pipeline._journal.get("task")
        finished = list(record.checkpoints) if record else []
        if record is not None and record.state is TaskState.COMPLETED:
            finished = ["marked", "video_generation"]
        recovery = await pipeline.recover()
        for one in recovery.runs:
            await one
        result = await pipeline.run(*inputs(config), task_id="task")
        video = await result.video.aread()
        await storage.cleanup(datetime.now(UTC) + timedelta(hours=2))  # what lies in temp/
        again = await pipeline.recover()
        return {
            "finished": finished,
            "recovered": [one.task_id for one in recovery.runs],
            "left": [len(again.runs), len(again.discarded), len(again.skipped)],
            "video": sha256(video).hexdigest(),
            "metadata": dict(result.metadata),
        }


async def many(config, ran) -> dict:
    """Recover what a process before has left, and run all that is not completed, 20 at a time."""
    storage = LocalStorage(config["root"], min_free_bytes=0)
    async with Pipeline(stages(config, ran), storage=storage) as pipeline:
        for one in (await pipeline.recover()).runs:
            await one
        journal = pipeline._journal
        done = {record.spec.task_id async for record in journal.tasks(TaskState.COMPLETED)}
        limiter = anyio.CapacityLimiter(20)

        async def one_of_them(task_id):
            async with limiter:
                assert (await pipeline.run(*inputs(config), task_id=task_id)).success

        async with anyio.create_task_group() as tasks:
            for number in range(config["count"]):
                if f"t{number}" not in done:
                    tasks.start_soon(one_of_them, f"t{number}")
        counted = [record.state async for record in journal.tasks()]
        return {"states": {state: counted.count(state) for state in set(counted)}}


async def look(config, ran) -> dict:
    """What another process sees of a task that somebody has."""
    storage = LocalStorage(config["root"], min_free_bytes=0)
    async with Pipeline(stages(config, ran), storage=storage) as pipeline:
        recovery = await pipeline.recover()
        try:
            await pipeline.run(*inputs(config), task_id="task")
        except TaskBusy as error:
            raised = type(error).__name__
        return {
            "recovered": [one.task_id for one in recovery.runs],
            "skipped": dict(recovery.skipped),
            "raised": raised,
        }


def main(config) -> None:
    points = Points(config.get("at"), config.get("how"))
    if config["action"] == "run":
        points.install()
    ran: list[str] = []
    act = {"run": run, "recover": recover, "look": look, "many": many}[config["action"]]
    outcome = anyio.run(act, config, ran)
    outcome |= {"ran": ran, "points": points.names}
    Path(config["outcome"]).write_text(json.dumps(outcome))


if __name__ == "driver":
    main(CONFIG)  # noqa: F821 - given by whoever runs this file
