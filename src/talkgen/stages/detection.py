"""Finding the person, and framing them."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import anyio.to_thread
import attrs
from attrs import validators

from talkgen.cache import PERSONS, recalled
from talkgen.draft import Box, Persons
from talkgen.errors import NoFaceInPortrait, NoPersonDetected, PersonNotFound
from talkgen.models.face import LANDMARKS, FaceCrop, FaceMeshModel, find_mesh

if TYPE_CHECKING:
    from talkgen._types import JSON
    from talkgen.draft import Draft, Person
    from talkgen.media import Image
    from talkgen.models.face import FaceMesh
    from talkgen.protocols import Detector, GPUScheduler, StageContext

__all__ = ["DetectPersons", "grown_box", "portrait_box"]

# How far down a photo that is hard gets a second chance.
LOWEST_CONFIDENCE = 0.3

USUAL_MARGIN = 0.25

# A head-and-shoulders portrait of that margin: how far the eyes are apart, as they would be if
# the face looked straight, and how far down they are, in parts of its side.
EYES_APART = 0.17
EYES_DOWN = 0.42


def _select(_instance: object, _attribute: object, value: object) -> None:
    if value in {"best", "largest"} or (type(value) is int and value > 0):
        return
    raise ValueError(f"select={value!r}: must be 'best', 'largest', or a person's id from 1 on")


def _fraction(default: float) -> float:
    within: float = attrs.field(default=default, validator=[validators.ge(0), validators.le(1)])
    return within


@attrs.frozen
class DetectPersons:
    """Find everybody, select one, and make the portrait of them.

    Attributes:
        detector: Finds people; None takes the pipeline's.
        confidence: 0..1. Where nobody reaches it, persons down to 0.3 are accepted, and the
            result's metadata says so.
        iou: Overlap above which two detections are one person, 0..1.
        select: `best`, `largest`, or a person's id: 1 is the best, 2 the next. In a portrait the
            best and the largest are those whose face is seen.
        framing: `portrait`: a square of head and shoulders, the same whatever detected the
            person; `person`: the person's box; `image`: the whole picture.
        margin: Room around the person: frames are 1 + margin times as large as without.
    """

    name: ClassVar[str] = "detection"
    weight: ClassVar[float] = 1.0
    requires: ClassVar[frozenset[str]] = frozenset({"image"})
    provides: ClassVar[frozenset[str]] = frozenset(
        {"persons", "person", "portrait", "portrait_box"}
    )
    resets: ClassVar[frozenset[str]] = frozenset({"portrait", "portrait_box"})

    detector: Detector | None = None
    confidence: float = _fraction(0.5)
    iou: float = _fraction(0.45)
    select: Literal["best", "largest"] | int = attrs.field(default="best", validator=_select)
    framing: Literal["portrait", "person", "image"] = attrs.field(
        default="portrait", validator=validators.in_(("portrait", "person", "image"))
    )
    margin: float = attrs.field(default=USUAL_MARGIN, validator=validators.ge(0))

    @property
    def key(self) -> str:
        """The stage and everything that changes what it gives."""
        detector = getattr(self.detector, "key", "default")
        parameters = (self.confidence, self.iou, self.select, self.framing, self.margin)
        return f"{self.name}({detector},{','.join(map(str, parameters))})"

    async def run(self, draft: Draft, context: StageContext) -> Draft:
        """Fill in `persons`, `person`, `portrait` and `portrait_box`.

        Raises:
            talkgen.errors.NoPersonDetected: Nobody is there.
            talkgen.errors.PersonNotFound: `select` is an id that nobody has.
            talkgen.errors.NoFaceInPortrait: No face of those selected is seen.
        """
        persons = await self._detect(draft.image, context)
        person, box = await self._framed(draft.image, persons, context.scheduler)
        portrait = await anyio.to_thread.run_sync(draft.image.cropped, box)
        file = await anyio.to_thread.run_sync(portrait.original)
        await context.files.put("processed", "cropped.png", file.data)
        context.report(
            1.0,
            f"{_count(persons)} detected, person #{person.id} selected",
            stage="detection_complete",
            detected_persons=len(persons),
            selected_person=person.to_dict(),
        )
        return attrs.evolve(
            draft,
            persons=persons,
            person=person,
            portrait=portrait,
            portrait_box=box,
            metadata={**draft.metadata, "person_detection": self._facts(persons, person)},
        )

    async def _detect(self, image: Image, context: StageContext) -> tuple[Person, ...]:
        detector = self.detector or context.backends.detector
        lowest = min(self.confidence, LOWEST_CONFIDENCE)
        detect = partial(
            detector.detect,
            image,
            scheduler=context.scheduler,
            confidence=lowest,
            iou=self.iou,
        )
        found = await recalled(context, detector, image, detect, PERSONS, lowest, self.iou)
        if not found:
            raise NoPersonDetected(
                f"Nobody was found in the picture, at a confidence of {lowest:g} or above."
            )
        sure = [person for person in found if person.confidence >= self.confidence]
        numbered = enumerate(sure or found, start=1)
        return Persons((attrs.evolve(person, id=number) for number, person in numbered), image)

    async def _framed(
        self, image: Image, persons: tuple[Person, ...], scheduler: GPUScheduler
    ) -> tuple[Person, Box]:
        """The person selected and their frame."""
        first, *others = _selected(persons, self.select)
        try:
            return first, await self._frame(image, first, scheduler)
        except NoFaceInPortrait:
            for person in others:
                with suppress(NoFaceInPortrait):
                    return person, await self._frame(image, person, scheduler)
            raise

    async def _frame(self, image: Image, person: Person, scheduler: GPUScheduler) -> Box:
        whole = Box(0, 0, image.width, image.height)
        if self.framing == "image":
            return whole
        if self.framing == "person":
            return grown_box(person.box, self.margin, whole=whole)
        mesh = await _mesh(image, person, scheduler)
        return portrait_box(mesh.centre, mesh.scale, self.margin, whole=whole)

    def _facts(self, persons: tuple[Person, ...], person: Person) -> dict[str, JSON]:
        facts: dict[str, JSON] = {
            "total_persons": len(persons),
            "selected_person_id": person.id,
            "confidence": round(person.confidence, 4),
        }
        if person.confidence < self.confidence:
            facts["note"] = f"accepted below the confidence of {self.confidence:g}"
        return facts


def _count(persons: tuple[Person, ...]) -> str:
    return "1 person" if len(persons) == 1 else f"{len(persons)} persons"


def _selected(persons: tuple[Person, ...], select: str | int) -> list[Person]:
    """Who is meant, and who would do as well, best first."""
    if select == "best":
        return list(persons)
    if select == "largest":
        return sorted(persons, key=lambda person: -person.box.width * person.box.height)
    for person in persons:
        if person.id == select:
            return [person]
    there = "; ".join(f"#{person.id} at {list(person.box)}" for person in persons)
    raise PersonNotFound(
        f"There is no person #{select} among the {_count(persons)} detected.",
        hint=f"Select one of these: {there}.",
    )


async def _mesh(image: Image, person: Person, scheduler: GPUScheduler) -> FaceMesh:
    """The person's face, in the picture's pixels.

    Raises:
        talkgen.errors.NoFaceInPortrait: It is not seen.
    """
    if person.landmarks is not None and len(person.landmarks) == LANDMARKS:
        known = FaceCrop.around(image, person.landmarks)
        if (mesh := await scheduler.run(FaceMeshModel(), known)) is not None:
            return mesh
    part = await anyio.to_thread.run_sync(image.cropped, person.box)
    mesh = await find_mesh(part, scheduler=scheduler)
    return mesh.moved(person.box.x0, person.box.y0)


def portrait_box(head: tuple[float, float], apart: float, margin: float, *, whole: Box) -> Box:
    """A square of head and shoulders within the picture.

    Args:
        head: Its middle at the height of the eyes, x and y in pixels.
        apart: From eye to eye as if the face looked straight, in pixels.
        margin: 0.25 is the usual one; more shows more around the person.
        whole: The picture.

    Returns:
        The square, with the head in the middle and the eyes at 42 % of its height; smaller
        where the picture is, and moved where it would leave it.
    """
    wanted = apart / EYES_APART * (1 + margin) / (1 + USUAL_MARGIN)
    side = max(1, round(min(wanted, whole.width, whole.height)))
    x0 = _within(round(head[0] - side / 2), whole.x0, whole.x1 - side)
    y0 = _within(round(head[1] - side * EYES_DOWN), whole.y0, whole.y1 - side)
    return Box(x0, y0, x0 + side, y0 + side)


def grown_box(box: Box, margin: float, *, whole: Box) -> Box:
    """A box with room around it, cut at the picture's edges.

    Args:
        box: Within the picture.
        margin: The box becomes 1 + margin times as wide and as high.
        whole: The picture.
    """
    x, y = round(box.width * margin / 2), round(box.height * margin / 2)
    return Box(
        max(box.x0 - x, whole.x0),
        max(box.y0 - y, whole.y0),
        min(box.x1 + x, whole.x1),
        min(box.y1 + y, whole.y1),
    )


def _within(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)
