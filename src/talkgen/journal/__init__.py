"""What was done for each task, so that nothing is done twice.

What an attempt may do to a record is decided by pure functions of the record; a journal only
keeps records and says who owns which.
"""

from talkgen.journal.memory import MemoryJournal
from talkgen.journal.sqlite import SQLiteJournal

__all__ = ["MemoryJournal", "SQLiteJournal"]
