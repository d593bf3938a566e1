"""Storages against a model of them in two dictionaries, whatever is done in whatever order.

Two of them work on the same files; one may die, the other goes on.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import obstore
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

from talkgen.storage import LocalStorage, ObjectStorage, Retention

RETENTION = Retention(*map(timedelta, (7, 3, 30)), temp=timedelta(hours=1))

RESULTS = {"task-1": {"success": True}, "task-2": None}

task_ids = st.sampled_from(list(RESULTS))
tiers = st.sampled_from(["uploads", "processed", "videos", "temp"])
suffixes = st.sampled_from(["a.png", "b.mp4"])
breaks = st.tuples(st.integers(0, 30), st.sampled_from(["before", "after", "half"]))


class Comparison(RuleBasedStateMachine):
    """Does everything to a storage and to the model.

    Attributes:
        staged: By task, contents by tier and suffix.
        published: By task, the time, and contents by tier and suffix.
    """

    def __init__(self, died) -> None:
        super().__init__()
        self.died = died
        self.portal_context = start_blocking_portal("asyncio")
        self.call = self.portal_context.__enter__().call
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.staged: dict = {}
        self.published: dict = {}
        self.other, _ = self.make()
        self.restart()

    def teardown(self) -> None:
        self.portal_context.__exit__(None, None, None)

    def make(self):
        """Another storage on the same files, and what can break it."""
        raise NotImplementedError

    def held(self, task_id) -> dict | None:
        """The published contents, also expired ones, by tier and name; None without a manifest."""
        raise NotImplementedError

    def left_over(self) -> set:
        """What there is beside published and staged files."""
        raise NotImplementedError

    def transaction(self, task_id):
        if task_id not in self.open:
            self.open[task_id] = self.call(self.storage.open, task_id)
        return self.open[task_id]

    def end(self, task_id, how: str) -> None:
        self.call(self.ending(task_id, how))
        del self.open[task_id]

    def ending(self, task_id, how: str):
        action = getattr(self.transaction(task_id), how)
        return partial(action, RESULTS[task_id]) if how == "publish" else action

    @rule()
    def restart(self) -> None:
        """The process dies between two calls, and another opens the folder."""
        (self.storage, self.breakable), self.open = self.make(), {}

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
        new, held = self.published.get(task_id), self.held(task_id)
        matching = [one for one in (old, new) if one and held == self.named(task_id, one)]
        assert matching or held is None
        self.published.pop(task_id, None)
        if matching:
            self.published[task_id] = matching[0]

    @rule(task_id=task_ids, which=st.sampled_from(["storage", "other"]))
    def delete(self, task_id, which) -> None:
        self.call(getattr(self, which).delete_task, task_id)
        self.published.pop(task_id, None)

    @rule(hours=st.sampled_from([1, 24 * 3, 24 * 31]))
    def wait(self, hours) -> None:
        self.now += timedelta(hours=hours)

    @rule(which=st.sampled_from(["storage", "other"]))
    def clean_up(self, which) -> None:
        report = self.call(getattr(self, which).cleanup)
        before, self.published = self.published, {}
        for task_id, (created, files) in before.items():
            left = {key: data for key, data in files.items() if self.lives(created, key)}
            kept = RESULTS[task_id] is not None or not files
            if left or (kept and self.lives(created, ("videos", ""))):
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
        staged = tuple(sorted(filter(self.staged.get, self.staged)))
        for storage in (self.storage, self.other):
            assert self.call(self.contents, storage) == expected
            assert self.call(storage.stats).total_files == len(expected)
            assert self.call(storage.staged) == staged

    @invariant()
    def nothing_else_is_there(self) -> None:
        for task_id in ("task-1", "task-2"):
            version = self.published.get(task_id)
            assert self.held(task_id) == (self.named(task_id, version) if version else None)
        assert self.left_over() == set()

    def die(self, task_id, how: str, at) -> None:
        self.restart()
        ending = self.ending(task_id, how)
        self.breakable.at, self.breakable.how = len(self.breakable.calls) + at[0], at[1]
        with suppress(self.died):
            self.call(ending)
        self.restart()

    def model_publishing(self, task_id) -> None:
        staged = self.staged.pop(task_id, {})
        if staged or task_id not in self.published:
            self.published[task_id] = self.now, staged

    def lives(self, created, key) -> bool:
        return created + RETENTION.of(key[0]) > self.now

    async def contents(self, storage) -> dict:
        found = {}
        async for info in storage.list():
            task_id, _, suffix = info.file.name.rpartition("_")
            found[task_id, info.file.tier, suffix] = await storage.get(info.file)
        return found

    def named(self, task_id, version) -> dict:
        """What a version of the model holds."""
        return {(tier, f"{task_id}_{suffix}"): data for (tier, suffix), data in version[1].items()}


class Folder(Comparison):
    """A folder, whose index is lost or damaged now and then."""

    def __init__(self, faulty_disk, died) -> None:
        self.faulty_disk = faulty_disk
        self.root = Path(tempfile.mkdtemp(prefix="talkgen-model-"))
        super().__init__(died)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.root)

    def make(self):
        disk = self.faulty_disk()
        options = {"min_free_bytes": 0, "retention": RETENTION}
        return LocalStorage(self.root, disk=disk, clock=lambda: self.now, **options), disk

    @rule(damage=st.sampled_from([None, b"", b"damaged" * 1000]))
    def harm_the_index(self, damage) -> None:
        for path in self.root.glob(".index*.sqlite"):
            path.unlink() if damage is None else path.write_bytes(damage)

    def held(self, task_id) -> dict | None:
        manifest = self.root / "videos" / f"{task_id}_metadata.json"
        found = {
            (path.parent.name, path.name): path.read_bytes()
            for path in self.root.glob(f"[!.]*/{task_id}_*")
            if path != manifest
        }
        assert manifest.exists() or not found
        return found if manifest.exists() else None

    def left_over(self) -> set:
        return set(self.root.glob(".trash/*"))


class FaultyCalls:
    """obstore's functions; dies at one of those that change something."""

    def __init__(self, died) -> None:
        self.died, self.calls, self.at, self.how = died, [], None, "before"

    def __getattr__(self, name: str):
        function = getattr(obstore, name)
        return partial(self.call, function) if name in {"put", "delete"} else function

    def call(self, function, *args, **options):
        number = len(self.calls)
        self.calls.append(function.__name__)
        if self.at is not None and number > self.at:
            raise self.died
        result = function(*args, **options) if number != self.at or self.how == "after" else None
        if number == self.at:
            raise self.died
        return result


class Objects(Comparison):
    """An object store in memory."""

    def __init__(self, died) -> None:
        self.store = obstore.store.MemoryStore()
        super().__init__(died)

    def make(self):
        storage = ObjectStorage(
            "memory://", store=self.store, clock=lambda: self.now, retention=RETENTION
        )
        storage._bucket._calls = FaultyCalls(self.died)
        return storage, storage._bucket._calls

    def held(self, task_id) -> dict | None:
        number, edition = self.other._editions.newest(task_id)
        if edition is None:
            return None
        return {
            (file.tier, file.name): self.other._bucket.get(edition.key(file))
            for file in edition.manifest.files
        }

    def left_over(self) -> set:
        keys = {meta["path"] for page in obstore.list(self.store) for meta in page}
        tokens = {Path(key).stem for key in keys if key.startswith("staging/")}
        for task_id in ("task-1", "task-2"):
            number, edition = self.other._editions.newest(task_id)
            keys -= edition.keys if edition else set()
            keys.discard(f"manifests/{task_id}/{number:09d}.json")
        return {
            key
            for key in keys
            if not key.startswith("staging/") and key.split("/")[1] not in tokens
        }


def compare(machine) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_a_folder_agrees_with_the_model(faulty_disk, died):
    compare(partial(Folder, faulty_disk, died))


def test_an_object_store_agrees_with_the_model(died):
    compare(partial(Objects, died))
