"""The JSON form of a manifest: what is in `{task_id}_metadata.json`."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from talkgen.errors import FileMissing, StorageError
from talkgen.media import FileRef
from talkgen.protocols import Manifest
from talkgen.storage.filesystem import read_plain
from talkgen.storage.names import check_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from talkgen._types import JSON
    from talkgen.media import Tier

__all__ = [
    "DamagedManifest",
    "copied",
    "damage_told",
    "decode",
    "document",
    "encode",
    "from_document",
    "read",
]

VERSION = 1


class DamagedManifest(StorageError):
    """What should be a manifest is none."""


def encode(manifest: Manifest) -> bytes:
    """The manifest as JSON text. URLs are left out: the folder may move.

    Raises:
        TypeError: The result is not JSON.
        ValueError: The result holds a number that JSON lacks.
    """
    return json.dumps(document(manifest), indent=2, allow_nan=False).encode()


def document(manifest: Manifest) -> dict[str, JSON]:
    """The manifest as a part of a JSON document."""
    return {
        "version": VERSION,
        "task_id": manifest.task_id,
        "created": manifest.created.isoformat(),
        "files": [
            {"name": file.name, "tier": file.tier, "size": file.size, "sha256": file.sha256}
            for file in manifest.files
        ],
        "result": manifest.result,
    }


def copied(result: JSON) -> JSON:
    """The result as readers will see it, so that nobody changes it.

    Raises:
        TypeError: It is not JSON.
        ValueError: It holds a number that JSON lacks.
    """
    return json.loads(json.dumps(result, allow_nan=False))


def decode(task_id: str, data: bytes, url_of: Callable[[Tier, str], str]) -> Manifest:
    """Read a manifest.

    Args:
        task_id: The task whose manifest it must be.
        data: The JSON text.
        url_of: Gives the address of a file by tier and name.

    Raises:
        DamagedManifest: It is no manifest, another task's, or names what is not the task's.
    """
    with damage_told(task_id):
        return from_document(task_id, json.loads(data), url_of)


def read(task_id: str, path: Path, url_of: Callable[[Tier, str], str]) -> Manifest | None:
    """Read a manifest from its file; None where there is none.

    Raises:
        StorageError: It cannot be read, or is damaged; see `decode`.
    """
    try:
        data = read_plain(path)
    except FileMissing:
        return None
    return decode(task_id, data, url_of)


@contextmanager
def damage_told(task_id: str) -> Iterator[None]:
    """Turn the failures of reading a manifest into one error.

    Raises:
        DamagedManifest: It is no manifest, or not this task's.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedManifest(
            f"The manifest of task {task_id} is damaged: {error!r}.",
            hint="Put it back from a copy, or delete the task.",
        ) from error


def from_document(task_id: str, document: JSON, url_of: Callable[[Tier, str], str]) -> Manifest:
    """The manifest in a JSON document; any failure means that it is damaged."""
    if (document["version"], document["task_id"]) != (VERSION, task_id):
        raise ValueError(f"version {document['version']} of task {document['task_id']!r}")
    created = datetime.fromisoformat(document["created"])
    if created.tzinfo is None:
        raise ValueError("created has no time zone")
    return Manifest(
        task_id=task_id,
        created=created,
        files=tuple(_file(task_id, entry, url_of) for entry in document["files"]),
        result=document["result"],
    )


def _file(task_id: str, entry: JSON, url_of: Callable[[Tier, str], str]) -> FileRef:
    tier, name = entry["tier"], entry["name"]
    url = url_of(tier, name)
    file = FileRef(task_id, tier, name, entry["size"], entry["sha256"], url)
    check_file(file)
    return file
