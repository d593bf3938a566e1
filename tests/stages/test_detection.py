"""Persons found, selected and framed."""

import threading

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkgen.draft import Box, Person
from talkgen.errors import NoFaceInPortrait, NoPersonDetected, PersonNotFound
from talkgen.media import Image
from talkgen.models.face import FaceDetector, find_mesh
from talkgen.stages.detection import DetectPersons, grown_box, portrait_box

APART = 43.5  # between the eyes of the demo's portrait, in pixels


@attrs.frozen
class Told:
    """A detector that finds what it was told, and remembers what it was asked."""

    persons: tuple[Person, ...]
    asked: list[tuple[float, float]] = attrs.field(factory=list, eq=False)
    key: str = "told"

    async def detect(self, image, *, scheduler, confidence=0.5, iou=0.45):
        self.asked.append((confidence, iou))
        return tuple(person for person in self.persons if person.confidence >= confidence)


WHOLE = Box(0, 0, 512, 512)


def told(*confidences: float, box: Box = WHOLE) -> Told:
    return Told(tuple(Person(i, box, value) for i, value in enumerate(confidences, start=1)))


# --- who ---------------------------------------------------------------------------------------


async def test_the_demo_has_one_person(draft, context):
    found = await DetectPersons().run(draft, context)

    (person,) = found.persons
    assert found.person is person
    assert found.metadata["person_detection"] == {
        "total_persons": 1,
        "selected_person_id": 1,
        "confidence": round(person.confidence, 4),
    }
    assert draft.persons is None


async def test_it_tells_what_it_found(crowd, context):
    found = await DetectPersons().run(crowd, context)

    assert context.reports == [
        {
            "fraction": 1.0,
            "message": "2 persons detected, person #1 selected",
            "stage": "detection_complete",
            "metadata": {"detected_persons": 2, "selected_person": found.person.to_dict()},
        }
    ]


async def test_one_person_is_singular(draft, context):
    await DetectPersons().run(draft, context)

    assert context.reports[0]["message"] == "1 person detected, person #1 selected"


@pytest.mark.parametrize(("select", "right"), [("best", True), ("largest", True), (2, False)])
async def test_selection(crowd, context, select, right):
    found = await DetectPersons(select=select).run(crowd, context)

    assert (found.portrait_box.x0 > 500) == right
    assert found.metadata["person_detection"]["selected_person_id"] == found.person.id


async def test_the_largest_need_not_be_the_best(draft, context):
    small, large = Person(1, Box(0, 0, 50, 50), 0.9), Person(2, Box(0, 0, 500, 500), 0.6)
    stage = DetectPersons(Told((small, large)), select="largest", framing="person")

    assert (await stage.run(draft, context)).person.box == large.box


async def test_an_id_that_nobody_has_lists_who_is_there(crowd, context):
    with pytest.raises(PersonNotFound, match="no person #5 among the 2 persons") as caught:
        await DetectPersons(select=5).run(crowd, context)
    assert "#1 at [" in caught.value.hint
    assert "#2 at [" in caught.value.hint


async def test_nobody_is_an_error_with_advice(context, draft):
    wall = draft.image.cropped((300, 0, 360, 100))

    with pytest.raises(NoPersonDetected, match=r"0\.3 or above") as caught:
        await DetectPersons().run(attrs.evolve(draft, image=wall), context)
    assert caught.value.hint
    assert not context.reports


# --- how sure ----------------------------------------------------------------------------------


async def test_the_detector_is_asked_once_down_to_the_lowest(draft, context):
    detector = told(0.9, 0.6, 0.4)

    found = await DetectPersons(detector, iou=0.6).run(draft, context)

    assert detector.asked == [(0.3, 0.6)]
    assert [person.confidence for person in found.persons] == [0.9, 0.6]
    assert "note" not in found.metadata["person_detection"]


async def test_persons_below_the_confidence_are_accepted_if_there_are_no_others(draft, context):
    found = await DetectPersons(told(0.4, 0.35)).run(draft, context)

    assert len(found.persons) == 2
    assert found.metadata["person_detection"]["note"] == "accepted below the confidence of 0.5"


async def test_a_lower_confidence_goes_lower(draft, context):
    detector = told(0.2)

    await DetectPersons(detector, confidence=0.1).run(draft, context)

    assert detector.asked == [(0.1, 0.45)]


async def test_persons_are_numbered_anew_after_the_unsure_are_dropped(draft, context):
    detector = told(0.4, 0.9)

    found = await DetectPersons(detector).run(draft, context)

    assert [(person.id, person.confidence) for person in found.persons] == [(1, 0.9)]


# --- the frame ---------------------------------------------------------------------------------


async def test_the_portrait_is_a_square_of_head_and_shoulders(draft, context):
    found = await DetectPersons().run(draft, context)

    box, portrait = found.portrait_box, found.portrait
    assert box.width == box.height == portrait.width == portrait.height
    assert np.array_equal(portrait.pixels, draft.image.pixels[box.y0 : box.y1, box.x0 : box.x1])
    mesh = await find_mesh(portrait, scheduler=context.scheduler)
    assert mesh.eye_distance / portrait.width == pytest.approx(0.17, abs=0.01)
    assert mesh.right_eye[1] / portrait.height == pytest.approx(0.42, abs=0.02)
    assert mesh.centre[0] / portrait.width == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("landmarks", [None, np.zeros((5, 2), np.float32)])
async def test_the_portrait_is_the_same_whoever_detected(draft, context, landmarks):
    own = await DetectPersons().run(draft, context)
    body = Person(1, Box(20, 5, 420, 512), 0.8, landmarks)

    other = await DetectPersons(Told((body,))).run(draft, context)

    assert other.portrait_box == pytest.approx(own.portrait_box, abs=4)


@pytest.mark.parametrize("framing", ["portrait", "person", "image"])
async def test_the_loop_does_not_wait_for_pixels(draft, context, framing, monkeypatch):
    """Cutting a large photo takes half a second."""
    cropped, threads = Image.cropped, set()

    def watched(image, box):
        threads.add(threading.get_ident())
        return cropped(image, box)

    monkeypatch.setattr(Image, "cropped", watched)

    await DetectPersons(told(0.9), framing=framing).run(draft, context)

    assert threads
    assert threading.get_ident() not in threads


async def test_landmarks_that_are_no_face_are_not_trusted(draft, context):
    nonsense = np.tile(np.float32([[400, 400]]), (468, 1)) + np.arange(468)[:, None] % 7
    person = Person(1, Box(20, 5, 420, 512), 0.8, nonsense.astype(np.float32))
    own = await DetectPersons().run(draft, context)

    other = await DetectPersons(Told((person,))).run(draft, context)

    assert other.portrait_box == pytest.approx(own.portrait_box, abs=4)


async def test_a_person_without_a_face_cannot_speak(draft, context):
    helmet = told(0.9, box=Box(280, 345, 500, 512))

    with pytest.raises(NoFaceInPortrait):
        await DetectPersons(helmet).run(draft, context)


@pytest.mark.parametrize(("select", "chosen"), [("best", 2), ("largest", 2), (2, 2)])
async def test_the_best_is_one_whose_face_is_seen(draft, context, select, chosen):
    shoulders = Person(1, Box(0, 330, 512, 512), 0.9)
    whole = Person(2, Box(130, 5, 390, 290), 0.8)

    found = await DetectPersons(Told((shoulders, whole)), select=select).run(draft, context)

    assert found.person.id == chosen
    assert found.metadata["person_detection"]["selected_person_id"] == chosen


async def test_a_person_who_is_named_is_not_exchanged(draft, context):
    both = Told((Person(1, Box(280, 345, 500, 512), 0.9), Person(2, WHOLE, 0.8)))

    with pytest.raises(NoFaceInPortrait):
        await DetectPersons(both, select=1).run(draft, context)


async def test_more_margin_shows_more(draft, context):
    tight = await DetectPersons(margin=0).run(draft, context)
    usual = await DetectPersons().run(draft, context)

    assert usual.portrait.width == pytest.approx(1.25 * tight.portrait.width, abs=2)


async def test_framing_by_the_persons_box(draft, context):
    stage = DetectPersons(told(0.9, box=Box(100, 40, 300, 240)), framing="person", margin=0.5)

    assert (await stage.run(draft, context)).portrait_box == (50, 0, 350, 290)


async def test_framing_the_whole_picture(draft, context):
    found = await DetectPersons(framing="image").run(draft, context)

    assert found.portrait_box == (0, 0, 512, 512)
    assert np.array_equal(found.portrait.pixels, draft.image.pixels)


async def test_the_crop_is_kept_as_a_file(draft, context):
    found = await DetectPersons().run(draft, context)

    manifest = await context.files.publish()
    (file,) = manifest.files
    assert (file.tier, file.name) == ("processed", "task_cropped.png")
    assert file.size == len(found.portrait.encode("png"))


# --- the stage as a value ----------------------------------------------------------------------


def test_what_it_needs_and_makes():
    stage = DetectPersons()

    assert stage.name == "detection"
    assert stage.requires == {"image"}
    assert stage.provides == {"persons", "person", "portrait", "portrait_box"}
    assert stage.resets == {"portrait", "portrait_box"}


def test_the_key_holds_everything_that_changes_the_output():
    stages = [
        DetectPersons(),
        DetectPersons(FaceDetector()),
        DetectPersons(confidence=0.4),
        DetectPersons(iou=0.4),
        DetectPersons(select=2),
        DetectPersons(framing="image"),
        DetectPersons(margin=0.3),
    ]

    assert len({stage.key for stage in stages}) == len(stages)
    assert all(stage.key.startswith("detection(") for stage in stages)


@pytest.mark.parametrize(
    "wrong",
    [
        {"select": "first"},
        {"select": 0},
        {"select": True},
        {"framing": "face"},
        {"margin": -0.1},
        {"confidence": 1.1},
        {"iou": -1},
    ],
)
def test_wrong_parameters_are_the_callers_mistake(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DetectPersons(**wrong)


# --- geometry ----------------------------------------------------------------------------------

sides = st.integers(1, 5000)
wholes = st.builds(lambda w, h: Box(0, 0, w, h), sides, sides)
margins = st.floats(0, 3)


@given(wholes, st.floats(-1, 2), st.floats(-1, 2), st.floats(0.01, 2000), margins)
def test_a_portrait_is_a_square_within_the_picture(whole, x, y, apart, margin):
    head = (x * whole.width, y * whole.height)

    box = portrait_box(head, apart, margin, whole=whole)

    assert box.width == box.height > 0
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert whole.y0 <= box.y0 < box.y1 <= whole.y1


@given(wholes, st.floats(0, 1), st.floats(0, 1), st.floats(1, 500), margins)
def test_a_head_within_the_picture_is_within_the_portrait(whole, x, y, apart, margin):
    head = (x * whole.width, y * whole.height)

    box = portrait_box(head, apart, margin, whole=whole)

    assert box.x0 - 1 <= head[0] <= box.x1 + 1
    assert box.y0 - 1 <= head[1] <= box.y1 + 1


@given(st.floats(400, 600), st.floats(400, 600), st.floats(5, 50))
def test_where_there_is_room_the_eyes_are_where_they_belong(x, y, apart):
    box = portrait_box((x, y), apart, 0.25, whole=Box(0, 0, 1000, 1000))

    assert apart / box.width == pytest.approx(0.17, abs=0.5 / box.width)
    assert (x - box.x0) / box.width == pytest.approx(0.5, abs=1.5 / box.width)
    assert (y - box.y0) / box.height == pytest.approx(0.42, abs=1.5 / box.width)


@given(wholes, st.data(), margins)
def test_a_grown_box_holds_the_box_and_stays_within(whole, data, margin):
    x0 = data.draw(st.integers(0, whole.width - 1))
    y0 = data.draw(st.integers(0, whole.height - 1))
    x1 = data.draw(st.integers(x0 + 1, whole.width))
    y1 = data.draw(st.integers(y0 + 1, whole.height))

    box = grown_box(Box(x0, y0, x1, y1), margin, whole=whole)

    assert 0 <= box.x0 <= x0 < x1 <= box.x1 <= whole.width
    assert 0 <= box.y0 <= y0 < y1 <= box.y1 <= whole.height
    assert box.width <= (x1 - x0) * (1 + margin) + 1


def test_a_small_picture_is_framed_whole():
    picture = Image(np.zeros((30, 20, 3), np.uint8))

    box = portrait_box((10, 10), 12, 0.25, whole=Box(0, 0, picture.width, picture.height))

    assert box == (0, 2, 20, 22)
