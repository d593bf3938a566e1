"""Weights on this machine: found, checked, and never handed out when damaged."""

import errno
import os
import pickle
import threading
from pathlib import Path

import pytest

from talkgen.errors import InsufficientStorage, ModelUnavailable
from talkgen.models import _hub
from talkgen.models import weights as module
from talkgen.models.catalogue import birefnet, known_weights, yolo
from talkgen.models.weights import cached, download, located, sha256


@pytest.fixture
def hashed(monkeypatch):
    """The files that were read to the end, in order."""
    files = []

    def spy(path):
        files.append(path)
        return sha256(path)

    monkeypatch.setattr(module, "sha256", spy)
    return files


def test_absent_weights_name_the_command(cache, tiny):
    assert cached(tiny) is None
    with pytest.raises(ModelUnavailable, match=r"tiny .* are not on this machine") as caught:
        located(tiny)
    assert caught.value.hint == "Fetch them: python -m talkgen fetch tiny"
    assert pickle.loads(pickle.dumps(caught.value)).hint == caught.value.hint


def test_weights_without_their_companions_are_not_there(cache, safe, content):
    path = cache(safe, content)
    assert cached(safe) == path
    (path.parent / "config.json").unlink()
    assert cached(safe) is None


def test_damage_is_found_and_taken_away(cache, safe, content):
    path = cache(safe, content[:-1] + b"!")
    with pytest.raises(ModelUnavailable, match="was damaged") as caught:
        located(safe)
    assert "python -m talkgen fetch safe" in caught.value.hint
    assert cached(safe) is None
    assert not path.is_symlink()
    assert list((path.parents[2] / "blobs").iterdir()) == []


def test_damage_in_a_cache_that_cannot_be_written_is_told(cache, tiny, content, monkeypatch):
    path = cache(tiny, content[:-1] + b"!")

    def refused(self, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(ModelUnavailable, match="was damaged") as caught:
        located(tiny)
    assert f"deleted by hand: {path.resolve()} (Read-only file system)" in str(caught.value)


def test_a_file_is_hashed_once(cache, tiny, content, hashed):
    path = cache(tiny, content)
    assert [located(tiny), located(tiny), download(tiny)] == [path] * 3
    assert hashed == [path]


@pytest.mark.parametrize("change", ["content", "time", "place"])
def test_a_file_that_changed_is_hashed_again(cache, tiny, content, hashed, change):
    path = cache(tiny, content)
    located(tiny)
    facts = path.stat()
    if change == "time":
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    elif change == "place":
        copy = path.with_name("copy")
        copy.write_bytes(content)
        os.utime(copy, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        copy.replace(path)
    else:
        path.write_bytes(content + b"!")
        with pytest.raises(ModelUnavailable):
            located(tiny)
        return
    assert located(tiny) == path
    assert len(hashed) == 2


def test_a_cache_that_cannot_be_written_is_hashed_each_time(
    cache, tiny, content, hashed, tmp_path, monkeypatch
):
    (tmp_path / "assets").write_text("a file, where there should be a folder")
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    cache(tiny, content)
    located(tiny)
    located(tiny)
    assert len(hashed) == 2


def test_a_full_disk_is_told(cache, tiny, monkeypatch):
    import huggingface_hub

    def full(*values, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(InsufficientStorage, match="The disk is full") as caught:
        download(tiny)
    assert "HF_HOME" in caught.value.hint


def test_the_hosts_own_choice_of_telemetry_comes_back(cache, tiny, monkeypatch):
    """Even where downloads overlap."""
    import huggingface_hub
    from huggingface_hub import constants

    seen, together = [], threading.Barrier(2)

    def absent(*values, **options):
        seen.append(constants.HF_HUB_DISABLE_TELEMETRY)
        raise huggingface_hub.errors.OfflineModeIsEnabled

    def attempt():
        together.wait()
        with pytest.raises(ModelUnavailable):
            download(tiny)

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", absent)
    environment = dict(os.environ)
    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True, True]
    assert constants.HF_HUB_DISABLE_TELEMETRY is False
    assert dict(os.environ) == environment


def test_progress_tells_the_furthest_of_several_bars():
    told = []
    kind = _hub._bar(lambda done, total: told.append((done, total)))
    with kind(total=10, unit="B", name="x") as network, kind(total=10) as disk:
        network.update(6)
        disk.update(4)
        disk.update(6)
    assert told == [(6, 10), (6, 10), (10, 10)]


def test_the_catalogue_is_pinned_where_loading_could_run_code():
    for name, weights in known_weights().items():
        assert weights.name == name
        assert len(weights.sha256) == 64
    assert len(known_weights()) == 13


def test_settings_may_name_the_file():
    assert yolo("yolov8n.pt") is yolo("yolov8n") is known_weights()["yolov8n"]
    assert yolo("yolov9") is None
    assert yolo("birefnet-lite") is None
    assert birefnet("lite") is known_weights()["birefnet-lite"]
