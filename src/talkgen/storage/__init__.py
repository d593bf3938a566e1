"""Where files live: in a folder of this machine, or in memory."""

from talkgen.storage.local import LocalStorage
from talkgen.storage.memory import MemoryStorage
from talkgen.storage.retention import Retention

__all__ = ["LocalStorage", "MemoryStorage", "Retention"]
