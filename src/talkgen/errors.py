"""Everything that talkgen raises.

Run-time failures share one base; a caller's mistake stays a `TypeError` or a `ValueError`;
cancellation is never wrapped.

    TalkgenError
      InvalidInput (ValueError)        the picture or the recording is no good
        InvalidImage
          ImageNotFound (FileNotFoundError)
          ImageUnreadable (PermissionError)
        InvalidAudio
          AudioNotFound (FileNotFoundError)
          AudioUnreadable (PermissionError)
      NoPersonDetected                 nobody is in the picture
        NoFaceInPortrait               somebody is, but without a face to animate
      PersonNotFound                   the person asked for is not among those detected
      MissingDependency (ImportError)  an extra or a system library is absent
      ModelUnavailable                 a model's file is absent, damaged or refused
      MediaFailed                      encoding or decoding failed half way
      Degraded                         strict: the lesser way out was refused
      OutOfMemory                      no device had room, down to the smallest form
      InsufficientStorage              the disk is full
      Overloaded                       too many calls wait, or there are no threads left
      StageFailed                      a stage raised something else; see `__cause__`
      StorageError
        FileMissing (FileNotFoundError)
        StorageUnavailable             the object store does not answer
        InvalidName (ValueError)       a task id or file name that could leave its folder
        JournalUnusable                the journal is damaged, too new, or cannot be written
      DIdError                         D-ID did not do what it was asked
        Unauthorized                   the key is wrong, or the account's bill is open
        PermissionDenied               the account's plan lacks a feature
        InsufficientCredits            the account has too few credits
        Moderated                      D-ID's moderation refused the content
        InvalidMedia                   D-ID cannot use the picture or the recording
        RateLimited                    too many requests
        ServiceUnavailable             D-ID is down, overloaded or out of reach
        TalkFailed                     D-ID accepted the work and then failed at it
        TalkRejected                   D-ID accepted the work and then refused it
        ResultExpired                  D-ID does not have the video any more
        OutcomeUnknown                 a request for a talk was sent, and nobody knows its fate
      BudgetExceeded                   it would cost more than the caller allows
      NotReady                         the video is not there yet
      RunCancelled                     the run was cancelled, not the one who waits for it
      TaskNotFound (LookupError)
      TaskBusy                         another process works on this task
      TaskConflict                     this task id belongs to other inputs or stages
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, ClassVar, Self, TypeVar

__all__ = [
    "AudioNotFound",
    "AudioUnreadable",
    "BudgetExceeded",
    "DIdError",
    "Degraded",
    "FileMissing",
    "ImageNotFound",
    "ImageUnreadable",
    "InsufficientCredits",
    "InsufficientStorage",
    "InvalidAudio",
    "InvalidImage",
    "InvalidInput",
    "InvalidMedia",
    "InvalidName",
    "JournalUnusable",
    "MediaFailed",
    "MissingDependency",
    "ModelUnavailable",
    "Moderated",
    "NoFaceInPortrait",
    "NoPersonDetected",
    "NotReady",
    "OutOfMemory",
    "OutcomeUnknown",
    "Overloaded",
    "PermissionDenied",
    "PersonNotFound",
    "RateLimited",
    "ResultExpired",
    "RunCancelled",
    "ServiceUnavailable",
    "Severity",
    "StageFailed",
    "StorageError",
    "StorageUnavailable",
    "TalkFailed",
    "TalkRejected",
    "TalkgenError",
    "TaskBusy",
    "TaskConflict",
    "TaskNotFound",
    "Unauthorized",
]


E = TypeVar("E", bound="TalkgenError")


class Severity(StrEnum):
    """What an error asks of the person who reads it. Code decides by facts, never by this."""

    RECOVERABLE = "recoverable"  # try again, perhaps with other settings
    PERMANENT = "permanent"  # this input will never work
    RESOURCE = "resource"  # this machine lacks memory or disk
    EXTERNAL = "external"  # somebody else's service


class TalkgenError(Exception):
    """The base of every failure at run time.

    Attributes:
        severity: For people.
        retryable: The same call may succeed later, unchanged.
        retry_after: Seconds to wait before that, where known.
        outage: An outside service is down, rather than refusing this request.
        hint: What to do about it, in a sentence.
        stage: The stage that failed, filled in by the run.
        task_id: The task that failed, filled in by the run.
    """

    severity: ClassVar[Severity] = Severity.PERMANENT
    retryable: ClassVar[bool] = False
    outage: ClassVar[bool] = False
    default_hint: ClassVar[str | None] = None

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.retry_after = retry_after
        self.stage: str | None = None
        self.task_id: str | None = None

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...]]:
        return _rebuild, (type(self), self.message, self.__dict__)


def _rebuild(cls: type[E], message: str, state: dict[str, Any]) -> E:
    error = cls(message)
    error.__dict__.update(state)
    return error


class InvalidInput(TalkgenError, ValueError):
    """The caller's picture or recording cannot be used."""


class InvalidImage(InvalidInput):
    """The picture cannot be used."""


class ImageNotFound(InvalidImage, FileNotFoundError):
    """There is no picture at this path."""


class ImageUnreadable(InvalidImage, PermissionError):
    """The picture may not be read."""


class InvalidAudio(InvalidInput):
    """The recording cannot be used."""


class AudioNotFound(InvalidAudio, FileNotFoundError):
    """There is no recording at this path."""


class AudioUnreadable(InvalidAudio, PermissionError):
    """The recording may not be read."""


class NoPersonDetected(TalkgenError):
    """Nobody was found, even at the lowest threshold."""

    default_hint = (
        "Use a well-lit photo in which a face is clearly visible, "
        "or try another angle or a closer crop."
    )


class NoFaceInPortrait(NoPersonDetected):
    """The portrait shows no face that could speak."""

    default_hint = "Use a photo in which the face looks towards the camera and is not covered."


class PersonNotFound(TalkgenError):
    """`select` names a person who was not detected."""


class MissingDependency(TalkgenError, ImportError):
    """A package or a system library is absent; the hint is the command that installs it."""


class ModelUnavailable(TalkgenError):
    """A model's file is missing, damaged, or cannot run on this machine."""


class MediaFailed(TalkgenError):
    """Encoding or decoding failed half way; nothing was left behind."""

    severity = Severity.RECOVERABLE
    default_hint = "Try again; if it stays so, look at the file, the log and the disk."


class Degraded(TalkgenError):
    """Under `strict`, a lesser result was refused instead of being passed on."""

    default_hint = "Leave out strict=True to go on with the lesser result."


class OutOfMemory(TalkgenError):
    """No device had room for the model, not even in its smallest form."""

    severity = Severity.RESOURCE
    retryable = True


class InsufficientStorage(TalkgenError):
    """The disk has no room for the run's files."""

    severity = Severity.RESOURCE
    retryable = True
    default_hint = "Free disk space, shorten the retention, or choose another storage folder."


class Overloaded(TalkgenError):
    """The scheduler can take no more: its queue is full, or there are no threads left."""

    severity = Severity.RESOURCE
    retryable = True


class StageFailed(TalkgenError):
    """A stage raised an exception that is not talkgen's own; it is the `__cause__`."""


class StorageError(TalkgenError):
    """Files could not be kept or found."""


class FileMissing(StorageError, FileNotFoundError):
    """No such file is published, or staged by this task."""

    default_hint = "Run the task again; a longer retention keeps its files for longer."


class StorageUnavailable(StorageError):
    """The object store cannot be reached, or has failed; the same call may succeed later."""

    severity = Severity.EXTERNAL
    retryable = True
    outage = True
    default_hint = "Look at the network and the credentials; recover() goes on later."


class InvalidName(StorageError, ValueError):
    """A task id or file name holds something that could leave its folder."""


class JournalUnusable(StorageError):
    """The journal's file is damaged, of a newer version, or cannot be read or written."""

    default_hint = "Look at the disk, and at who may read and write the folder."


class DIdError(TalkgenError):
    """D-ID did not do what it was asked, for a reason that has no class of its own.

    Attributes:
        status: The HTTP status, where there was an answer.
        kind: D-ID's own word for the reason, like `BadRequestError`.
        talk_id: The talk that it is about.
    """

    severity = Severity.EXTERNAL

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        status: int | None = None,
        kind: str | None = None,
        talk_id: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.status = status
        self.kind = kind
        self.talk_id = talk_id


class Unauthorized(DIdError):
    """D-ID does not take the key."""

    default_hint = (
        "Check D_ID_API_KEY: the whole key from D-ID's studio, as 'user:password', with nothing "
        "cut off. If it is right, check the account's bill: an open one is answered the same way."
    )


class PermissionDenied(DIdError):
    """The account's plan lacks a feature.

    Attributes:
        feature: Which one, as D-ID calls it, like `stitch`.
    """

    default_hint = "Leave the option out, or choose a plan at D-ID that has the feature."
    feature: str | None = None


class InsufficientCredits(DIdError):
    """The account has too few credits."""

    default_hint = "Buy credits at D-ID; `await DIdClient.credits()` shows what is left."


class Moderated(DIdError):
    """D-ID's moderation refused the picture, the recording or the text; `kind` says which.

    Never tried again by itself.
    """

    default_hint = "Use another picture or recording, or ask D-ID's support for a review."


class InvalidMedia(DIdError):
    """D-ID cannot use the picture or the recording."""

    default_hint = (
        "Pictures: JPEG or PNG, 160 pixels a side or more, 10 MB at most. "
        "Recordings: 6 MB and 5 minutes at most."
    )


class RateLimited(DIdError):
    """D-ID got too many requests from this account, and kept on refusing."""

    retryable = True
    outage = True
    default_hint = "Start fewer runs at a time, or go on later."


class ServiceUnavailable(DIdError):
    """D-ID is down, overloaded or out of reach, or did not finish in time.

    Attributes:
        sent: The request may have reached D-ID.
    """

    retryable = True
    outage = True
    default_hint = "Check the network and D-ID's status page; recover() goes on later."
    sent: bool = True


class TalkFailed(DIdError):
    """D-ID accepted a talk and failed at it; `kind` says why. The credits are given back."""

    default_hint = "A FaceError asks for a photo whose face looks towards the camera."


class TalkRejected(DIdError):
    """D-ID accepted a talk, and its moderation refused it afterwards."""

    default_hint = "Use another picture or recording, or ask D-ID's support for a review."


class ResultExpired(DIdError):
    """D-ID does not have the talk or its video any more."""

    default_hint = "Run the task again: that makes, and pays for, a new talk."


class OutcomeUnknown(DIdError):
    """A talk was asked for, the answer was lost, and the talk was not found afterwards.

    It may exist and may have been paid for.

    Attributes:
        token: What the talk carries in its `user_data`, if it exists.
    """

    default_hint = (
        "Run the task again under its task_id: the talk is looked for, and nothing is paid for. If "
        "D-ID's studio has none with this token either, forget() the task and run it anew."
    )
    token: str | None = None


class BudgetExceeded(TalkgenError):
    """The run would cost more than the caller allows; nothing was spent."""

    severity = Severity.RECOVERABLE
    default_hint = "Shorten the recording, or raise max_credits or the budget."


class NotReady(TalkgenError):
    """The result has no video yet."""

    severity = Severity.RECOVERABLE
    retryable = True


class RunCancelled(TalkgenError):
    """The awaited run was cancelled by somebody else."""

    severity = Severity.RECOVERABLE
    retryable = True
    default_hint = "Run it again; under its task_id, if it had one."


class TaskNotFound(TalkgenError, LookupError):
    """No task of this id is known."""

    default_hint = "Check the id, and that this is the storage on which the task was run."


class TaskBusy(TalkgenError):
    """Another process works on this task."""

    severity = Severity.RECOVERABLE
    retryable = True


class TaskConflict(TalkgenError):
    """The task id is taken by other inputs or other stages."""

    default_hint = "Choose another task_id, or forget() the old task first."
