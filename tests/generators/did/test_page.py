"""The page about D-ID: its code runs, and its table of errors is the library's."""

import inspect
import re
from pathlib import Path

import httpx
import pytest

import talkgen
from talkgen import errors
from talkgen.errors import DIdError
from talkgen.generators.did import DIdClient, DIdGenerator
from talkgen.generators.did.failures import TABLE

from .conftest import CLOCK, face, tone

PAGE = (Path(__file__).parents[3] / "docs" / "d-id.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def block(words):
    """The one piece of code that has these words."""
    (code,) = (each for each in BLOCKS if words in each)
    return code


def named(code, **names):
    """The code with names in place of what a reader fills in."""
    for old, new in names.items():
        assert old in code
        code = code.replace(old, new)
    return code


def rows(title):
    """The first table below a title: its rows of cells."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line[:3] == "| `"]


@pytest.fixture
def files(tmp_path, monkeypatch, portrait_path, speech_path):
    (tmp_path / "me.jpg").write_bytes(portrait_path.read_bytes())
    (tmp_path / "hello.wav").write_bytes(speech_path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def awaited(code, names):
    """Run code that awaits, as in a notebook; the names that it leaves."""
    lines = "".join(f"    {line}\n" for line in code.splitlines())
    exec(f"async def snippet():\n{lines}    return locals()", names)
    return await names["snippet"]()


# --- errors ------------------------------------------------------------------------------------


def test_the_page_has_every_error_with_its_remedy():
    told = {name.strip("`").removesuffix("` itself"): (what, remedy)
            for name, what, remedy in rows("Errors")}  # fmt: skip
    classes = {
        name
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, DIdError)
    }
    assert set(told) == classes
    assert all(what and remedy for what, remedy in told.values())


def test_every_error_of_the_table_has_a_hint_and_is_as_lasting_as_the_page_says():
    deferred = {name.strip("`") for name, what, _ in rows("Errors") if "is deferred" in what}
    for name, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, DIdError) and cls is not DIdError:
            assert cls("x").hint, name
            assert cls.outage == (name in deferred), name
    assert {cls.__name__ for *_, cls in TABLE if cls.outage} == deferred


def test_the_others_that_the_page_names_exist():
    beside = PAGE.split("Beside them:")[1].split("\n\n")[0]
    for name in re.findall(r"`([A-Z]\w+)`", beside):
        assert issubclass(getattr(errors, name), errors.TalkgenError)


# --- code --------------------------------------------------------------------------------------


def test_the_first_video(service, files, monkeypatch):
    code = named(
        block("run_sync"),
        **{'"user:password"': f"{service.api_key!r}, base_url={service.base_url!r}, clock=CLOCK",
           '"videos"': '"videos", min_free_bytes=0'},
    )  # fmt: skip
    exec(code, {"CLOCK": CLOCK})
    assert (files / "hello.mp4").stat().st_size > 0
    assert service.ledger.charged == 1
    assert len(code.splitlines()) <= 10


async def test_a_text(anyio_backend, bench, files):
    names = {"talkgen": talkgen, "pipeline": bench.pipeline()}
    assert (await awaited(block("talkgen.Text("), names))["result"].success


def test_costs():
    names = {"DIdGenerator": DIdGenerator, "key": "a:b"}
    exec(block("max_credits"), names)
    assert (names["generator"].max_credits, names["generator"].budget) == (4, 100)


async def test_a_hook(anyio_backend):
    class Request:
        async def body(self):
            return b'{"id": "tlk_1", "status": "done"}'

    names = {"DIdGenerator": DIdGenerator, "key": "a:b"}
    exec(block("async def hook"), names)
    await names["hook"](Request())


async def test_the_client_by_itself(anyio_backend, service, files):
    def client(key):
        return DIdClient(key, base_url=service.base_url, clock=CLOCK)

    imports, code = block("async with DIdClient(key)").split("\n\n", 1)
    names = {"key": service.api_key, "jpeg": face().encode("jpeg"), "wav": tone().original().data}
    exec(imports, names)
    await awaited(code, names | {"DIdClient": client})
    assert (files / "hello.mp4").stat().st_size > 0


async def test_a_proxy(anyio_backend):
    names = {"httpx": httpx, "key": "a:b", "DIdClient": DIdClient, "DIdGenerator": DIdGenerator}
    left = await awaited(block("proxy.example"), names)
    await left["http"].aclose()


@pytest.mark.parametrize("words", ["costs_nothing_more", "go_astray"])
async def test_the_tests_of_the_page(anyio_backend, files, words, capfd):
    names = {"talkgen": talkgen}
    exec(block("costs_nothing_more"), names)
    exec(block(words), names)
    (test,) = (value for name, value in names.items() if words in name)
    await test()
