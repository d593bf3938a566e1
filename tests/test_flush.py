"""Waiting for the disk."""

import errno
import os
from pathlib import Path

import pytest

from talkgen._flush import flush_file, flush_folder, make_folders

fcntl = pytest.importorskip("fcntl")

FULL = 51  # as macOS has it


@pytest.fixture
def called(monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    monkeypatch.setattr(fcntl, "fcntl", lambda _, command: calls.append(command))
    return calls


@pytest.fixture
def refusing(monkeypatch):
    """A system that has the call, and a file system that answers it with an error."""

    def refuse(number):
        def refused(descriptor, command):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL, raising=False)
        monkeypatch.setattr(fcntl, "fcntl", refused)

    return refuse


@pytest.fixture(params=["file", "folder"])
def flush(request, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return lambda: flush_file(path) if request.param == "file" else flush_folder(tmp_path)


def test_it_is_synced(monkeypatch, called, flush):
    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    flush()
    assert called == ["fsync"]


def test_the_cache_of_the_drive_is_written_where_fsync_leaves_it(monkeypatch, called, flush):
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL, raising=False)
    flush()
    assert called == [FULL]


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EINVAL, errno.ENOTTY])
def test_a_file_system_without_that_is_synced_all_the_same(called, refusing, flush, number):
    refusing(number)
    flush()
    assert called == ["fsync"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_what_the_drive_could_not_write_is_not_hidden_by_a_later_fsync(
    called, refusing, flush, number
):
    refusing(number)
    with pytest.raises(OSError, match=os.strerror(number)):
        flush()
    assert called == []


def test_nothing_stays_open(refusing, flush):
    refusing(errno.EIO)
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        flush()
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("made", [0, 1, 2])
def test_folders_are_waited_for_also_where_who_made_one_has_died(tmp_path, made):
    folders = [tmp_path / "a", tmp_path / "a" / "b"]
    for folder in folders[:made]:
        folder.mkdir()
    done = []
    make_folders(folders[1], lambda path: (path.mkdir(), done.append(path)), done.append)
    there = [tmp_path, *folders][made]
    new = [step for folder in folders[made:] for step in (folder, folder.parent)]
    assert done == [there.parent, *new]
    assert folders[1].is_dir()


def test_a_folder_in_one_that_may_not_be_read_can_be_used(tmp_path):
    def sync(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    make_folders(tmp_path, Path.mkdir, sync)
