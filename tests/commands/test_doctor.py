"""What the doctor says of D-ID."""

import base64

import pytest

from talkgen import doctor
from talkgen.__main__ import main
from talkgen.testing import FakeDId
from talkgen.testing.fake_did import Fault

SECRET = "the-secret-half"
KEY = f"user:{SECRET}"


def told(capsys, *arguments):
    code = main(["doctor", *arguments])
    lines = capsys.readouterr().out
    assert SECRET not in lines
    return code, next(line.strip() for line in lines.splitlines() if "D-ID" in line)


@pytest.fixture
def service(monkeypatch):
    with FakeDId(api_key=KEY, speed=400) as service:
        monkeypatch.setattr(doctor, "BASE_URL", service.base_url)
        yield service


def test_without_a_key_the_local_renderer_is_used(capsys, monkeypatch):
    monkeypatch.delenv("D_ID_API_KEY", raising=False)
    code, line = told(capsys)
    assert code == 0
    assert line.startswith("--")
    assert "local renderer makes the videos" in line


@pytest.mark.parametrize(
    ("key", "form"),
    [
        (KEY, "'user:password'"),
        (base64.b64encode(KEY.encode()).decode(), "base64"),
        (f"Basic {KEY}", "'Basic ...'"),
        (f"Bearer {SECRET}", "'Bearer ...'"),
    ],
)
def test_a_key_is_told_of_and_nobody_is_asked(capsys, monkeypatch, service, key, form):
    monkeypatch.setenv("D_ID_API_KEY", key)
    code, line = told(capsys)
    assert code == 0
    assert line.startswith("ok")
    assert form in line
    assert "makes the videos, for money" in line
    assert not service.ledger.requests


@pytest.mark.parametrize(("key", "why"), [(f"{SECRET} pasted", "other"), (SECRET, "half of it")])
def test_a_key_that_is_none_is_no_good(capsys, monkeypatch, key, why):
    monkeypatch.setenv("D_ID_API_KEY", key)
    code, line = told(capsys)
    assert code == 1
    assert line.startswith("NO")
    assert why in line


def test_on_request_it_asks_for_the_balance(capsys, monkeypatch, service):
    monkeypatch.setenv("D_ID_API_KEY", KEY)
    assert told(capsys, "--online")[1].endswith("1000 credits are left")
    service.fail("GET /credits", Fault(status=401, body={"kind": "AuthorizationError"}))
    code, line = told(capsys, "--online")
    assert code == 1
    assert "D-ID refused to tell the credits" in line
