"""What a request may ask for, and the stages that it means."""

from typing import Annotated
from uuid import uuid4

from pydantic import UUID4, BaseModel, ConfigDict, Field, field_validator

from talkgen import DetectPersons, GenerateVideo, RemoveBackground, ReplaceBackground
from talkgen.protocols import Stage, VideoGenerator

__all__ = ["Asked", "Form", "Options"]

Fraction = Annotated[float, Field(ge=0, le=1)]


class Options(BaseModel):
    """The options of a request. Equal ones share a pipeline.

    Attributes:
        conf_threshold: Confidence for detecting persons, 0..1.
        iou_threshold: Overlap above which two detections are one person, 0..1.
        selected_person_id: Which person, 1 is the best; None takes the best.
        apply_smoothing: Fit the cut-out to the picture's edges.
        background: A colour as CSS writes it, or `blur`; None leaves it to the generator.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    conf_threshold: Fraction = 0.5
    iou_threshold: Fraction = 0.45
    selected_person_id: Annotated[int, Field(ge=1)] | None = None
    apply_smoothing: bool = True
    background: str | None = None

    @field_validator("background")
    @classmethod
    def _known_background(cls, value: str | None) -> str | None:
        if value is not None:
            ReplaceBackground(value)  # a ValueError says what it takes
        return value

    def stages(self, generator: VideoGenerator) -> tuple[Stage, ...]:
        """The whole job, as these options want it."""
        detect = DetectPersons(
            confidence=self.conf_threshold,
            iou=self.iou_threshold,
            select=self.selected_person_id or "best",
        )
        cut_out = RemoveBackground(smoothing=self.apply_smoothing)
        behind = (ReplaceBackground(self.background),) if self.background else ()
        return (detect, cut_out, *behind, GenerateVideo(generator))


class Asked(BaseModel):
    """What a task is begun for. A request for anything else is another task's.

    Attributes:
        options: Its options.
        image: The photo's digest.
        audio: The recording's digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: Options
    image: str
    audio: str


class Form(Options):
    """The fields of the form that are no files.

    Attributes:
        task_id: A random UUID of the client's own making, so that it may repeat a request whose
            answer was lost; by default a new one. Whoever has it sees the task.
    """

    task_id: UUID4 = Field(default_factory=uuid4)

    @property
    def options(self) -> Options:
        """Without the task's id."""
        return Options(**self.model_dump(exclude={"task_id"}))
