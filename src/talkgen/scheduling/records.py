"""What the scheduler's core keeps, and what it asks for."""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import attrs

if TYPE_CHECKING:
    from talkgen.protocols import Degradation, Model
    from talkgen.scheduling.faults import Outcome
    from talkgen.scheduling.ladder import Form

__all__ = [
    "CPU",
    "Action",
    "Call",
    "CallState",
    "DeviceRecord",
    "Instance",
    "InstanceState",
    "Lane",
    "Load",
    "ModelRecord",
    "Run",
    "Settle",
    "Tell",
    "Unload",
]

CPU = "cpu"
REMEMBERED = 512  # times that the quantiles are made from


@attrs.define(eq=False, repr=False)
class DeviceRecord:
    """A device.

    Attributes:
        name: Like `cpu` or `cuda:0`.
        slots: How many loads and batches at a time; None for as many as fit.
        capacity: Bytes that instances may reserve at most; None where they are not counted.
        budget: Bytes that they may reserve now, when last read; for people.
        used: Bytes in use when last read; for people.
        reserved: Bytes that instances have reserved.
        instances: Those that are there, in whatever state.
        active: How many of them load or run.
        running: How many of them run.
        kept_for: Nobody else gets anything here until this model has.
        lost: What took it out of service.
    """

    name: str
    slots: int | None = None
    capacity: int | None = None
    budget: int | None = None
    used: int | None = None
    reserved: int = 0
    instances: list[Instance] = attrs.field(factory=list)
    active: int = 0
    running: int = 0
    kept_for: ModelRecord | None = None
    lost: str | None = None
    since: float = 0.0
    busy: float = 0.0
    busy_since: float = 0.0

    def __repr__(self) -> str:
        return f"<device {self.name}>"

    @property
    def room(self) -> float:
        """Bytes that are not reserved."""
        return float("inf") if self.capacity is None else self.capacity - self.reserved

    @property
    def has_slot(self) -> bool:
        """One more may load or run."""
        return self.slots is None or self.active < self.slots

    @property
    def freeing(self) -> bool:
        """An instance is on its way out."""
        return any(i.state is InstanceState.CLOSING for i in self.instances)

    def is_for(self, record: ModelRecord) -> bool:
        """A model may get something here now."""
        return self.kept_for is None or self.kept_for is record


@attrs.define(eq=False, repr=False)
class ModelRecord:
    """A model, and what was seen of it.

    Attributes:
        model: The description.
        max_instances: How many there may be.
        bytes: What an instance takes, on each device where it may run.
        form: How a new call is run.
        places: Where a call of each form may run, as far as that was asked already.
        refused: There was no memory for it at the last try, against all accounts.
        refusals: How often in a row that was so with nothing of ours on the device.
        not_before: When a device that had no memory for it is asked again.
    """

    model: Model[Any, Any]
    max_instances: int
    bytes: dict[DeviceRecord, int]
    form: Form
    places: dict[Form, list[DeviceRecord]] = attrs.field(factory=dict)
    instances: list[Instance] = attrs.field(factory=list)
    waiting: int = 0
    refused: bool = False
    refusals: int = 0
    not_before: dict[DeviceRecord, float] = attrs.field(factory=dict)
    served: int = 0
    failed: int = 0
    batches: int = 0
    loads: int = 0
    evictions: int = 0
    waits: deque[float] = attrs.field(factory=lambda: deque(maxlen=REMEMBERED))
    runs: deque[float] = attrs.field(factory=lambda: deque(maxlen=REMEMBERED))

    def __repr__(self) -> str:
        return f"<model {self.model.key}>"


class InstanceState(Enum):
    """What an instance does."""

    LOADING = auto()
    IDLE = auto()
    RUNNING = auto()
    CLOSING = auto()


@attrs.define(eq=False, repr=False)
class Instance:
    """A model on a device, from the order to load it until its memory is free again.

    Attributes:
        record: The model.
        device: Where it is.
        bytes: What it has reserved there.
        since: When its state began.
        calls: The batch that it runs.
        fresh: It has not run yet.
    """

    record: ModelRecord
    device: DeviceRecord
    bytes: int
    since: float
    state: InstanceState = InstanceState.LOADING
    calls: tuple[Call, ...] = ()
    fresh: bool = True

    def __repr__(self) -> str:
        return f"<{self.record.model.key} on {self.device.name}, {self.state.name.lower()}>"


class CallState(Enum):
    """Where a call is."""

    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()  # settled, or left by its caller


@attrs.define(eq=False, repr=False)
class Call:
    """One item for one model.

    Attributes:
        number: Rises with the time of the call.
        owner: Whoever waits, for the one who does the actions.
        passed: How many batches of others began where it could have run, since it waits.
        moved: Why it leaves its device, until it is told on which it goes on.
        lost: A device failed while it was there, or while its model was loaded there.
    """

    number: int
    record: ModelRecord
    item: Any
    owner: Any
    submitted: float
    form: Form
    state: CallState = CallState.WAITING
    passed: int = 0
    moved: str = ""
    lost: bool = False

    def __repr__(self) -> str:
        return f"<call {self.number} of {self.record.model.key}, {self.state.name.lower()}>"


@attrs.define(eq=False)
class Lane:
    """The calls of one model and one form that wait, first come, first served."""

    record: ModelRecord
    form: Form
    calls: OrderedDict[int, Call] = attrs.field(factory=OrderedDict)

    @property
    def head(self) -> Call:
        """Who is next."""
        return next(iter(self.calls.values()))

    def add(self, call: Call) -> None:
        """Line a call up, before those that came after it."""
        later: list[int] = []
        if self.calls and next(reversed(self.calls)) > call.number:
            later = [number for number in self.calls if number > call.number]
        self.calls[call.number] = call
        for number in later:
            self.calls.move_to_end(number)


# --- what the core asks for --------------------------------------------------------------------


class Load(NamedTuple):
    """Load the model, where the device's memory holds all that is reserved on it.

    Attributes:
        instance: Whose model, and where.
        reserved: Bytes that all instances there have reserved, with this one.
        call: Who needs it: the first of those that wait.
    """

    instance: Instance
    reserved: int
    call: Call


class Run(NamedTuple):
    """Run a batch."""

    instance: Instance
    items: tuple[Any, ...]
    level: int


class Unload(NamedTuple):
    """Free the memory."""

    instance: Instance


class Tell(NamedTuple):
    """Tell a waiter about a step down."""

    call: Call
    degradation: Degradation


class Settle(NamedTuple):
    """Give a waiter its result or its error."""

    call: Call
    outcome: Outcome


Action: TypeAlias = Load | Run | Unload | Tell | Settle
