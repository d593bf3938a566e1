"""What a pipeline has where it is given nothing, and the scheduler that pipelines share."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from talkgen.cache import ResultCache
from talkgen.scheduling import LocalScheduler
from talkgen.stages.background import RemoveBackground
from talkgen.stages.detection import DetectPersons
from talkgen.stages.generation import GenerateVideo
from talkgen.storage import LocalStorage, Retention

if TYPE_CHECKING:
    from talkgen.protocols import Stage, Storage
    from talkgen.settings import Settings

__all__ = [
    "default_cache",
    "default_stages",
    "default_storage",
    "shared_scheduler",
]


def default_stages(settings: Settings) -> tuple[Stage, ...]:
    """The whole job: find the person, cut them out, make them speak."""
    return (
        DetectPersons(confidence=settings.confidence_threshold),
        RemoveBackground(),
        GenerateVideo(),
    )


def default_storage(settings: Settings) -> LocalStorage:
    """The folder that the settings name, else a temporary one."""
    if settings.storage_root is None:
        return LocalStorage.temporary()
    retention = Retention(
        uploads=timedelta(days=settings.retention_uploads_days),
        processed=timedelta(days=settings.retention_processed_days),
        videos=timedelta(days=settings.retention_videos_days),
    )
    min_free_bytes = int(settings.min_free_space_gb * 2**30)
    return LocalStorage(settings.storage_root, retention=retention, min_free_bytes=min_free_bytes)


def default_cache(settings: Settings, storage: Storage) -> ResultCache | None:
    """What remembers the models' results; None where the settings keep none."""
    if not settings.cache_megabytes:
        return None
    return ResultCache(storage, max_bytes=int(settings.cache_megabytes * 2**20))


class SharedScheduler:
    """The one scheduler of the process, made for its first user.

    It is not closed when its last user leaves: its models stay warm for the next one, for as long
    after their last use as `LocalScheduler` keeps them. What is left then holds neither weights
    nor threads.
    """

    def __init__(self) -> None:
        """Make nothing yet."""
        self._lock = threading.Lock()
        self._made: LocalScheduler | None = None
        self._process = 0

    def get(self) -> LocalScheduler:
        """The scheduler; a forked process, to which no thread came along, gets one of its own."""
        with self._lock:
            if self._made is None or self._process != os.getpid():
                self._made, self._process = LocalScheduler(), os.getpid()
            return self._made


shared_scheduler = SharedScheduler()
