"""talkgen: a photo of a person and a recording of speech become a video of that person speaking.

The public names are imported when they are first used, so that `import talkgen` costs next to
nothing.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from talkgen.draft import Draft as Draft
    from talkgen.draft import Person as Person
    from talkgen.draft import Result as Result
    from talkgen.journal import MemoryJournal as MemoryJournal
    from talkgen.media import Image as Image
    from talkgen.media import Speech as Speech
    from talkgen.media import Text as Text
    from talkgen.media import Video as Video
    from talkgen.pipeline import Pipeline as Pipeline
    from talkgen.progress import ProgressTracker as ProgressTracker
    from talkgen.runs import Run as Run
    from talkgen.scheduling import LocalScheduler as LocalScheduler
    from talkgen.settings import Settings as Settings
    from talkgen.stages.background import RemoveBackground as RemoveBackground
    from talkgen.stages.background import ReplaceBackground as ReplaceBackground
    from talkgen.stages.detection import DetectPersons as DetectPersons
    from talkgen.stages.generation import GenerateVideo as GenerateVideo
    from talkgen.storage import LocalStorage as LocalStorage
    from talkgen.storage import MemoryStorage as MemoryStorage
    from talkgen.sync import iter_sync as iter_sync
    from talkgen.sync import run_sync as run_sync

_HOMES = {
    "DetectPersons": "talkgen.stages.detection",
    "Draft": "talkgen.draft",
    "GenerateVideo": "talkgen.stages.generation",
    "Image": "talkgen.media",
    "LocalScheduler": "talkgen.scheduling",
    "LocalStorage": "talkgen.storage",
    "MemoryJournal": "talkgen.journal",
    "MemoryStorage": "talkgen.storage",
    "Person": "talkgen.draft",
    "Pipeline": "talkgen.pipeline",
    "ProgressTracker": "talkgen.progress",
    "RemoveBackground": "talkgen.stages.background",
    "ReplaceBackground": "talkgen.stages.background",
    "Result": "talkgen.draft",
    "Run": "talkgen.runs",
    "Settings": "talkgen.settings",
    "Speech": "talkgen.media",
    "Text": "talkgen.media",
    "Video": "talkgen.media",
    "iter_sync": "talkgen.sync",
    "run_sync": "talkgen.sync",
}

__all__ = list(_HOMES)

# Whoever configures no logging hears nothing from a library.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
