"""For tests of what plugs into talkgen: the contracts as checks, and fakes for what is costly.

The checks are plain coroutine functions that raise `AssertionError`; any test framework can run
them, on any event loop. Fakes do what they are told, and need no hardware.
"""

from talkgen.testing._devices import FakeDevice, FakeModel, LoadedFake, Script
from talkgen.testing._journal import check_journal
from talkgen.testing._paid import FakePaidGenerator, PaidServer, ServiceDown
from talkgen.testing._parts import (
    check_detector,
    check_generator,
    check_model,
    check_remover,
    check_stage,
)
from talkgen.testing._scheduler import check_scheduler
from talkgen.testing._simulation import Job, Simulation, Span
from talkgen.testing._storage import check_storage
from talkgen.testing.fake_did import FakeDId

__all__ = [
    "FakeDId",
    "FakeDevice",
    "FakeModel",
    "FakePaidGenerator",
    "Job",
    "LoadedFake",
    "PaidServer",
    "Script",
    "ServiceDown",
    "Simulation",
    "Span",
    "check_detector",
    "check_generator",
    "check_journal",
    "check_model",
    "check_remover",
    "check_scheduler",
    "check_stage",
    "check_storage",
]
