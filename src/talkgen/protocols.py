"""The ports of the library: what a stage, a backend, a model, a store must be, and may touch.

Every protocol is structural: nothing has to inherit from it. `talkgen.testing` has the contract
checks and a fake for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeAlias, TypeVar

import attrs

from talkgen.draft import TaskState  # noqa: TC001 - a public name of this module
from talkgen.media import FileRef, Tier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from pathlib import Path

    from anyio.abc import ByteReceiveStream

    from talkgen._types import JSON
    from talkgen.draft import Draft, Person
    from talkgen.media import Image, Speech, Text, Video
    from talkgen.settings import Settings

__all__ = [
    "Backends",
    "BackgroundRemover",
    "Checkpoint",
    "CleanupReport",
    "Codec",
    "Degradation",
    "Detector",
    "DeviceStats",
    "DiskStats",
    "FileInfo",
    "FileRef",
    "GPUScheduler",
    "Journal",
    "LoadedModel",
    "Manifest",
    "Model",
    "ModelStats",
    "Operation",
    "Operations",
    "Quantiles",
    "SchedulerStats",
    "Settlement",
    "Stage",
    "StageContext",
    "StagedFiles",
    "Storage",
    "StorageStats",
    "TaskJournal",
    "TaskRecord",
    "TaskSpec",
    "Tier",
    "TierStats",
    "Transaction",
    "VideoGenerator",
]

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
T = TypeVar("T")
T_In = TypeVar("T_In")
T_Out = TypeVar("T_Out")


# --- stages ------------------------------------------------------------------------------------


class Stage(Protocol):
    """One step of a pipeline.

    A stage may also have `optional = True`: a run then goes on without it when it fails, with a
    `Degraded` event, unless the pipeline is strict. Where the pipeline's backends are part of what
    it is, it has a method `bound(backends)`, which gives the stage with them in its key.

    Attributes:
        name: Names its events: `{name}_running`, `{name}_complete`.
        key: The name and every parameter that changes the output, never a secret. A task is
            resumed only by stages of the same keys.
        weight: Its share of the progress, beside other custom stages.
        requires: Draft fields that must be there before it.
        provides: Draft fields that it fills in.
        resets: Draft fields that it makes anew, losing what earlier stages did to them.
    """

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def requires(self) -> frozenset[str]: ...
    @property
    def provides(self) -> frozenset[str]: ...
    @property
    def resets(self) -> frozenset[str]: ...

    async def run(self, draft: Draft, context: StageContext) -> Draft:
        """Give back the draft with more filled in; the one passed in is never changed."""
        ...


@attrs.frozen
class Codec(Generic[T]):
    """How a kind of result becomes bytes and back, without loss; both run in a thread.

    Attributes:
        dump: The bytes of a result.
        load: The result that was dumped; raises whatever it likes where the bytes are none.
    """

    dump: Callable[[T], bytes]
    load: Callable[[bytes], T]


class StageContext(Protocol):
    """What a stage may touch, and nothing else.

    Attributes:
        task_id: The task.
        attempt: 1 for the first run of the task.
        settings: The pipeline's.
        backends: What it uses where it was given nothing of its own.
        scheduler: Runs models; tells the run of every step down.
        files: The task's own, published with it or not at all.
        operations: Outside actions that must not be repeated.
    """

    @property
    def task_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def backends(self) -> Backends: ...
    @property
    def scheduler(self) -> GPUScheduler: ...
    @property
    def files(self) -> StagedFiles: ...
    @property
    def operations(self) -> Operations: ...

    def report(
        self, fraction: float, message: str, *, stage: str | None = None, **metadata: JSON
    ) -> None:
        """Tell how far the stage is. From any thread; never waits; thinned before numbering.

        Args:
            fraction: 0..1 of the stage's span.
            message: For people, one line.
            stage: The step to show; `{name}_running` by default.
            metadata: Facts, JSON only.
        """
        ...

    def degraded(self, message: str, **metadata: JSON) -> None:
        """Tell that the result will be less than asked for.

        Raises:
            talkgen.errors.Degraded: The pipeline is strict.
        """
        ...

    def preview(self, image: Image) -> None:
        """Show a picture of the work so far. From any thread; never waits.

        Offer as many as there are: a few a second are told, and none unless the pipeline was
        made with `previews=True`. The portrait that a stage has made is shown by the run.
        """
        ...

    async def remember(self, key: str, make: Callable[[], Awaitable[T]], codec: Codec[T]) -> T:
        """What `make` gave an earlier task with the same photo and key, or gives now.

        Nothing is kept of a call during which something was degraded.

        Args:
            key: All that the result depends on beside the photo; never a secret.
            make: Makes the result.
            codec: Its kind: `talkgen.cache.IMAGE`, `talkgen.cache.PERSONS`, or another.
        """
        ...


# --- backends ----------------------------------------------------------------------------------


class Detector(Protocol):
    """Finds people."""

    async def detect(
        self,
        image: Image,
        *,
        scheduler: GPUScheduler,
        confidence: float = 0.5,
        iou: float = 0.45,
    ) -> tuple[Person, ...]:
        """All persons at or above the confidence, best first, numbered from 1."""
        ...


class BackgroundRemover(Protocol):
    """Cuts a person out.

    A remover may also have `refined = True`: its alpha and its colours are final, and are not
    smoothed any more. And `shortfall`, a sentence or None: what is less than was asked for on
    this machine, which a run then tells with a `Degraded` event.
    """

    async def remove(self, image: Image, *, scheduler: GPUScheduler) -> Image:
        """RGBA of the same size, alpha straight (not multiplied into the colours)."""
        ...


class VideoGenerator(Protocol):
    """Makes a portrait speak; the only backend that needs files and operations.

    Attributes:
        accepts_text: Takes `Text` and speaks it itself.
        key: The name and every parameter that changes the output, never a secret.
    """

    @property
    def accepts_text(self) -> bool: ...
    @property
    def key(self) -> str: ...

    async def generate(
        self, portrait: Image, speech: Speech | Text, context: StageContext
    ) -> Video:
        """The video, its file staged through `context.files`."""
        ...


@attrs.frozen
class Backends:
    """What the stages use where they were given nothing of their own.

    Attributes:
        detector: For `DetectPersons`.
        remover: For `RemoveBackground`.
        generator: For `GenerateVideo`.
    """

    detector: Detector
    remover: BackgroundRemover
    generator: VideoGenerator


# --- models and the scheduler ------------------------------------------------------------------


class Model(Protocol[In, Out]):
    """What can be loaded on a device: a frozen, hashable, picklable description.

    Attributes:
        key: The name, the weights' hash and the precision.
        max_instances: How many may be loaded at a time.
        max_batch: How many items one call takes.
        levels: Sizes it can run at; 0 is the full one, each next needs less memory.
        device: Where it may run: `auto`, a kind (`cpu`, `cuda`, `mps`) or one device (`cuda:1`).
    """

    @property
    def key(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def max_instances(self) -> int: ...
    @property
    def max_batch(self) -> int: ...
    @property
    def levels(self) -> int: ...

    def vram_bytes(self, device: str) -> int:
        """Peak memory of one instance: weights and a full batch at level 0."""
        ...

    def load(self, device: str) -> LoadedModel[In, Out]:
        """Load the weights; called in a worker thread.

        Raises:
            talkgen.errors.ModelUnavailable: The weights are absent or damaged.
        """
        ...


class LoadedModel(Protocol[In, Out]):
    """A model on a device. Used by one thread at a time, never pickled."""

    def run(self, batch: Sequence[In], *, level: int = 0) -> Sequence[Out]:
        """One result for each item, in order, in host memory; no side effects."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


@attrs.frozen
class Degradation:
    """A step down that the scheduler took for one item.

    Attributes:
        action: What was done.
        level: The level used from then on.
        device: The device used from then on.
        reason: Why, for people.
    """

    action: Literal["evicted", "split", "level", "device"]
    level: int
    device: str
    reason: str = ""


@attrs.frozen
class Quantiles:
    """Of the latest few hundred times, in seconds; None before the first.

    Attributes:
        p50: The median.
        p90: Nine of ten were shorter.
        p99: All but one in a hundred were shorter.
    """

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


@attrs.frozen
class DeviceStats:
    """A device at one moment.

    Attributes:
        name: Like `cpu` or `cuda:0`.
        budget: Bytes that models may take; None where they are not counted.
        reserved: Bytes that the loaded models may take at their peak.
        used: Bytes in use by this process when last looked at; None where nobody can tell.
        busy: Fraction of the time, 0..1, in which at least one batch ran, since it was known.
        in_service: False for ever after it has failed.
        busy_seconds: That time itself, so that two looks tell the use between them; None where
            nobody can tell.
    """

    name: str
    budget: int | None
    reserved: int
    used: int | None
    busy: float
    in_service: bool = True
    busy_seconds: float | None = None


@attrs.frozen
class ModelStats:
    """A model at one moment; counters since the scheduler was made.

    Attributes:
        key: The model's.
        instances: Loaded or loading.
        max_instances: How many there may be.
        busy: Instances that run a batch.
        waiting: Calls that wait.
        served: Calls that got their result.
        failed: Calls that got an error.
        batches: Batches run.
        loads: Instances loaded.
        evictions: Instances unloaded to make room for other models.
        waiting_time: From the call to the beginning of its batch.
        running_time: Of a batch.
    """

    key: str
    instances: int
    max_instances: int
    busy: int
    waiting: int
    served: int
    failed: int
    batches: int
    loads: int
    evictions: int
    waiting_time: Quantiles = Quantiles()
    running_time: Quantiles = Quantiles()


@attrs.frozen
class SchedulerStats:
    """A scheduler at one moment.

    Attributes:
        devices: All that it knows, the CPU among them.
        models: All that it was ever asked to run.
    """

    devices: tuple[DeviceStats, ...]
    models: tuple[ModelStats, ...]


class GPUScheduler(Protocol):
    """Runs models where there is room. Model, item, result and errors pickle."""

    async def run(
        self,
        model: Model[T_In, T_Out],
        item: T_In,
        *,
        on_degraded: Callable[[Degradation], None] | None = None,
    ) -> T_Out:
        """Run one item, waiting for a free instance first. Cancelling it returns at once.

        Args:
            model: What to run.
            item: What it runs on.
            on_degraded: Told of every step down for this item, in the caller's event loop. What it
                raises, the call raises.

        Raises:
            talkgen.errors.OutOfMemory: It fits nowhere, at no level.
            talkgen.errors.Overloaded: The queue is full.
            talkgen.errors.ModelUnavailable: It cannot be loaded, or has no device here.
            talkgen.errors.RunCancelled: The scheduler was closed before the call's turn came.
            RuntimeError: The scheduler is closed.
        """
        ...

    def stats(self) -> SchedulerStats:
        """A snapshot, from any thread; no I/O."""
        ...

    async def aclose(self) -> None:
        """Refuse new calls, end those that wait, join those that run, free the memory."""
        ...


# --- storage -----------------------------------------------------------------------------------


@attrs.frozen
class FileInfo:
    """A published file.

    Attributes:
        file: Which.
        created: When it was published, in UTC.
        expires: When its time is over; from then on it is invisible.
    """

    file: FileRef
    created: datetime
    expires: datetime


@attrs.frozen
class Manifest:
    """What publishes a task: the names of its files, and the result.

    Attributes:
        task_id: The task.
        created: When it was published.
        files: Every file of the task.
        result: `Result.to_dict()`.
    """

    task_id: str
    created: datetime
    files: tuple[FileRef, ...]
    result: JSON


@attrs.frozen
class CleanupReport:
    """What a clean-up deleted.

    Attributes:
        files_deleted: How many files.
        bytes_freed: Their sizes together.
        tasks_expired: Tasks of which nothing is left.
    """

    files_deleted: int
    bytes_freed: int
    tasks_expired: tuple[str, ...]


@attrs.frozen
class TierStats:
    """One tier's published files.

    Attributes:
        file_count: How many.
        size_mb: Their sizes together; 1 MB is 2**20 bytes.
        retention_days: How long they are kept.
    """

    file_count: int
    size_mb: float
    retention_days: float


@attrs.frozen
class DiskStats:
    """The disk that holds the storage; 1 GB is 2**30 bytes.

    Attributes:
        total_gb: Its size.
        used_gb: What everybody has taken.
        free_gb: What this user may still write.
        percent_used: 0..100.
    """

    total_gb: float
    used_gb: float
    free_gb: float
    percent_used: float


@attrs.frozen
class StorageStats:
    """Published files by tier; 1 MB is 2**20 bytes.

    Attributes:
        storage_root: The folder or address.
        tiers: Each tier's.
        total_files: Of all tiers.
        total_size_mb: Of all tiers.
        disk: The disk below; None where there is none, as for an object store.
    """

    storage_root: str
    tiers: Mapping[Tier, TierStats]
    total_files: int
    total_size_mb: float
    disk: DiskStats | None

    def to_dict(self) -> dict[str, JSON]:
        """The numbers in JSON, sizes to two decimals."""
        return {
            "storage_root": self.storage_root,
            "tiers": {
                tier: {
                    "file_count": stats.file_count,
                    "size_mb": round(stats.size_mb, 2),
                    "retention_days": stats.retention_days,
                }
                for tier, stats in self.tiers.items()
            },
            "total_files": self.total_files,
            "total_size_mb": round(self.total_size_mb, 2),
            "disk": self.disk
            and {
                "total_gb": round(self.disk.total_gb, 2),
                "used_gb": round(self.disk.used_gb, 2),
                "free_gb": round(self.disk.free_gb, 2),
                "percent_used": round(self.disk.percent_used, 2),
            },
        }


NewFile: TypeAlias = "tuple[Tier, str, bytes | Path]"
"""What `StagedFiles.put` takes: tier, suffix, and the bytes or a file in `scratch()`."""


class StagedFiles(Protocol):
    """A run's own files: durable, private, replaceable until they are published."""

    async def put(self, tier: Tier, suffix: str, data: bytes | Path) -> FileRef:
        """Keep a file as `{task_id}_{suffix}`, replacing an earlier one whole.

        Args:
            tier: Where it belongs; decides how long it is kept.
            suffix: Like `cropped.png`.
            data: The bytes, or a file in `scratch()`, which is moved.

        Raises:
            talkgen.errors.InvalidName: The suffix is not a plain file name.
            talkgen.errors.InsufficientStorage: The disk is full.
            ValueError: The path is not in `scratch()`.
            RuntimeError: The transaction has ended.
        """
        ...

    async def put_all(self, *files: NewFile) -> tuple[FileRef, ...]:
        """Keep files as `put` does, for the price of one wait for the disk.

        If it fails, some of them may be kept.

        Args:
            *files: What `put` takes, for each.

        Raises:
            talkgen.errors.TalkgenError, ValueError, RuntimeError: As `put`.
        """
        ...

    async def get(self, file: FileRef) -> bytes:
        """The bytes of a file that this task staged.

        Raises:
            talkgen.errors.FileMissing: There is none.
        """
        ...

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """A local folder of the caller's own, always removed at the end."""
        ...


class Transaction(StagedFiles, Protocol):
    """The staged files, with the power to end them; the Run's alone."""

    async def publish(self, result: JSON = None) -> Manifest:
        """Make the files visible, all at once, in place of an older version's.

        Idempotent, rolls forward, shielded. A task that is published already stays as it is
        where nothing is staged.

        Args:
            result: `Result.to_dict()`, kept in the manifest.
        """
        ...

    async def retain(self, files: Collection[FileRef]) -> None:
        """Remove every other staged file, such as an attempt that died has left.

        Idempotent. What is being published already stays as it is.
        """
        ...

    async def discard(self) -> None:
        """Leave nothing behind. Idempotent, shielded."""
        ...

    async def close(self) -> None:
        """Keep the files staged for a later attempt."""
        ...


class Storage(Protocol):
    """Published files.

    Attributes:
        durable: Files outlive this process.
    """

    @property
    def durable(self) -> bool: ...

    async def get(self, file: FileRef) -> bytes:
        """The bytes of a published file.

        Raises:
            talkgen.errors.FileMissing: It is not published, or has expired.
        """
        ...

    def stream(self, file: FileRef) -> AbstractAsyncContextManager[ByteReceiveStream]:
        """The bytes of a published file, piece by piece."""
        ...

    def list(self, tier: Tier | None = None, task_id: str | None = None) -> AsyncIterator[FileInfo]:
        """Published files, oldest first."""
        ...

    async def delete_task(self, task_id: str) -> None:
        """Delete whatever is published under this id."""
        ...

    async def open(self, task_id: str) -> Transaction:
        """A new transaction, or an unfinished one again."""
        ...

    async def staged(self) -> tuple[str, ...]:
        """Tasks with an unfinished transaction."""
        ...

    async def ensure_free(self, bytes: int) -> None:  # noqa: A002
        """Make sure that so many bytes can be written, cleaning up if need be.

        Raises:
            talkgen.errors.InsufficientStorage: There is no room even then.
        """
        ...

    async def cleanup(self, now: datetime | None = None) -> CleanupReport:
        """Delete published files whose time is over; staged ones are never touched."""
        ...

    async def stats(self) -> StorageStats:
        """What is published, and the room there is."""
        ...

    async def aclose(self) -> None:
        """Release handles. Published files can still be read."""
        ...


# --- journal -----------------------------------------------------------------------------------

Settlement = Literal["collected", "refused", "unknown"]
"""How an operation ended: its result is here; nothing was made; nobody can know, or it is lost."""


@attrs.frozen
class TaskSpec:
    """What identifies a task's work.

    Attributes:
        task_id: The task.
        inputs: SHA-256 by input name (`image`, `speech`), never the inputs.
        stages: The stages' keys, in order.
    """

    task_id: str
    inputs: Mapping[str, str]
    stages: tuple[str, ...]


@attrs.frozen
class Checkpoint:
    """A draft after a stage, lossless: its files are staged before this is journaled.

    Attributes:
        fields: The draft's JSON fields, and how the stage ended.
        files: The staged files of the others, by field; and those that the stage kept for
            itself, by their own names.
    """

    fields: Mapping[str, JSON]
    files: Mapping[str, FileRef]


@attrs.frozen
class Operation:
    """An outside action that must not be repeated.

    Attributes:
        name: Unique within the task.
        token: Unguessable, the same for every attempt; goes into the request.
        facts: What is known of it: JSON, never secrets or media. `file`, the fields of a staged
            file's `FileRef`, is what it has brought: once that is collected, it stays staged for
            the next attempt, although no checkpoint names it yet.
        settled: How it ended; None while it is open.
        intended_at: When it was first intended.
    """

    name: str
    token: str
    facts: Mapping[str, JSON]
    settled: Settlement | None
    intended_at: datetime


@attrs.frozen
class TaskRecord:
    """A task as the journal knows it.

    Attributes:
        spec: What identifies its work.
        state: Where it stands.
        attempt: The latest; 1 is the first.
        created: When it was first begun, in UTC.
        updated: When its record last changed, in UTC.
        summary: `Result.to_dict()` of a completed task, the error's facts of another, or None.
        checkpoints: By stage, in order, those of the upload first.
        operations: Outside actions, by name.
    """

    spec: TaskSpec
    state: TaskState
    attempt: int
    created: datetime
    updated: datetime
    summary: JSON = None
    checkpoints: Mapping[str, Checkpoint] = attrs.field(factory=dict)
    operations: Mapping[str, Operation] = attrs.field(factory=dict)


class Operations(Protocol):
    """Outside actions of one task, as its stages see them."""

    async def get(self, name: str) -> Operation | None:
        """An operation as far as it is known; None if nobody intended it."""
        ...

    async def intend(self, name: str, **facts: JSON) -> Operation:
        """Journal the action before its request; gives back the existing one with its token."""
        ...

    async def record(self, name: str, **facts: JSON) -> None:
        """Add facts, such as the remote id, as soon as they are known."""
        ...

    async def settle(self, name: str, outcome: Settlement) -> None:
        """Tell how it ended. One that is open, or collected and not published, keeps the files."""
        ...


class TaskJournal(Operations, Protocol):
    """One attempt of a task; the Run's alone. Every write checks that it is still the owner."""

    @property
    def task(self) -> TaskRecord:
        """The task as this attempt found it, with this attempt's number."""
        ...

    async def stage_done(self, stage: str, checkpoint: Checkpoint) -> None:
        """Keep that a stage is finished, so that no later attempt runs it; its files are staged."""
        ...

    async def finish(self, state: TaskState, summary: JSON) -> None:
        """Set the state. All but `PUBLISHING` end this attempt and give up its ownership.

        Args:
            state: `PUBLISHING` once the staged files are whole: recovery then rolls forward.
            summary: `Result.to_dict()`, or the error's facts.
        """
        ...


class Journal(Protocol):
    """What was done for each task. Every call is durable when it returns.

    Attributes:
        durable: Records outlive this process.
    """

    @property
    def durable(self) -> bool: ...

    async def begin(self, task: TaskSpec) -> TaskJournal:
        """Create a task, or take over one that nobody works on; raises the attempt by one.

        A completed task is given back as it is, owned by nobody: there is nothing to attempt.

        Raises:
            talkgen.errors.TaskBusy: A living owner works on it.
            talkgen.errors.TaskConflict: The id belongs to other inputs or stages.
        """
        ...

    async def claim(self, task_id: str) -> TaskJournal | None:
        """Take over a deferred task, or one of a dead owner; None if there is nothing to take."""
        ...

    async def get(self, task_id: str) -> TaskRecord | None:
        """A task's record; None if it is not known."""
        ...

    def tasks(self, *states: TaskState) -> AsyncIterator[TaskRecord]:
        """Tasks in these states, or all, oldest first."""
        ...

    async def forget(self, task_id: str) -> None:
        """Drop the record of an ended task.

        Raises:
            talkgen.errors.TaskBusy: Somebody works on it.
        """
        ...
