"""How long files are kept, and what follows from it; pure functions of manifests and a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs

from talkgen.protocols import FileInfo

if TYPE_CHECKING:
    from talkgen.media import FileRef, Tier
    from talkgen.protocols import Manifest

__all__ = [
    "Retention",
    "expired_files",
    "expired_until",
    "expires",
    "file_info",
    "file_infos",
    "remainder",
]

FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)
LAST_MOMENT = datetime.max.replace(tzinfo=UTC)


@attrs.frozen
class Retention:
    """How long published files of each tier are kept; `timedelta.max` is for ever.

    Attributes:
        uploads: Originals.
        processed: What the stages made.
        videos: Videos, and the manifests that hold the results.
        temp: Everything else, and temporary files that a dead process left.
    """

    uploads: timedelta = timedelta(days=7)
    processed: timedelta = timedelta(days=3)
    videos: timedelta = timedelta(days=30)
    temp: timedelta = timedelta(hours=1)

    def of(self, tier: Tier) -> timedelta:
        """How long this tier's files are kept."""
        duration: timedelta = getattr(self, tier)
        return duration


def expires(created: datetime, tier: Tier, retention: Retention) -> datetime:
    """When a file's time is over."""
    return created + min(retention.of(tier), LAST_MOMENT - created)


def expired_until(tier: Tier, retention: Retention, now: datetime) -> datetime:
    """The latest time of publication of which a file's time is over."""
    if now >= LAST_MOMENT:
        return now
    return now - min(retention.of(tier), now - FIRST_MOMENT)


def file_infos(manifest: Manifest, retention: Retention) -> tuple[FileInfo, ...]:
    """Each file of a task with its times."""
    return tuple(file_info(file, manifest.created, retention) for file in manifest.files)


def file_info(file: FileRef, created: datetime, retention: Retention) -> FileInfo:
    """A published file with its times."""
    return FileInfo(file, created, expires(created, file.tier, retention))


def expired_files(manifest: Manifest, retention: Retention, now: datetime) -> tuple[FileRef, ...]:
    """The files whose time is over."""
    return tuple(info.file for info in file_infos(manifest, retention) if info.expires <= now)


def remainder(manifest: Manifest, retention: Retention, now: datetime) -> Manifest | None:
    """The manifest without its expired files.

    It is kept as long as a video is, because it holds the result, and longer where a file of
    the task is; one without a result goes with its last file. None once it is to go.
    """
    expired = expired_files(manifest, retention, now)
    files = tuple(file for file in manifest.files if file not in expired)
    over = expires(manifest.created, "videos", retention) <= now
    if not files and (over or (manifest.files and manifest.result is None)):
        return None
    return attrs.evolve(manifest, files=files)
