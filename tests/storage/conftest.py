"""A disk that fails or dies at a chosen call."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from talkgen.storage.filesystem import FileSystem, VolatileFileSystem

if TYPE_CHECKING:
    from pathlib import Path


class Died(Exception):
    """The process is gone: nothing that it would still do happens."""


class FaultyDisk(VolatileFileSystem):
    """Counts its calls, and breaks at one of them.

    Attributes:
        calls: The names of the calls so far.
        at: The number of the call that breaks, from 0; None for none.
        how: `before` the call, `after` it, or `half`-way through what it writes.
        number: The error's number; None for the death of the process.
    """

    def __init__(self, at: int | None = None, how: str = "before", number: int | None = None):
        self.calls: list[str] = []
        self.at, self.how, self.number = at, how, number

    def _call(self, name: str, *args: Any, **options: Any) -> None:
        breaks = self.at == len(self.calls)
        dead = self.at is not None and self.number is None and len(self.calls) > self.at
        self.calls.append(name)
        if dead:
            raise Died
        if breaks and name == "write" and self.how == "half":
            args = (args[0], args[1][: len(args[1]) // 2])
        if not breaks or self.how != "before":
            getattr(super(), name)(*args, **options)
        if breaks:
            raise Died if self.number is None else OSError(self.number, "injected", str(args[0]))


def _breakable(name: str) -> Any:
    return lambda self, *args, **options: self._call(name, *args, **options)


for _name in set(vars(FileSystem)) - {"durable"}:
    if not _name.startswith("_"):
        setattr(FaultyDisk, _name, _breakable(_name))


@pytest.fixture
def faulty_disk() -> type[FaultyDisk]:
    return FaultyDisk


@pytest.fixture
def died() -> type[Died]:
    return Died


@pytest.fixture
def leftovers():
    return find_leftovers


def find_leftovers(root: Path) -> set[str]:
    """What is in a storage's folder that no manifest accounts for, and what it lacks."""
    files = {path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")}
    problems = {str(path.relative_to(root)) for path in files | set(root.glob(".*/*"))}
    for path in root.glob("videos/*_metadata.json"):
        problems.discard(f"videos/{path.name}")
        for file in json.loads(path.read_text())["files"]:
            place = root / file["tier"] / file["name"]
            whole = place in files and sha256(place.read_bytes()).hexdigest() == file["sha256"]
            problems ^= {str(place.relative_to(root)) if whole else f"damaged {place.name}"}
    return problems
