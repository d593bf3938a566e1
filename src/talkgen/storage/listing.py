"""Finding and counting published files; pure functions of what the manifests name."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from talkgen.errors import FileMissing
from talkgen.protocols import StorageStats, TierStats
from talkgen.storage.names import TIERS, check_file
from talkgen.storage.retention import file_infos

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from talkgen.media import FileRef, Tier
    from talkgen.protocols import DiskStats, FileInfo, Manifest
    from talkgen.storage.retention import Retention

__all__ = ["find", "identical", "in_order", "sizes", "statistics", "visible"]

MEBIBYTE = 2**20


def visible(manifest: Manifest | None, retention: Retention, now: datetime) -> tuple[FileInfo, ...]:
    """The files of a task whose time is not over; none of an unpublished task."""
    infos = file_infos(manifest, retention) if manifest else ()
    return tuple(info for info in infos if info.expires > now)


def find(file: FileRef, among: Iterable[FileInfo]) -> FileRef:
    """The published file that a reference names.

    Raises:
        FileMissing: There is none of this name and content.
        InvalidName: It is no file of its task.
    """
    check_file(file)
    for info in among:
        if identical(info.file, file):
            return info.file
    raise FileMissing(
        f"{file.name} is not published, or not with this content any more.",
        hint="It may have expired, or its task may have been deleted or run again.",
    )


def identical(one: FileRef, other: FileRef) -> bool:
    """Both name the same file with the same content."""
    return _identity(one) == _identity(other)


def in_order(infos: Iterable[FileInfo], tier: Tier | None) -> tuple[FileInfo, ...]:
    """Oldest first, of one tier or of all."""
    chosen = (info for info in infos if tier in {None, info.file.tier})
    return tuple(sorted(chosen, key=lambda info: (info.created, info.file.task_id)))


def sizes(infos: Iterable[FileInfo]) -> dict[Tier, tuple[int, int]]:
    """How many files each tier has, and their bytes, where it has any."""
    counted: dict[Tier, tuple[int, int]] = {}
    for info in infos:
        count, size = counted.get(info.file.tier, (0, 0))
        counted[info.file.tier] = count + 1, size + info.file.size
    return counted


def statistics(
    root: str,
    sizes: Mapping[Tier, tuple[int, int]],
    retention: Retention,
    disk: DiskStats | None,
) -> StorageStats:
    """Counts and sizes by tier.

    Args:
        root: Where the files are.
        sizes: How many files each tier has, and their bytes, where it has any.
        retention: How long they are kept.
        disk: The disk that they are on.
    """
    tiers = {
        tier: TierStats(
            file_count=count,
            size_mb=size / MEBIBYTE,
            retention_days=retention.of(tier) / timedelta(days=1),
        )
        for tier in TIERS
        for count, size in [sizes.get(tier, (0, 0))]
    }
    return StorageStats(
        storage_root=root,
        tiers=tiers,
        total_files=sum(tier.file_count for tier in tiers.values()),
        total_size_mb=sum(tier.size_mb for tier in tiers.values()),
        disk=disk,
    )


def _identity(file: FileRef) -> tuple[str, str, str, str]:
    return file.task_id, file.tier, file.name, file.sha256
