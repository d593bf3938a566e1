"""Who runs which model when."""

from talkgen.scheduling.local import LocalScheduler

__all__ = ["LocalScheduler"]
