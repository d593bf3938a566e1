"""Waiting for the disk."""

import errno
import os

import pytest

from talkgen._flush import flush

fcntl = pytest.importorskip("fcntl")

FULL = 51  # as macOS has it


@pytest.fixture
def called(monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    monkeypatch.setattr(fcntl, "fcntl", lambda _, command: calls.append(command))
    return calls


def test_a_file_is_synced(monkeypatch, called):
    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    flush(0)
    assert called == ["fsync"]


def test_the_cache_of_the_drive_is_written_where_fsync_leaves_it(monkeypatch, called):
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL, raising=False)
    flush(0)
    assert called == [FULL]


def test_a_file_system_without_that_is_synced_all_the_same(monkeypatch, called):
    def refused(descriptor, command):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refused)
    flush(0)
    assert called == ["fsync"]
