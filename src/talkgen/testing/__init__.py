"""For tests of what plugs into talkgen: the contracts as checks.

The checks are plain coroutine functions that raise `AssertionError`; any test framework can run
them, on any event loop.
"""

from talkgen.testing._journal import check_journal
from talkgen.testing._storage import check_storage

__all__ = ["check_journal", "check_storage"]
