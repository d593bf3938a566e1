"""`python -m talkgen fetch` against a hub on loopback, as a user runs it."""

import socket
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_good_file_is_fetched_once(talkgen, hub, content, tmp_path):
    done = talkgen("fetch", "tiny")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.is_relative_to(tmp_path / "home")
    assert path.read_bytes() == content
    assert "Fetching tiny, 13 MB, from someone/tiny" in done.stderr
    assert "tiny is AGPL-3.0" in done.stderr

    asked = len(hub.requests)
    again = talkgen("fetch", "tiny")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "tiny is here already." in again.stderr
    assert len(hub.requests) == asked


def test_nothing_is_told_but_what_is_wanted(talkgen, hub):
    assert talkgen("fetch", "tiny").returncode == 0
    assert [path.split("/")[1] for path, _ in hub.asked("HEAD")] == ["someone"]
    assert [path.split("/")[1] for path, _ in hub.asked("GET")] == ["stored"]
    assert not any("torch" in agent or "agent/" in agent for agent in hub.agents)


def test_companions_come_from_the_same_commit(talkgen, hub):
    done = talkgen("fetch", "safe")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert (path.parent / "config.json").read_bytes() == b'{"model_type": "none"}'
    paths = [path for path, _ in hub.asked("HEAD")]
    assert f"/someone/tiny/resolve/{COMMIT}/config.json" in paths
    assert "AGPL" not in done.stderr


def test_a_wrong_file_is_refused_and_not_kept(talkgen, hub, content, tmp_path):
    hub.files["someone/tiny/tiny.pt"] = content[:-1] + b"!"
    done = talkgen("fetch", "tiny")
    assert done.returncode == 1
    assert "someone/tiny/tiny.pt is not the pinned tiny: its SHA-256 differs." in done.stderr
    assert "  Check what HF_ENDPOINT points to" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path for path in (tmp_path / "home").rglob("*") if _large(path)] == []
    assert "not here" in talkgen("fetch", "--list").stdout.splitlines()[0]

    hub.files["someone/tiny/tiny.pt"] = content
    assert talkgen("fetch", "tiny").returncode == 0


def _large(path):
    return path.is_symlink() or (path.is_file() and path.stat().st_size > 2**20)


def test_a_terminal_shows_a_bar(talkgen):
    done = talkgen("fetch", "tiny", FORCE_COLOR="1")
    assert "Fetching" not in done.stderr
    assert "12.6/12.6 MB" in done.stderr


def test_a_cut_connection_is_taken_up_where_it_broke(talkgen, hub, content):
    hub.cuts = [11 * 2**20]
    done = talkgen("fetch", "tiny")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == content
    assert [piece for _, piece in hub.asked("GET")] == [None, f"bytes={10 * 2**20}-"]


@pytest.mark.slow  # the client waits a second before each new try
def test_a_connection_that_is_always_cut_is_given_up(talkgen, hub, tmp_path):
    hub.cuts = [1000] * 20
    done = talkgen("fetch", "tiny")
    assert done.returncode == 1
    assert "the hub cannot be reached, or the connection was cut" in done.stderr
    assert [path for path in (tmp_path / "home").rglob("*") if _large(path)] == []
    hub.cuts = []
    assert talkgen("fetch", "tiny").returncode == 0


@pytest.mark.slow  # the client waits longer before each new try
def test_a_hub_that_is_down_is_told(talkgen):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = talkgen("fetch", "tiny", HF_ENDPOINT=f"http://127.0.0.1:{port}")
    assert done.returncode == 1
    assert "the hub cannot be reached" in done.stderr
    assert "HF_ENDPOINT names a mirror" in done.stderr


def test_offline_is_obeyed(talkgen, hub):
    done = talkgen("fetch", "tiny", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE forbids it" in done.stderr
    assert hub.requests == []
    assert talkgen("fetch", "tiny").returncode == 0
    assert talkgen("fetch", "tiny", HF_HUB_OFFLINE="1").returncode == 0


def test_a_cache_that_cannot_be_written_is_told(talkgen, tmp_path):
    (tmp_path / "file").touch()
    done = talkgen("fetch", "tiny", HF_HOME=str(tmp_path / "file"))
    assert done.returncode == 1
    assert f"{tmp_path / 'file'}" in done.stderr
    assert "  Set HF_HOME to a folder that can be written." in done.stderr


@pytest.mark.parametrize(
    ("status", "code", "told", "hint"),
    [
        (401, None, "the hub refuses access (401)", "Check HF_TOKEN"),
        (401, "RepoNotFound", "there is no such repository", "Check HF_ENDPOINT"),
        (403, "GatedRepo", "open to those admitted only", "Ask for access"),
        (404, "RevisionNotFound", "no such revision", "Update talkgen"),
        (404, "EntryNotFound", "no such file", "Update talkgen"),
    ],
)
def test_refusals_are_told_apart(talkgen, hub, status, code, told, hint):
    hub.status, hub.error_code = status, code
    done = talkgen("fetch", "tiny")
    assert done.returncode == 1
    assert told in done.stderr
    assert f"\n  {hint}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_list_says_what_is_here(talkgen, hub):
    talkgen("fetch", "safe")
    asked = len(hub.requests)
    tiny, safe = talkgen("fetch", "--list").stdout.splitlines()
    assert tiny.split()[:4] == ["tiny", "13", "MB", "AGPL-3.0-only"]
    assert tiny.endswith("not here")
    assert safe.endswith("model.safetensors")
    assert len(hub.requests) == asked


def test_unknown_names_are_bad_usage(talkgen, hub):
    done = talkgen("fetch", "tiny", "tinier")
    assert done.returncode == 2
    assert "No weights are known as 'tinier'; there are tiny, safe" in done.stderr
    assert hub.requests == []


def test_the_guard_lets_nothing_out(talkgen):
    done = talkgen("fetch", "tiny", HF_ENDPOINT="http://hub.invalid")
    assert done.returncode == 99
    assert "reached out to ('hub.invalid'" in done.stderr
