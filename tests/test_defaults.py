"""What a pipeline takes when it is told nothing, or only settings."""

import pytest

from talkgen import LocalScheduler, Pipeline, Settings
from talkgen.defaults import SharedScheduler, default_storage, shared_scheduler
from talkgen.errors import InsufficientStorage
from talkgen.stages.detection import DetectPersons


async def test_pipelines_share_a_scheduler_and_its_models_stay_warm(anyio_backend, portrait_path):
    first, second = Pipeline([DetectPersons()]), Pipeline([DetectPersons()])
    await first.run(portrait_path)
    loads = {model.key: model.loads for model in shared_scheduler.get().stats().models}
    await second.run(portrait_path)
    assert {model.key: model.loads for model in shared_scheduler.get().stats().models} == loads


def test_a_forked_process_gets_a_scheduler_of_its_own(monkeypatch):
    shared = SharedScheduler()
    parents = shared.get()
    assert shared.get() is parents
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert shared.get() is not parents


async def test_a_scheduler_of_ones_own_stays_open(anyio_backend, portrait_path):
    scheduler = LocalScheduler()
    pipeline = Pipeline([DetectPersons()], scheduler=scheduler)
    assert (await pipeline.run(portrait_path)).success
    assert (await pipeline.run(portrait_path)).success
    loads = {model.key: model.loads for model in scheduler.stats().models}
    assert set(loads.values()) == {1}
    await scheduler.aclose()


async def test_settings_name_the_folder_and_its_rules(anyio_backend, tmp_path):
    settings = Settings(storage_root=tmp_path / "kept", retention_videos_days=2)
    stats = await default_storage(settings).stats()
    assert stats.storage_root == str(tmp_path / "kept")
    assert stats.tiers["videos"].retention_days == 2
    greedy = Settings(storage_root=tmp_path / "kept", min_free_space_gb=1e9)
    with pytest.raises(InsufficientStorage):
        await default_storage(greedy).ensure_free(1)
