"""A run is killed at every point where it changes the world; recovery makes it whole.

SIGKILL before and after every journal statement, file write, fsync, rename, removal and HTTP
request, and half-way through every write. Then, in a new process: one paid operation, one whole
video, no finished stage run again, nothing left over, and nothing half seen by a reader meanwhile.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import av
import pytest

from talkgen.testing import FakeDId, PaidServer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

KINDS = ("paid", "local", "d-id")
SPEED = 400
FEWEST = 60


@attrs.frozen
class Service:
    """Where it answers, and what was paid for there."""

    url: str
    bought: Callable[[], Collection[object]]


class Story:
    """One kind of run, in a folder of its own, with a paid service of its own.

    Attributes:
        whole: Tells whether these are the bytes of a whole video.
        points: The names of all points that a run passes.
    """

    def __init__(self, kind, folder, portrait_path, harness):
        self.folder, self.harness = folder, harness
        self.config = {"kind": kind, "image": str(portrait_path) if kind == "local" else None}
        with self.service() as server:
            code, told = self.drive("run", url=server.url)
            assert code == 0
            video = (folder / "store" / "videos" / "task_final.mp4").read_bytes()
        self.points = told["points"]
        self.whole = {"paid": whole_paid, "d-id": whole_video}.get(kind, video.__eq__)

    @contextmanager
    def service(self):
        """A paid service of its own, if this kind of run has one."""
        if self.config["kind"] == "d-id":
            with FakeDId(speed=SPEED, api_key="a:b") as service:
                yield Service(service.base_url, lambda: service.ledger.talks)
        else:
            with PaidServer() as server:
                yield Service(server.url, lambda: server.ledger)

    def drive(self, action, **options):
        config = {**self.config, **options, "speed": SPEED}
        return self.harness.drive(self.folder, action=action, **config)

    def die_and_recover(self, at, how):
        shutil.rmtree(self.folder / "store", ignore_errors=True)
        store = self.folder / "store"
        where = (at, how, self.points[at])
        with self.service() as server, self.harness.watched(store, self.whole):
            code, _ = self.drive("run", url=server.url, at=at, how=how)
            assert code == -signal.SIGKILL, where
            code, told = self.drive("recover", url=server.url)
            assert code == 0, where
            bought = len(server.bought())
        assert self.harness.orphans(store) == set(), where
        assert set(told["ran"]) & set(told["finished"]) == set(), where
        assert max(Counter(told["ran"]).values(), default=0) <= 1, where
        assert told["left"] == [0, 0, 0], where
        assert told["metadata"]["marked"] == 1, where
        assert bought == (self.config["kind"] != "local"), where


def whole_video(data):
    with av.open(io.BytesIO(data)) as container:
        return sum(1 for _ in container.decode(video=0)) == container.streams.video[0].frames


def whole_paid(data):
    return len(data) == 50_000 and data == (data[:32] * 1563)[:50_000]


def ways(name):
    return ("before", "after", "half") if name == "write" else ("before", "after")


@pytest.fixture(scope="module", params=KINDS)
def story(request, tmp_path_factory, portrait_path, harness):
    return Story(request.param, tmp_path_factory.mktemp(request.param), portrait_path, harness)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_anywhere(story):
    every = [(at, how) for at, name in enumerate(story.points) for how in ways(name)]
    if story.config["kind"] == "local":
        # What is after one point is before the next: the same state of the world.
        every = [(at, how) for at, how in every if how != "after" or at == len(story.points) - 1]
    assert len(every) >= FEWEST
    for at, how in every:
        story.die_and_recover(at, how)


@pytest.fixture(scope="module")
def paid(tmp_path_factory, portrait_path, harness):
    return Story("paid", tmp_path_factory.mktemp("few"), portrait_path, harness)


@pytest.mark.parametrize(
    ("name", "which", "how"),
    [
        ("UPDATE", 0, "before"),  # the inputs are staged, and not journaled
        ("write", 2, "half"),  # an upload
        ("POST /jobs", 0, "before"),  # intended, not requested
        ("POST /jobs", 0, "after"),  # paid, the id not known
        ("GET /jobs/0/video", 0, "after"),  # the id known, nothing kept
        ("replace", -4, "before"),  # half published
    ],
)
def test_killed_where_it_matters_most(paid, name, which, how):
    at = [number for number, passed in enumerate(paid.points) if passed == name][which]
    paid.die_and_recover(at, how)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, portrait_path, harness):
    return Story("d-id", tmp_path_factory.mktemp("cloud"), portrait_path, harness)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("POST /images", "after"),  # nothing intended
        ("POST /talks", "before"),  # intended, not requested
        ("POST /talks", "after"),  # paid, the id not known
        ("GET /", "after"),  # the video was on its way
    ],
)
def test_a_talk_is_paid_for_once(cloud, name, how):
    cloud.die_and_recover(cloud.points.index(name), how)


def test_a_stopped_process_is_no_dead_one(paid):
    """SIGSTOP: its tasks are left alone. SIGCONT: it goes on as if nothing had been."""
    shutil.rmtree(paid.folder / "store", ignore_errors=True)
    outcome = paid.folder / "stopped.json"
    outcome.unlink(missing_ok=True)
    with PaidServer(polls=10_000) as server:
        config = {**paid.config, "root": str(paid.folder / "store"), "url": server.url}
        owner = paid.harness.start(action="run", outcome=str(outcome), **config)
        assert server.asked.wait(60)  # it is waiting for the paid job
        os.kill(owner.pid, signal.SIGSTOP)
        code, told = paid.drive("look", url=server.url)
        assert code == 0
        assert told["recovered"] == []
        assert told["skipped"] == {"task": "somebody works on it"}
        assert told["raised"] == "TaskBusy"
        server.polls = 0
        os.kill(owner.pid, signal.SIGCONT)
        owner.join(60)
        assert (owner.exitcode, len(server.ledger)) == (0, 1)
        code, told = paid.drive("recover", url=server.url)
        assert (code, told["ran"], len(server.ledger)) == (0, [], 1)
