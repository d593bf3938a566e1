"""A storage against a model of it in two dictionaries, whatever is done in whatever order."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from talkgen.storage import LocalStorage, Retention

RETENTION = Retention(*map(timedelta, (7, 3, 30)), temp=timedelta(hours=1))

task_ids = st.sampled_from(["task-1", "task-2"])
tiers = st.sampled_from(["uploads", "processed", "videos", "temp"])
suffixes = st.sampled_from(["a.png", "b.mp4"])
breaks = st.tuples(st.integers(0, 30), st.sampled_from(["before", "after", "half"]))


class Comparison(RuleBasedStateMachine):
    """Does everything to a storage and to the model.

    Attributes:
        staged: By task, contents by tier and suffix.
        published: By task, the time, and contents by tier and suffix.
    """

    def __init__(self, faulty_disk, died) -> None:
        super().__init__()
        self.faulty_disk, self.died = faulty_disk, died
        self.root = Path(tempfile.mkdtemp(prefix="talkgen-model-"))
        self.portal_context = start_blocking_portal("asyncio")
        self.call = self.portal_context.__enter__().call
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.staged: dict = {}
        self.published: dict = {}
        self.restart()

    def teardown(self) -> None:
        self.portal_context.__exit__(None, None, None)
        shutil.rmtree(self.root)

    def storage_on(self, disk) -> LocalStorage:
        return LocalStorage(self.root, disk=disk, clock=lambda: self.now, retention=RETENTION)

    def transaction(self, task_id):
        if task_id not in self.open:
            self.open[task_id] = self.call(self.storage.open, task_id)
        return self.open[task_id]

    def end(self, task_id, how: str) -> None:
        self.call(getattr(self.transaction(task_id), how))
        del self.open[task_id]

    @rule()
    def restart(self) -> None:
        """The process dies between two calls, and another opens the folder."""
        self.storage, self.open = self.storage_on(self.faulty_disk()), {}

    @rule(task_id=task_ids, tier=tiers, suffix=suffixes, content=st.binary(max_size=8))
    def put(self, task_id, tier, suffix, content) -> None:
        file = self.call(self.transaction(task_id).put, tier, suffix, content)
        self.staged.setdefault(task_id, {})[tier, suffix] = content
        assert self.call(self.transaction(task_id).get, file) == content

    @rule(task_id=task_ids)
    def publish(self, task_id) -> None:
        self.end(task_id, "publish")
        self.model_publishing(task_id)

    @rule(task_id=task_ids)
    def discard(self, task_id) -> None:
        self.end(task_id, "discard")
        self.staged.pop(task_id, None)

    @rule(task_id=task_ids)
    def close(self, task_id) -> None:
        self.end(task_id, "close")

    @rule(task_id=task_ids, at=breaks)
    def die_while_publishing_and_go_on(self, task_id, at) -> None:
        self.die(task_id, "publish", at)
        self.publish(task_id)

    @rule(task_id=task_ids, at=breaks)
    def die_while_discarding_and_go_on(self, task_id, at) -> None:
        self.die(task_id, "discard", at)
        self.discard(task_id)

    @precondition(lambda self: self.staged)
    @rule(task_id=task_ids, at=breaks)
    def die_while_publishing_and_give_up(self, task_id, at) -> None:
        """Then the old version stays, or the new one is there, or neither is."""
        old = self.published.get(task_id)
        self.die(task_id, "publish", at)
        self.end(task_id, "discard")
        self.model_publishing(task_id)
        new = self.published.get(task_id)
        path = self.root / "videos" / f"{task_id}_metadata.json"
        for version in (old, new):
            if version and path.exists() and self.places(task_id) == self.named(task_id, version):
                self.published[task_id] = version
                break
        else:
            assert not path.exists()
            self.published.pop(task_id, None)

    @rule(task_id=task_ids)
    def delete(self, task_id) -> None:
        self.call(self.storage.delete_task, task_id)
        self.published.pop(task_id, None)

    @rule(hours=st.sampled_from([1, 24 * 3, 24 * 31]))
    def wait(self, hours) -> None:
        self.now += timedelta(hours=hours)

    @rule()
    def clean_up(self) -> None:
        report = self.call(self.storage.cleanup)
        before, self.published = self.published, {}
        for task_id, (created, files) in before.items():
            left = {key: data for key, data in files.items() if self.lives(created, key)}
            if left or self.lives(created, ("videos", "")):
                self.published[task_id] = created, left
        assert set(report.tasks_expired) == set(before) - set(self.published)

    @invariant()
    def lists_agree(self) -> None:
        expected = {
            (task_id, *key): data
            for task_id, (created, files) in self.published.items()
            for key, data in files.items()
            if self.lives(created, key)
        }
        assert self.call(self.contents) == expected
        assert self.call(self.storage.staged) == tuple(sorted(filter(self.staged.get, self.staged)))

    @invariant()
    def nothing_else_is_in_the_folder(self) -> None:
        for task_id in ("task-1", "task-2"):
            version = self.published.get(task_id)
            assert self.places(task_id) == (self.named(task_id, version) if version else {})
        assert list((self.root / ".trash").glob("*")) == []

    def die(self, task_id, how: str, at) -> None:
        disk = self.faulty_disk()
        self.storage, self.open = self.storage_on(disk), {}
        transaction = self.transaction(task_id)
        disk.at, disk.how = len(disk.calls) + at[0], at[1]
        with suppress(self.died):
            self.call(getattr(transaction, how))
        self.restart()

    def model_publishing(self, task_id) -> None:
        staged = self.staged.pop(task_id, {})
        if staged or task_id not in self.published:
            self.published[task_id] = self.now, staged

    def lives(self, created, key) -> bool:
        return created + RETENTION.of(key[0]) > self.now

    async def contents(self) -> dict:
        found = {}
        async for info in self.storage.list():
            task_id, _, suffix = info.file.name.rpartition("_")
            found[task_id, info.file.tier, suffix] = await self.storage.get(info.file)
        return found

    def places(self, task_id) -> dict:
        """What lies in the tiers."""
        return {
            (path.parent.name, path.name): path.read_bytes()
            for path in self.root.glob(f"[!.]*/{task_id}_*")
            if not path.name.endswith("_metadata.json")
        }

    def named(self, task_id, version) -> dict:
        """What a version of the model puts there."""
        return {(tier, f"{task_id}_{suffix}"): data for (tier, suffix), data in version[1].items()}


def test_agrees_with_the_model(faulty_disk, died):
    run_state_machine_as_test(
        partial(Comparison, faulty_disk, died),
        settings=settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
