"""One task's unfinished transaction in an object store.

A file goes at once to the place where it will be published, which nobody can guess, and a record
of it is written before. Whatever no edition names therefore has a record, and goes with it when
the transaction ends, in whichever process.
"""

from __future__ import annotations

import json
import threading
import time
from hashlib import sha256
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from talkgen.errors import FileMissing, StorageError
from talkgen.media import FileRef
from talkgen.protocols import Manifest
from talkgen.storage import manifests
from talkgen.storage.editions import Edition, new_token, object_key, record_folder, stem
from talkgen.storage.listing import identical
from talkgen.storage.names import check_file, check_tier, file_name
from talkgen.storage.staging import being_published, describe, not_staged

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from talkgen._types import JSON
    from talkgen.media import Tier
    from talkgen.protocols import NewFile
    from talkgen.storage.bucket import Bucket
    from talkgen.storage.editions import Editions

__all__ = ["StagedObjects", "read_exactly"]


@attrs.frozen
class Staged:
    """A staged file.

    Attributes:
        file: The file.
        token: Where its bytes are.
        order: The later of two with one name counts.
    """

    file: FileRef
    token: str
    order: int

    @property
    def key(self) -> str:
        """The object of the file."""
        return object_key(self.file.tier, self.file.name, self.token)


class StagedObjects:
    """What is staged for one task, by this transaction or one before; every call blocks."""

    def __init__(
        self, task_id: str, bucket: Bucket, editions: Editions, clock: Callable[[], datetime]
    ) -> None:
        """Take up what an earlier process left."""
        self._task_id = task_id
        self._bucket = bucket
        self._editions = editions
        self._clock = clock
        self._lock = threading.Lock()
        self._order = 0
        self._publication = new_token()
        self._planned: Edition | None = None
        _, edition = editions.newest(task_id)
        self._base = edition.publication if edition else None
        self._objects: dict[str, str] = {}  # of all records, also of what was replaced
        self._files: dict[tuple[Tier, str], Staged] = {}
        self._take_up(edition.keys if edition else frozenset())

    def put(self, *new: NewFile) -> tuple[FileRef, ...]:
        """Keep files, moving those that are paths."""
        if self._planned is not None:
            raise being_published(self._task_id)
        return tuple(starmap(self._put, new))

    def _put(self, tier: Tier, suffix: str, data: bytes | Path) -> FileRef:
        check_tier(tier)
        file = describe(self._task_id, tier, file_name(self._task_id, suffix), data)
        token = new_token()
        file = attrs.evolve(file, url=self._bucket.url(object_key(tier, file.name, token)))
        staged = Staged(file, token, self._next_order())
        self._write(staged, data)
        with self._lock:
            self._keep(staged)
        if isinstance(data, Path):
            data.unlink()
        return file

    def read(self, file: FileRef) -> bytes:
        """The bytes of a file of this task, also once it is published."""
        check_file(file)
        if file.task_id != self._task_id:
            raise not_staged(self._task_id, file)
        staged = self._files.get((file.tier, file.name))
        if staged and identical(staged.file, file):
            return read_exactly(self._bucket, staged.key, file)
        _, edition = self._editions.newest(self._task_id)
        for published in edition.manifest.files if edition and edition.manifest else ():
            if edition and identical(published, file):
                return read_exactly(self._bucket, edition.key(published), file)
        raise not_staged(self._task_id, file)

    def retain(self, files: Collection[FileRef]) -> None:
        """Remove what is staged beside these files, unless it is being published already."""
        if self._planned is not None:
            return
        wanted = {(file.tier, file.name) for file in files}
        with self._lock:
            self._files = {at: staged for at, staged in self._files.items() if at in wanted}
            kept = {staged.key for staged in self._files.values()}
            others = [record for record, key in self._objects.items() if key not in kept]
        _, current = self._editions.newest(self._task_id)
        self._drop(others, current)

    def publish(self, result: JSON) -> Manifest:
        """Make the files visible, going on where an earlier call was broken off."""
        number, current = self._editions.newest(self._task_id)
        if not self._files and self._planned is None and current and current.manifest:
            self._editions.sweep(self._task_id)
            self._finish(current)
            return current.manifest
        planned = self._plan(result)
        while current is None or current.publication != self._publication:
            if current and current.manifest and current.publication != self._base:
                raise self._lost(current)
            if self._editions.follow(self._task_id, number, planned):
                break
            number, current = self._editions.newest(self._task_id)
        self._editions.sweep(self._task_id)
        self._finish(planned)
        assert planned.manifest is not None  # noqa: S101 - plans have one
        return planned.manifest

    def discard(self) -> None:
        """Remove what is staged, and what publishing that was broken off has made of it."""
        _, current = self._editions.newest(self._task_id)
        if current and current.publication == self._publication:
            self._editions.delete(self._task_id)
            current = None
        self._editions.sweep(self._task_id)
        self._finish(current)

    def _write(self, staged: Staged, data: bytes | Path) -> None:
        file = staged.file
        record = f"{record_folder(self._task_id)}/{staged.token}.json"
        document = {
            "tier": file.tier,
            "name": file.name,
            "size": file.size,
            "sha256": file.sha256,
            "order": staged.order,
        }
        with self._lock:
            self._objects[record] = staged.key
        self._bucket.put(record, json.dumps(document).encode())
        self._bucket.put(staged.key, data)

    def _take_up(self, published: frozenset[str]) -> None:
        for record in self._bucket.objects(record_folder(self._task_id)):
            staged = self._recorded(record)
            self._order = max(self._order, staged.order)
            self._objects[record] = staged.key
            # What is published was left over by the end of publishing; what is not there, by
            # the death of a writer.
            if staged.key not in published and self._bucket.has(staged.key):
                self._keep(staged)

    def _recorded(self, record: str) -> Staged:
        data = self._bucket.get(record)
        with manifests.damage_told(self._task_id):
            entry = json.loads(data)
            file = FileRef(
                self._task_id, entry["tier"], entry["name"], entry["size"], entry["sha256"]
            )
            check_file(file)
            staged = Staged(file, stem(record), int(entry["order"]))
        return attrs.evolve(staged, file=attrs.evolve(file, url=self._bucket.url(staged.key)))

    def _next_order(self) -> int:
        """The time, but later than all before: clocks are set back, too."""
        with self._lock:
            self._order = max(time.time_ns(), self._order + 1)
            return self._order

    def _keep(self, staged: Staged) -> None:
        place = staged.file.tier, staged.file.name
        other = self._files.get(place)
        if other is None or other.order <= staged.order:
            self._files[place] = staged

    def _plan(self, result: JSON) -> Edition:
        """Decide what to publish; all of it must be there."""
        if self._planned is None:
            chosen = [self._files[place] for place in sorted(self._files)]
            files = tuple(staged.file for staged in chosen)
            manifest = Manifest(self._task_id, self._clock(), files, manifests.copied(result))
            tokens = {(one.file.tier, one.file.name): one.token for one in chosen}
            self._planned = Edition(self._publication, manifest, tokens)
        for key in self._planned.keys:
            if not self._bucket.has(key):
                raise FileMissing(f"Could not publish task {self._task_id}: {key} has gone.")
        return self._planned

    def _lost(self, winner: Edition) -> StorageError:
        self._finish(winner)
        return StorageError(
            f"Task {self._task_id} was published by somebody else meanwhile; "
            "what this transaction had staged was removed.",
            hint="Give each task one owner at a time, or open it again to replace what is there.",
        )

    def _finish(self, current: Edition | None) -> None:
        """Remove all that is staged."""
        self._drop(list(self._objects), current)
        self._files = {}

    def _drop(self, records: Collection[str], current: Edition | None) -> None:
        """Remove the objects of some records that are not published, then the records."""
        published = current.keys if current else frozenset()
        self._bucket.remove(frozenset(self._objects[record] for record in records) - published)
        self._bucket.remove(records)
        for record in records:
            del self._objects[record]


def read_exactly(bucket: Bucket, key: str, file: FileRef) -> bytes:
    """An object's bytes, when they are those that the reference names.

    Raises:
        FileMissing: It is not there, or is damaged.
    """
    data = bucket.get(key)
    if sha256(data).hexdigest() != file.sha256:
        raise FileMissing(f"{key} in {bucket.address} has other content than {file.name} had.")
    return data
