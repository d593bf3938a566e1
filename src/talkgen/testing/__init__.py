"""For tests of what plugs into talkgen: the contracts as checks, and fakes.

The checks are plain coroutine functions that raise `AssertionError`; any test framework can run
them, on any event loop.
"""

from talkgen.testing._journal import check_journal
from talkgen.testing._paid import FakePaidGenerator, PaidServer, ServiceDown
from talkgen.testing._storage import check_storage

__all__ = ["FakePaidGenerator", "PaidServer", "ServiceDown", "check_journal", "check_storage"]
