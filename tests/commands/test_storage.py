"""`stats` and `cleanup`: tidy for people, JSON for programs."""

import json
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from talkgen.__main__ import main
from talkgen.storage import LocalStorage


@pytest.fixture
def folder(tmp_path):
    """A storage with a task of today and one of last year."""
    root = tmp_path / "my files"

    async def fill() -> None:
        for task_id, age in (("new", timedelta()), ("old", timedelta(days=365))):
            storage = LocalStorage(root, clock=lambda age=age: datetime.now(UTC) - age)
            transaction = await storage.open(task_id)
            await transaction.put("videos", "final.mp4", b"x" * 2**20)
            await transaction.put("uploads", "original.png", b"x" * 2**19)
            await transaction.publish()

    anyio.run(fill)
    return root


def told(capsys) -> str:
    """Without the line breaks of a narrow terminal."""
    return " ".join(capsys.readouterr().out.split())


def test_stats(folder, capsys):
    assert main(["stats", "--storage", str(folder)]) == 0
    text = told(capsys)
    assert (
        "uploads 1 0.50 7 days processed 0 0.00 3 days videos 1 1.00 30 days temp 0 0.00 1 h"
        in text
    )
    assert "total 2 1.50" in text
    assert "GB free of" in text


def test_stats_as_json(folder, capsys):
    assert main(["stats", "--storage", str(folder), "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert stats["storage_root"] == str(folder)
    assert stats["tiers"]["videos"] == {"file_count": 1, "size_mb": 1.0, "retention_days": 30.0}
    assert (stats["total_files"], stats["total_size_mb"]) == (2, 1.5)
    assert set(stats["disk"]) == {"total_gb", "used_gb", "free_gb", "percent_used"}


def test_cleanup(folder, capsys):
    assert main(["cleanup", "--storage", str(folder)]) == 0
    assert told(capsys) == "Deleted 2 files, freed 1.50 MB; 1 tasks have expired."
    assert main(["cleanup", "--storage", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {"files_deleted": 0, "bytes_freed": 0, "tasks_expired": []}
    assert (folder / "videos" / "new_final.mp4").exists()
    assert not (folder / "videos" / "old_final.mp4").exists()


def test_the_environment_names_the_folder_and_the_retention(folder, capsys, monkeypatch):
    monkeypatch.setenv("STORAGE_ROOT", str(folder))
    monkeypatch.setenv("STORAGE_RETENTION_VIDEOS_DAYS", "1000")
    monkeypatch.setenv("STORAGE_RETENTION_UPLOADS_DAYS", "1000")
    assert main(["cleanup", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files_deleted"] == 0
    assert main(["stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total_files"] == 4


@pytest.mark.parametrize("command", ["stats", "cleanup"])
def test_a_folder_without_a_storage_is_left_as_it_is(command, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("STORAGE_ROOT", raising=False)
    assert main([command, "--storage", str(tmp_path)]) == 2
    assert "holds no storage" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([command]) == 2
    assert "--storage DIR" in capsys.readouterr().err
