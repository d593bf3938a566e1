"""Published files in an object store: the newest edition of a task says what there is.

    {tier}/{token}/{task_id}_{suffix}   an object, for good at this unguessable place
    manifests/{task_id}/{number}.json   an edition: the manifest, and the tokens of its objects
    staging/{task_id}/{token}.json      the record of a staged object

An edition is never changed, only followed: whoever publishes, deletes or cleans up writes the
next number, on condition that there is none yet. Of two writers exactly one succeeds, on every
store that can create on condition, and nobody's deletion can hit what came later; a store's own
deletion knows no condition. An edition without a manifest says that the task was deleted.

Older editions are the list of what is to go: the objects that the newest one does not name, then
they themselves. Whoever was stopped in between is finished by the next to come.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from typing import TYPE_CHECKING

import attrs

from talkgen.errors import FileMissing
from talkgen.storage import manifests
from talkgen.storage.names import TIERS, task_of
from talkgen.storage.retention import expired_files, remainder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from talkgen._types import JSON
    from talkgen.media import FileRef, Tier
    from talkgen.protocols import Manifest
    from talkgen.storage.bucket import Bucket
    from talkgen.storage.retention import Retention

__all__ = [
    "STAGING",
    "Edition",
    "Editions",
    "new_token",
    "object_key",
    "record_folder",
    "stem",
]

logger = logging.getLogger("talkgen.storage")

TOKEN_BYTES = 16  # 128 bits, as a random UUID has
TOKEN = re.compile(r"[0-9a-f]{32}")
FOLDER, STAGING = "manifests", "staging"


@attrs.frozen
class Edition:
    """What is published of a task.

    Attributes:
        publication: The token of the transaction that published it; clean-up keeps it.
        manifest: The files; None once the task is deleted.
        tokens: The token of each file, by tier and name.
    """

    publication: str
    manifest: Manifest | None = None
    tokens: Mapping[tuple[Tier, str], str] = attrs.field(factory=dict)

    @property
    def keys(self) -> frozenset[str]:
        """The objects of all files."""
        return frozenset(map(self.key, self.manifest.files if self.manifest else ()))

    def key(self, file: FileRef) -> str:
        """The object of a file."""
        return object_key(file.tier, file.name, self.tokens[file.tier, file.name])


class Editions:
    """Reads and writes the editions of all tasks; every call blocks."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def objects(self) -> dict[str, dict[str, str]]:
        """By task, the keys of its editions, oldest first, with the version of each."""
        tasks: dict[str, dict[str, str]] = {}
        for key, version in self._bucket.objects(FOLDER).items():
            tasks.setdefault(key.split("/")[1], {})[key] = version
        return tasks

    def newest(self, task_id: str) -> tuple[int, Edition | None]:
        """The last number, and what is published; 0 and None where nothing ever was."""
        while keys := list(self._bucket.objects(_folder(task_id))):
            try:
                return _number(keys[-1]), self.read(keys[-1])
            except FileMissing:  # deleted, or followed and swept, since it was listed
                continue
        return 0, None

    def read(self, key: str) -> Edition:
        """An edition.

        Raises:
            FileMissing: There is none of this number any more.
            StorageError: It is damaged.
        """
        task_id, data = key.split("/")[1], self._bucket.get(key)
        with manifests.damage_told(task_id):
            return self._decoded(task_id, json.loads(data))

    def readable(self, key: str) -> Edition | None:
        """An edition; nothing if it has gone, nor, but for a line in the log, if it is damaged."""
        try:
            return self.read(key)
        except FileMissing:
            return None
        except manifests.DamagedManifest:
            logger.exception("%s is left out: it cannot be read.", key)
            return None

    def follow(self, task_id: str, number: int, edition: Edition) -> bool:
        """Write the edition after a number; False if somebody else has."""
        return self._bucket.create(_key(task_id, number + 1), encode(edition))

    def delete(self, task_id: str) -> None:
        """Make a task invisible, then remove its objects."""
        while number := self._last(task_id):
            if self.follow(task_id, number, Edition(new_token())):
                break
        self.sweep(task_id)

    def expire(
        self, task_id: str, retention: Retention, now: datetime
    ) -> tuple[tuple[FileRef, ...], bool]:
        """Remove a task's files whose time is over, and the editions with the last of them.

        Returns:
            The files, and whether nothing is left of the task.
        """
        number, edition = self.newest(task_id)
        if edition is None or edition.manifest is None:
            self.sweep(task_id)
            return (), False
        left = remainder(edition.manifest, retention, now)
        following = attrs.evolve(edition, manifest=left)
        if left != edition.manifest and not self.follow(task_id, number, following):
            return (), False  # it has just been published again, or deleted
        self.sweep(task_id)
        return expired_files(edition.manifest, retention, now), left is None

    def sweep(self, task_id: str) -> None:
        """Remove what older editions name and the newest does not, and then them."""
        *older, last = list(self._bucket.objects(_folder(task_id))) or [""]
        if not last:
            return
        newest = self.read(last)
        doomed = [self._doomed(key) for key in older]
        self._bucket.remove(frozenset().union(*doomed) - newest.keys)
        self._bucket.remove(older)
        if newest.manifest is None:
            self._bucket.remove([last])

    def _last(self, task_id: str) -> int:
        keys = list(self._bucket.objects(_folder(task_id)))
        return _number(keys[-1]) if keys else 0

    def _doomed(self, key: str) -> frozenset[str]:
        try:
            return self.read(key).keys
        except FileMissing:  # somebody else has swept
            return frozenset()
        except manifests.DamagedManifest:  # its objects are to go all the same
            return self._named(key.split("/")[1])

    def _named(self, task_id: str) -> frozenset[str]:
        """Every object of a task, found by name, but for those that are staged."""
        staged = {stem(key) for key in self._bucket.objects(record_folder(task_id))}
        return frozenset(
            key
            for tier in TIERS
            for key in self._bucket.objects(tier)
            if task_of(key.rpartition("/")[2]) == task_id and key.split("/")[1] not in staged
        )

    def _decoded(self, task_id: str, document: JSON) -> Edition:
        tokens = {_place(place): _checked(token) for place, token in document["tokens"].items()}
        edition = Edition(str(document["publication"]), None, tokens)
        if document["manifest"] is None:
            return edition

        def url_of(tier: Tier, name: str) -> str:
            return self._bucket.url(object_key(tier, name, tokens[tier, name]))

        manifest = manifests.from_document(task_id, document["manifest"], url_of)
        return attrs.evolve(edition, manifest=manifest)


def encode(edition: Edition) -> bytes:
    """An edition as JSON text.

    Raises:
        TypeError: The result is not JSON.
        ValueError: The result holds a number that JSON lacks.
    """
    files = edition.manifest.files if edition.manifest else ()
    document = {
        "publication": edition.publication,
        "tokens": {
            f"{file.tier}/{file.name}": edition.tokens[file.tier, file.name] for file in files
        },
        "manifest": edition.manifest and manifests.document(edition.manifest),
    }
    return json.dumps(document, indent=2, allow_nan=False).encode()


def new_token() -> str:
    """Unguessable, and like no other."""
    return secrets.token_hex(TOKEN_BYTES)


def object_key(tier: Tier, name: str, token: str) -> str:
    """Where a file's bytes are."""
    return f"{tier}/{token}/{name}"


def record_folder(task_id: str) -> str:
    """Where the records of a task's staged objects are."""
    return f"{STAGING}/{task_id}"


def _folder(task_id: str) -> str:
    return f"{FOLDER}/{task_id}"


def _key(task_id: str, number: int) -> str:
    return f"{_folder(task_id)}/{number:09d}.json"


def _number(key: str) -> int:
    return int(stem(key))


def stem(key: str) -> str:
    """The last part of a key, without its ending."""
    return key.rpartition("/")[2].removesuffix(".json")


def _place(text: str) -> tuple[Tier, str]:
    tier, _, name = text.partition("/")
    return tier, name  # type: ignore[return-value]  # the manifest's files are checked


def _checked(token: object) -> str:
    if not isinstance(token, str) or not TOKEN.fullmatch(token):
        raise ValueError(f"{token!r} is no token")
    return token
