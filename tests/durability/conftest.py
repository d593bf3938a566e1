"""Processes to kill, and what must be true of a folder afterwards."""

from __future__ import annotations

import json
import multiprocessing
import runpy
import threading
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

DRIVER = Path(__file__).parent / "driver.py"
OUR_OWN = {
    ".lock",
    ".index-1.lock",
    *(f".index-1.sqlite{suffix}" for suffix in ("", "-journal")),
    *(f"journal.db{suffix}" for suffix in ("", ".lock", "-wal", "-shm")),
}

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "anyio._backends._asyncio",
        "httpx",
        "talkgen.generators.local.render",
        "talkgen.pipeline",
        "talkgen.testing",
    ]
)


def start(**config) -> multiprocessing.Process:
    """Start the driver."""
    process = PROCESSES.Process(
        target=runpy.run_path,
        args=[str(DRIVER)],
        kwargs={"init_globals": {"CONFIG": config}, "run_name": "driver"},
    )
    process.start()
    return process


def drive(folder: Path, **config) -> tuple[int, dict]:
    """Run the driver to its end, whichever; its exit code and what it told."""
    outcome = folder / "outcome.json"
    outcome.unlink(missing_ok=True)
    process = start(root=str(folder / "store"), outcome=str(outcome), **config)
    process.join(60)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode, json.loads(outcome.read_text()) if outcome.exists() else {}


class Reader:
    """Looks at a storage's folder again and again, as anybody may.

    Attributes:
        looks: How often it has looked.
        seen: What it has found wrong.
    """

    def __init__(self, root: Path, whole) -> None:
        self.root, self.whole = root, whole
        self.looks = 0
        self.seen: set[str] = set()

    def look(self) -> None:
        self.looks += 1
        for path in self.root.glob("videos/*_metadata.json"):
            for file in json.loads(path.read_bytes())["files"]:
                if file["tier"] == "temp":  # its time is over by now, if the clean-up runs
                    continue
                data = (self.root / file["tier"] / file["name"]).read_bytes()
                if sha256(data).hexdigest() != file["sha256"]:
                    self.seen.add(file["name"])
        for path in self.root.glob("videos/*.mp4"):
            if not self.whole(path.read_bytes()):
                self.seen.add(path.name)


@contextmanager
def watched(root: Path, whole):
    """Read the folder all the time; nothing half may be seen."""
    reader, stop = Reader(root, whole), threading.Event()

    def look() -> None:
        while not stop.wait(0.002):
            try:
                reader.look()
            except (OSError, ValueError) as error:
                reader.seen.add(repr(error))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield reader
    finally:
        stop.set()
        thread.join()
    reader.look()
    assert reader.seen == set()


def orphans(root: Path) -> set[str]:
    """Files that no manifest names, folders that only unfinished work has, and what is missing."""
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    found -= {path.name for path in root.glob(".index-*")}  # a cache of the manifests
    found |= {str(path.relative_to(root)) for path in root.glob(".*/*")}
    named = set(OUR_OWN)
    for path in root.glob("videos/*_metadata.json"):
        files = json.loads(path.read_bytes())["files"]
        named |= {f"videos/{path.name}", *(f"{file['tier']}/{file['name']}" for file in files)}
    return (found - named) | (named - found - OUR_OWN)


@pytest.fixture(scope="session")
def harness():
    return SimpleNamespace(start=start, drive=drive, watched=watched, orphans=orphans)
