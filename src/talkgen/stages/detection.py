"""Finding the person, and framing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import anyio.to_thread
import attrs

from talkgen.draft import Box
from talkgen.errors import NoPersonDetected, PersonNotFound
from talkgen.models.face import find_mesh

if TYPE_CHECKING:
    from talkgen.draft import Draft, Person
    from talkgen.media import Image
    from talkgen.protocols import Detector, StageContext

__all__ = ["DetectPersons", "grown", "portrait_box"]

LOWEST_CONFIDENCE = 0.3  # a second chance for photos that are hard
MESH_POINTS = 468

# Head and shoulders: how far the eyes are apart and how far down they are, in parts of the crop.
EYES_APART = 0.17
EYES_DOWN = 0.42
USUAL_MARGIN = 0.25


@attrs.frozen
class DetectPersons:
    """Find everybody, select one, and make the portrait of them.

    Attributes:
        detector: Finds people; None takes the pipeline's.
        confidence: 0..1. Where nobody reaches it, persons down to 0.3 are accepted.
        iou: Overlap above which two detections are one person, 0..1.
        select: `best`, `largest`, or a person's id.
        framing: `portrait`: a square of head and shoulders, whatever detected the person;
            `person`: the person's box; `image`: the whole picture.
        margin: Room around the person: 0.25 is a quarter of its size.
    """

    name: ClassVar[str] = "detection"
    weight: ClassVar[float] = 1.0
    requires: ClassVar[frozenset[str]] = frozenset({"image"})
    provides: ClassVar[frozenset[str]] = frozenset({"persons", "person", "portrait"})
    resets: ClassVar[frozenset[str]] = frozenset({"portrait"})

    detector: Detector | None = None
    confidence: float = 0.5
    iou: float = 0.45
    select: Literal["best", "largest"] | int = "best"
    framing: Literal["portrait", "person", "image"] = attrs.field(
        default="portrait", validator=attrs.validators.in_(("portrait", "person", "image"))
    )
    margin: float = attrs.field(default=USUAL_MARGIN, validator=attrs.validators.ge(0))

    @property
    def key(self) -> str:
        """The stage and everything that changes what it gives."""
        detector = getattr(self.detector, "key", "default")
        settings = (self.confidence, self.iou, self.select, self.framing, self.margin)
        return f"{self.name}({detector},{','.join(map(str, settings))})"

    async def run(self, draft: Draft, context: StageContext) -> Draft:
        """Fill in `persons`, `person`, `portrait` and `portrait_box`.

        Raises:
            talkgen.errors.NoPersonDetected: Nobody is there.
            talkgen.errors.PersonNotFound: `select` is an id that nobody has.
            talkgen.errors.NoFaceInPortrait: The person's face is not seen.
        """
        persons = await self._detect(draft.image, context)
        person = _selected(persons, self.select)
        box = await self._frame(draft.image, person, context)
        portrait = draft.image.cropped(box)
        file = await anyio.to_thread.run_sync(portrait.encode, "png")
        await context.files.put("processed", "cropped.png", file)
        count = f"{len(persons)} person{'s' if len(persons) > 1 else ''} detected"
        context.report(
            1.0,
            f"{count}, person #{person.id} selected",
            stage="detection_complete",
            detected_persons=len(persons),
            selected_person=person.to_dict(),
        )
        facts = {
            "total_persons": len(persons),
            "selected_person_id": person.id,
            "confidence": round(person.confidence, 4),
        }
        return attrs.evolve(
            draft,
            persons=persons,
            person=person,
            portrait=portrait,
            portrait_box=box,
            metadata={**draft.metadata, "person_detection": facts},
        )

    async def _detect(self, image: Image, context: StageContext) -> tuple[Person, ...]:
        detector = self.detector or context.backends.detector
        lowest = min(self.confidence, LOWEST_CONFIDENCE)
        found = await detector.detect(
            image, scheduler=context.scheduler, confidence=lowest, iou=self.iou
        )
        sure = tuple(person for person in found if person.confidence >= self.confidence)
        if not (sure or found):
            raise NoPersonDetected(f"Nobody was found in the picture, down to {lowest:g}.")
        return tuple(
            attrs.evolve(person, id=number) for number, person in enumerate(sure or found, start=1)
        )

    async def _frame(self, image: Image, person: Person, context: StageContext) -> Box:
        whole = Box(0, 0, image.width, image.height)
        if self.framing == "image":
            return whole
        if self.framing == "person":
            return grown(person.box, self.margin, whole)
        eyes = await _eyes(image, person, context)
        return portrait_box(*eyes, margin=self.margin, whole=whole)


def _selected(persons: tuple[Person, ...], select: str | int) -> Person:
    if select == "best":
        return persons[0]
    if select == "largest":
        return max(persons, key=lambda person: person.box.width * person.box.height)
    for person in persons:
        if person.id == select:
            return person
    there = ", ".join(f"#{person.id}" for person in persons)
    raise PersonNotFound(
        f"There is no person #{select}.", hint=f"Those detected are {there}; 1 is the best."
    )


async def _eyes(
    image: Image, person: Person, context: StageContext
) -> tuple[tuple[float, float], float]:
    """The point between the eyes and their distance, in pixels of the image."""
    if person.landmarks is not None and len(person.landmarks) == MESH_POINTS:
        right, left = person.landmarks[[33, 133]].mean(0), person.landmarks[[263, 362]].mean(0)
        offset = (0, 0)
    else:
        offset = person.box[:2]
        mesh = await find_mesh(image.cropped(person.box), scheduler=context.scheduler)
        right, left = mesh.right_eye, mesh.left_eye
    x, y = ((right + left) / 2).tolist()
    apart = float(((left - right) ** 2).sum() ** 0.5)
    return (x + offset[0], y + offset[1]), apart


def portrait_box(eyes: tuple[float, float], apart: float, *, margin: float, whole: Box) -> Box:
    """A square of head and shoulders, inside the picture.

    Args:
        eyes: The point between the eyes, x and y in pixels.
        apart: Their distance in pixels.
        margin: 0.25 is the usual one; more shows more around the person.
        whole: The picture.

    Returns:
        The square; smaller than wanted where the picture is, moved where it would leave it.
    """
    wanted = apart / EYES_APART * (1 + margin) / (1 + USUAL_MARGIN)
    side = max(1, round(min(wanted, whole.width, whole.height)))
    x0 = min(max(round(eyes[0] - side / 2), 0), whole.width - side)
    y0 = min(max(round(eyes[1] - EYES_DOWN * side), 0), whole.height - side)
    return Box(x0, y0, x0 + side, y0 + side)


def grown(box: Box, margin: float, whole: Box) -> Box:
    """A box with room around it, cut at the picture's edges."""
    x, y = round(box.width * margin / 2), round(box.height * margin / 2)
    return Box(
        max(box.x0 - x, 0),
        max(box.y0 - y, 0),
        min(box.x1 + x, whole.x1),
        min(box.y1 + y, whole.y1),
    )
