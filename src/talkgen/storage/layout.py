"""Where in its folder a storage keeps what; pure paths.

{root}/uploads processed videos temp/   published files, `{task_id}_{suffix}`
{root}/videos/{task_id}_metadata.json   the manifest that publishes them
{root}/temp/{uuid4}_scratch/            local folders for encoders
{root}/.staging/{task_id}/              an unfinished transaction
{root}/.trash/{task_id}~{uuid4}/        what is being deleted
{root}/.lock                            held while published files are changed
{root}/.index-1.sqlite                  a cache of the manifests, in its first form
{root}/.index-1.lock                    held while that is brought up to date
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING
from uuid import uuid4

import attrs

from talkgen.storage.names import MANIFEST_SUFFIX, TIERS, temporary_name

if TYPE_CHECKING:
    from pathlib import Path

    from talkgen.media import FileRef, Tier

__all__ = ["Layout"]

# In no task id, suffix or tier.
SEPARATOR = "~"


@attrs.frozen
class Layout:
    """The paths below a root.

    Attributes:
        root: Absolute.
    """

    root: Path

    @property
    def staging(self) -> Path:
        """The folders of unfinished transactions."""
        return self.root / ".staging"

    @property
    def trash(self) -> Path:
        """What is being deleted; emptied after a crash."""
        return self.root / ".trash"

    @property
    def lock(self) -> Path:
        """The file whose lock serialises changes to published files."""
        return self.root / ".lock"

    @property
    def index(self) -> Path:
        """The cache of the manifests."""
        return self.root / ".index-1.sqlite"

    @property
    def index_files(self) -> tuple[Path, Path]:
        """The cache, and the journal that SQLite keeps beside it."""
        return self.index, self.index.with_name(f"{self.index.name}-journal")

    @property
    def index_lock(self) -> Path:
        """The file whose lock serialises changes to the cache."""
        return self.root / ".index-1.lock"

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Every file beside the folders."""
        return (self.lock, self.index_lock, *self.index_files)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder that is always there."""
        return (*map(self.tier, TIERS), self.staging, self.trash)

    def tier(self, tier: Tier) -> Path:
        """The folder of a tier."""
        return self._tiers[tier]

    def place(self, file: FileRef) -> Path:
        """Where a file is once it is published."""
        return self.tier(file.tier) / file.name

    def url(self, tier: Tier, name: str) -> str:
        """The address of that place."""
        return f"{self._urls[tier]}/{name}"

    @cached_property
    def _tiers(self) -> dict[Tier, Path]:
        return {tier: self.root / tier for tier in TIERS}

    @cached_property
    def _urls(self) -> dict[Tier, str]:
        return {tier: folder.as_uri() for tier, folder in self._tiers.items()}

    def manifest(self, task_id: str) -> Path:
        """Where the manifest that publishes a task is."""
        return self.tier("videos") / f"{task_id}_{MANIFEST_SUFFIX}"

    def staged(self, file: FileRef) -> Path:
        """Where a file is until then."""
        return self.staging / file.task_id / f"{file.tier}{SEPARATOR}{file.name}"

    def plan(self, task_id: str) -> Path:
        """Where the manifest is while its files are being placed."""
        return self.staging / task_id / MANIFEST_SUFFIX

    def temporary(self, label: str) -> Path:
        """A new name in the temporary tier."""
        return self.tier("temp") / temporary_name(label)

    def discarded(self, task_id: str) -> Path:
        """A new folder of the trash."""
        return self.trash / f"{task_id}{SEPARATOR}{uuid4()}"
