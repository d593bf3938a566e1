"""Where files live: in a folder of this machine, in an object store, or in memory."""

from talkgen.storage.local import LocalStorage
from talkgen.storage.memory import MemoryStorage
from talkgen.storage.objects import ObjectStorage
from talkgen.storage.retention import Retention

__all__ = ["LocalStorage", "MemoryStorage", "ObjectStorage", "Retention"]
