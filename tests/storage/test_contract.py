"""Every storage keeps the contract."""

import gc
import itertools
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from talkgen.storage import LocalStorage, MemoryStorage
from talkgen.testing import check_storage


@pytest.fixture
def kept() -> list:
    return []


@pytest.fixture(autouse=True)
def _blocked_loop_is_an_error(kept):
    gc.collect()  # temporary folders of earlier tests go now, not while a loop runs
    with blockbuster_ctx():
        yield


async def test_local(tmp_path: Path):
    numbers = itertools.count()
    await check_storage(lambda: LocalStorage(tmp_path / str(next(numbers)), min_free_bytes=0))


async def test_temporary(kept: list):
    """Their folders are removed at the end, by whoever drops the last reference."""
    await check_storage(lambda: kept.append(LocalStorage.temporary()) or kept[-1])


async def test_memory():
    await check_storage(MemoryStorage)


async def test_a_storage_that_forgets_a_tier_is_found_out():
    class Forgetful(MemoryStorage):
        def list(self, tier=None, task_id=None):
            return super().list("videos", task_id)

    with pytest.raises(AssertionError, match="took another tier"):
        await check_storage(Forgetful)


async def test_a_storage_that_checks_no_names_is_found_out():
    class Trusting(MemoryStorage):
        async def open(self, task_id):
            return await super().open(task_id.strip() or "anything")

    with pytest.raises(AssertionError, match="instead of raising InvalidName"):
        await check_storage(Trusting)
