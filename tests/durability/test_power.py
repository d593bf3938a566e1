"""The power fails at every point of a run; recovery makes it whole.

SIGKILL loses nothing that the kernel holds. Here everything may be lost that was not synced, in
any combination: what is left is made into a folder of its own, in which a new pipeline recovers.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import anyio
import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noted import STATEMENTS, Noted
from power import CachedDisk, Unwaited, Unwaiting, contents

from talkgen import GenerateVideo, LocalStorage, Pipeline, Speech
from talkgen.draft import TaskState
from talkgen.media import Video
from talkgen.testing import FakePaidGenerator, PaidServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from power import Moment

    from talkgen.storage.filesystem import FileSystem

PICTURE = np.full((16, 16, 3), 7, np.uint8)
SPEECH = Speech(np.full((1, 800), 0.25, np.float32), 16_000)
FEWEST = 50  # changes of a run
TIERS = ("uploads", "processed", "videos", "temp")


@attrs.frozen
class Brightened:
    """A stage that makes another portrait."""

    name = key = "brightened"
    weight = 1.0
    requires = provides = frozenset({"portrait"})
    resets = frozenset()

    async def run(self, draft, context):
        portrait = attrs.evolve(draft.portrait, pixels=draft.portrait.pixels ^ 1)
        return attrs.evolve(draft, portrait=portrait)


@attrs.frozen
class Filmed:
    """A stage whose encoder writes a file, which is moved."""

    name = key = "video_generation"
    weight = 1.0
    requires = frozenset({"portrait"})
    provides = frozenset({"video"})
    resets = frozenset()

    async def run(self, draft, context):
        async with context.files.scratch() as folder:
            path = folder / "made.mp4"
            path.write_bytes(b"a film of some length")
            file = await context.files.put("videos", "final.mp4", path)
        return attrs.evolve(draft, video=Video(file=file, duration=1.0, fps=25.0, size=(16, 16)))


def recording(disk: CachedDisk) -> type[Unwaited]:
    """A connection that tells the disk what a commit has brought onto it."""

    class Connection(Unwaited):
        def execute(self, statement, *args):
            if statement.split()[0] not in STATEMENTS:
                return super().execute(statement, *args)
            with disk.changing(statement.split()[0]):
                cursor = super().execute(statement, *args)
                if not self.in_transaction:
                    disk.committed(self.serialize())
                return cursor

    return Connection


@contextmanager
def paying(tokens: Sequence[str]) -> Iterator[PaidServer]:
    """The service, where these were paid for before."""
    with PaidServer() as server:
        for token in tokens:
            server.answer("POST", "/jobs", json.dumps({"token": token}).encode())
        yield server


@attrs.frozen
class Recorded:
    """A run in which the power may be cut at any moment.

    Attributes:
        moments: When.
        whole: What it has published in the end.
    """

    moments: list[Moment]
    whole: dict[str, bytes]


class Story:
    """A run, and what is left of it when the power is cut.

    Attributes:
        run: The run.
    """

    def __init__(self, kind: str, folder: Path, harness) -> None:
        self.kind, self.folder, self.harness = kind, folder, harness
        self.tried: set[object] = set()
        base = folder / "whole"
        base.mkdir()
        if kind == "paid":  # in a folder that was used without a journal
            anyio.run(LocalStorage(base / "store").stats)
        self.run = anyio.run(self.recorded, base, ())

    def pipeline(self, root: Path, disk: FileSystem, server: PaidServer, ran: list[str]):
        generator = FakePaidGenerator(server.url, poll=0.001, grace=timedelta(0))
        film = GenerateVideo(generator) if self.kind == "paid" else Filmed()
        stages = [Noted(stage, ran) for stage in (Brightened(), film)]
        storage = LocalStorage(root, min_free_bytes=0, disk=disk)
        return Pipeline(stages, storage=storage)

    async def recorded(
        self, base: Path, paid: Sequence[str], killed: Moment | None = None
    ) -> Recorded:
        """Run with what is in a folder, after a recovery."""
        with paying(paid) as server, pytest.MonkeyPatch.context() as patch:
            database = base / "store" / "journal.db"
            disk = CachedDisk(base, database, server.ledger, killed=killed)
            patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=recording(disk)))
            patch.setattr("talkgen.journal.sqlite.flush_folder", disk.sync_folder)
            async with self.pipeline(base / "store", disk, server, []) as pipeline:
                for one in (await pipeline.recover()).runs:
                    await one
                await pipeline.run(PICTURE, SPEECH, task_id="task")
            disk.note("the end")
        whole = published(base / "store")
        assert {"task_metadata.json", "task_final.mp4"} < whole.keys()
        return Recorded(disk.moments, whole)

    async def after_a_cut(self, moment: Moment, picks: Sequence[int]) -> Recorded:
        """Recover from a cut, in a run in which the power may be cut again."""
        base = self.folder / "recovered"
        shutil.rmtree(base, ignore_errors=True)
        moment.leave(base, picks)
        return await self.recorded(base, moment.paid)

    async def after_a_death(self, moment: Moment) -> Recorded:
        """Recover from the death of a process, in a run in which the power may be cut."""
        base = self.folder / "recovered"
        shutil.rmtree(base, ignore_errors=True)
        moment.leave(base, moment.extremes()[1])
        return await self.recorded(base, moment.paid, killed=moment)

    async def recover(
        self, run: Recorded, moment: Moment, picks: Sequence[int], *before: object
    ) -> None:
        """Look at what the cut has left, and recover; all must be as if nothing had been.

        Args:
            run: What was cut.
            moment: When.
            picks: What is found.
            *before: The same of an earlier cut, to be told if anything is wrong.
        """
        where = (moment.before, tuple(picks), *before)
        base = self.folder / "left"
        shutil.rmtree(base, ignore_errors=True)
        moment.leave(base, picks)
        ended = moment.before == "the end"
        if (state := (ended, moment.paid, contents(base))) in self.tried:
            return
        self.tried.add(state)
        root = base / "store"
        for name, data in published(root).items():
            assert data == run.whole[name], where
        with paying(moment.paid) as server:
            ran: list[str] = []
            async with self.pipeline(root, Unwaiting(), server, ran) as pipeline:
                record = await pipeline._journal.get("task")
                finished = list(record.checkpoints) if record else []
                if record and record.state in {TaskState.PUBLISHING, TaskState.COMPLETED}:
                    finished = ["brightened", "video_generation"]
                for one in (await pipeline.recover()).runs:
                    await one
                result = await pipeline.run(PICTURE, SPEECH, task_id="task")
                video = await result.video.aread()
                await pipeline._storage.cleanup(datetime.now(UTC) + timedelta(hours=2))
                again = await pipeline.recover()
            assert (again.runs, again.discarded, dict(again.skipped)) == ((), (), {}), where
            assert set(ran) & set(finished) == set(), where
            assert max(Counter(ran).values(), default=0) <= 1, where
            assert len(server.ledger) == (self.kind == "paid"), where
            if self.kind == "paid":
                assert video == server.video(*server.ledger), where
            else:
                assert video == run.whole["task_final.mp4"], where
        assert self.harness.orphans(root) == set(), where
        assert not (ended and ran), where


def published(root: Path) -> dict[str, bytes]:
    """What any reader finds in the tiers of a folder."""
    paths = (path for tier in TIERS for path in (root / tier).glob("task_*"))
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def anyio_backend():
    """One loop is enough: all of this happens in threads."""
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
def _unwaited():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Unwaited))
        yield


@pytest.fixture(scope="module", params=["paid", "free"])
def story(request, tmp_path_factory, harness):
    return Story(request.param, tmp_path_factory.mktemp(request.param), harness)


async def test_all_or_nothing_of_the_cache_is_kept(story):
    assert len(story.run.moments) > FEWEST
    for moment in story.run.moments:
        for picks in moment.extremes():
            await story.recover(story.run, moment, picks)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_each_change_alone_is_kept_or_lost(story):
    for moment in story.run.moments:
        for picks in moment.singled_out():
            await story.recover(story.run, moment, picks)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_any_part_of_the_cache_is_kept(story):
    @settings(max_examples=1000, deadline=None, database=None)
    @given(st.data())
    def cut(data):
        anyio.run(story.recover, story.run, *drawn(data, story.run))

    cut()


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_the_power_fails_again_during_recovery(story):
    for moment in story.run.moments:
        for picks in moment.extremes():
            run = await story.after_a_cut(moment, picks)
            for again in run.moments:
                for others in again.extremes():
                    await story.recover(run, again, others, moment.before, picks)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_the_power_fails_after_the_death_of_a_process(story):
    for moment in story.run.moments:
        run = await story.after_a_death(moment)
        for cut in run.moments:
            for picks in cut.extremes():
                await story.recover(run, cut, picks, moment.before)


def test_any_part_of_the_cache_is_kept_twice(story):
    @settings(max_examples=25, deadline=None, database=None)
    @given(st.data())
    def cut_twice(data):
        first = drawn(data, story.run)
        run = anyio.run(story.after_a_cut, *first)
        anyio.run(story.recover, run, *drawn(data, run), *first)

    cut_twice()


def drawn(data: st.DataObject, run: Recorded) -> tuple[Moment, tuple[int, ...]]:
    """A moment of a run, and what is found if the power is cut then."""
    moment = data.draw(st.sampled_from(run.moments))
    return moment, data.draw(st.tuples(*(st.integers(0, size - 1) for size in moment.sizes())))
