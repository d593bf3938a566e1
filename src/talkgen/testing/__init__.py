"""For tests of what plugs into talkgen: the contracts as checks, and a stand-in for D-ID.

The checks are plain coroutine functions that raise `AssertionError`; any test framework can run
them, on any event loop.
"""

from talkgen.testing._journal import check_journal
from talkgen.testing._storage import check_storage
from talkgen.testing.fake_did import FakeDId

__all__ = ["FakeDId", "check_journal", "check_storage"]
