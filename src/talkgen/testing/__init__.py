"""For tests of what plugs into talkgen: the contracts as checks, and fakes for what is costly.

The checks are plain coroutine functions that raise `AssertionError`; any test framework can run
them, on any event loop. Fakes do what they are told, and need no hardware.
"""

from talkgen.testing._devices import FakeDevice, FakeModel, LoadedFake, Script
from talkgen.testing._journal import check_journal
from talkgen.testing._scheduler import check_scheduler
from talkgen.testing._simulation import Job, Simulation, Span
from talkgen.testing._storage import check_storage

__all__ = [
    "FakeDevice",
    "FakeModel",
    "Job",
    "LoadedFake",
    "Script",
    "Simulation",
    "Span",
    "check_journal",
    "check_scheduler",
    "check_storage",
]
