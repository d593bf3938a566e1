"""The face networks on a photo whose face was measured by hand, and on scenes made of it."""

import pickle
from math import degrees

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkgen.errors import NoFaceInPortrait
from talkgen.media import Image
from talkgen.models._blazeface import FAR, NEAR, tiles
from talkgen.models._faces import Face, overlap, prominence, same_face, suppress
from talkgen.models.face import (
    LANDMARKS,
    FaceCrop,
    FaceDetectionModel,
    FaceDetector,
    FaceMesh,
    FaceMeshModel,
    find_mesh,
    find_meshes,
)

RIGHT_EYE, LEFT_EYE = (204, 103), (247, 104)  # of the demo's portrait, by hand
APART = 43.5
GREY = 128


def turned(image: Image, angle: float) -> tuple[Image, np.ndarray]:
    """The picture turned clockwise about its centre, and the points of the eyes in it."""
    centre = (image.width / 2, image.height / 2)
    matrix = cv2.getRotationMatrix2D(centre, -angle, 1)
    pixels = cv2.warpAffine(image.pixels, matrix, (image.width, image.height))
    eyes = np.array([[*RIGHT_EYE, 1], [*LEFT_EYE, 1]]) @ matrix.T
    return Image(pixels), eyes


def scene(size: tuple[int, int], *faces: tuple[Image, float, tuple[int, int]]) -> Image:
    """A grey picture (width, height) with copies of photos, by scale and place, on it."""
    pixels = np.full((size[1], size[0], 3), GREY, np.uint8)
    for photo, scale, (x, y) in faces:
        part = photo.resized(round(photo.width * scale), round(photo.height * scale))
        pixels[y : y + part.height, x : x + part.width] = part.pixels[..., :3]
    return Image(pixels)


@pytest.fixture(scope="module")
def head(portrait: Image) -> Image:
    """The demo's portrait without its lower half: 300x300, the eyes at (104, 103)."""
    return portrait.cropped((100, 0, 400, 300))


# --- the mesh ----------------------------------------------------------------------------------


async def test_the_mesh_has_the_eyes_where_they_are(portrait, scheduler):
    mesh = await find_mesh(portrait, scheduler=scheduler)

    assert mesh.points.shape == (LANDMARKS, 3)
    assert mesh.points.dtype == np.float32
    assert mesh.presence > 0.95
    assert mesh.right_eye == pytest.approx(RIGHT_EYE, abs=2)
    assert mesh.left_eye == pytest.approx(LEFT_EYE, abs=2)
    assert mesh.eye_distance == pytest.approx(APART, abs=2)
    assert mesh.scale == pytest.approx(APART, abs=2)
    assert mesh.centre == pytest.approx([225.5, 103.5], abs=4)
    assert degrees(mesh.roll) == pytest.approx(1, abs=3)


@pytest.mark.parametrize("angle", [-45, -20, 20, 45])
async def test_the_mesh_follows_a_head_that_is_turned_in_the_picture(portrait, scheduler, angle):
    picture, eyes = turned(portrait, angle)

    mesh = await find_mesh(picture, scheduler=scheduler)

    assert np.stack([mesh.right_eye, mesh.left_eye]) == pytest.approx(eyes, abs=3)
    assert degrees(mesh.roll) == pytest.approx(angle, abs=5)


async def test_the_mesh_forgives_a_rough_box(portrait, scheduler):
    exact = await find_mesh(portrait, scheduler=scheduler)
    x0, y0, x1, y1 = exact.box
    rough = FaceCrop(portrait, (x0 - 9, y0 + 8, x1 + 9, y1 + 8), roll=0.2)

    mesh = await scheduler.run(FaceMeshModel(), rough)

    off = np.hypot(*(mesh.points - exact.points)[:, :2].T)
    assert off.mean() < 0.03 * APART


async def test_transparency_is_ignored(portrait, scheduler):
    opaque = await find_mesh(portrait, scheduler=scheduler)
    clear = Image(np.dstack([portrait.pixels, np.zeros((512, 512), np.uint8)]))

    mesh = await find_mesh(clear, scheduler=scheduler)

    assert np.array_equal(mesh.points, opaque.points)


async def test_a_face_that_fills_the_picture_is_found(portrait, scheduler):
    close = portrait.cropped((165, 60, 290, 185))

    mesh = await find_mesh(close, scheduler=scheduler)

    assert mesh.right_eye == pytest.approx([204 - 165, 103 - 60], abs=3)


@pytest.mark.parametrize("picture", ["grey", "noise", "helmet", "pixel"])
async def test_no_face_is_a_typed_error(portrait, scheduler, picture):
    noise = np.random.default_rng(3).integers(0, 256, (300, 400, 3), np.uint8)
    pictures = {
        "grey": scene((640, 480)),
        "noise": Image(noise),
        "helmet": portrait.cropped((0, 300, 512, 512)),
        "pixel": Image(noise[:1, :1]),
    }

    with pytest.raises(NoFaceInPortrait, match="No face") as caught:
        await find_mesh(pictures[picture], scheduler=scheduler)
    assert caught.value.hint


async def test_the_mesh_of_no_face_is_none(portrait, scheduler):
    helmet = FaceCrop(portrait, (40, 320, 240, 480))

    assert await scheduler.run(FaceMeshModel(), helmet) is None


async def test_a_crop_can_be_made_of_known_landmarks(portrait, scheduler):
    mesh = await find_mesh(portrait, scheduler=scheduler)

    crop = FaceCrop.around(portrait, mesh.points[:, :2])

    assert crop.box == pytest.approx(mesh.box)
    assert crop.roll == pytest.approx(mesh.roll)


async def test_a_mesh_can_be_moved_and_pickled(portrait, scheduler):
    mesh = await find_mesh(portrait, scheduler=scheduler)

    moved = pickle.loads(pickle.dumps(mesh.moved(10, -20)))

    assert moved.right_eye - mesh.right_eye == pytest.approx([10, -20], abs=1e-3)
    assert np.array_equal(moved.points[:, 2], mesh.points[:, 2])
    assert moved.confidence == mesh.confidence


def test_confidence_is_the_geometric_mean():
    mesh = FaceMesh(np.zeros((LANDMARKS, 3), np.float32), presence=0.9, score=0.4)

    assert mesh.confidence == pytest.approx(0.6)


# --- everybody ---------------------------------------------------------------------------------


async def test_everybody_is_found_once(head, scheduler):
    crowd = scene((1300, 700), (head, 1.0, (60, 40)), (head, 2.0, (560, 60)))

    meshes = await find_meshes(crowd, scheduler=scheduler)

    assert [mesh.right_eye.tolist() for mesh in meshes] == [
        pytest.approx([560 + 208, 60 + 206], abs=6),
        pytest.approx([60 + 104, 40 + 103], abs=4),
    ]


async def test_small_faces_in_a_large_picture_are_found(head, scheduler):
    crowd = scene((3000, 2000), (head, 0.5, (200, 150)), (head, 0.5, (2500, 1700)))

    meshes = await find_meshes(crowd, scheduler=scheduler)

    eyes = sorted(mesh.right_eye.tolist() for mesh in meshes)
    assert eyes == [pytest.approx([252, 201.5], abs=4), pytest.approx([2552, 1751.5], abs=4)]


async def test_a_higher_confidence_finds_no_more(portrait, scheduler):
    assert await find_meshes(portrait, scheduler=scheduler, confidence=0.99) == ()


async def test_detections_are_of_the_face_and_its_keypoints(portrait, scheduler):
    for reach in ("near", "far"):
        best, *rest = await scheduler.run(FaceDetectionModel(reach), portrait)
        assert best.score > 0.8
        assert all(face.score <= best.score for face in rest)
        x0, y0, x1, y1 = best.box
        assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((226, 125), abs=12)
        assert x1 - x0 == pytest.approx(100, abs=15)
        right, left, nose, mouth, *ears = best.keypoints
        assert right == pytest.approx(RIGHT_EYE, abs=8)
        assert left == pytest.approx(LEFT_EYE, abs=8)
        assert nose == pytest.approx([228, 126], abs=10)
        assert mouth == pytest.approx([228, 149], abs=10)
        assert ears[0][0] < right[0] < left[0] < ears[1][0]


def test_anchors_are_as_many_as_the_networks_answers():
    assert NEAR.anchors().shape == (896, 2)
    assert FAR.anchors().shape == (2304, 2)
    assert NEAR.anchors()[:3].tolist() == [[1 / 32, 1 / 32], [1 / 32, 1 / 32], [3 / 32, 1 / 32]]
    for detector in (NEAR, FAR):
        assert detector.anchors().min() > 0
        assert detector.anchors().max() < 1


# --- persons -----------------------------------------------------------------------------------


async def test_a_person_is_head_and_shoulders_with_landmarks(portrait, scheduler):
    (person,) = await FaceDetector().detect(portrait, scheduler=scheduler)

    assert person.id == 1
    assert person.confidence > 0.9
    assert person.landmarks.shape == (LANDMARKS, 2)
    assert person.landmarks.dtype == np.float32
    assert all(isinstance(edge, int) for edge in person.box)
    assert person.box.width == pytest.approx(6 * APART, abs=12)
    assert person.box.x0 < 150  # the hair's ends, by eye
    assert person.box.x1 > 300
    assert person.box.y0 < 15
    assert person.box.y1 > 220  # well below the chin


async def test_boxes_end_at_the_picture(head, scheduler):
    close = head.cropped((50, 50, 200, 200))

    (person,) = await FaceDetector().detect(close, scheduler=scheduler)

    assert person.box == (0, 0, 150, 150)


async def test_persons_are_numbered_by_prominence(head, scheduler):
    crowd = scene((1300, 700), (head, 1.0, (60, 40)), (head, 2.0, (560, 60)))

    first, second = await FaceDetector().detect(crowd, scheduler=scheduler)

    assert (first.id, second.id) == (1, 2)
    assert first.box.width > second.box.width


async def test_the_detector_is_a_value_with_a_key():
    assert FaceDetector() == FaceDetector()
    assert FaceDetector().key.count("@") == 3


# --- decisions ---------------------------------------------------------------------------------

lengths = st.floats(1, 300)
places = st.floats(-100, 1000)
boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), places, places, lengths, lengths)
faces = st.builds(Face, boxes, st.floats(0, 1), st.just(np.zeros((6, 2), np.float32)))


@given(boxes, boxes)
def test_overlap_is_a_symmetric_share(a, b):
    assert 0 <= overlap(a, b) <= 1 + 1e-9
    assert overlap(a, b) == overlap(b, a)
    assert overlap(a, a) == pytest.approx(1)


def test_overlap_of_two_squares_by_hand():
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 2, 2), (2, 0, 4, 2)) == 0


def test_a_box_within_another_is_the_same_face_though_they_share_little():
    assert same_face((0, 0, 100, 100), (40, 40, 60, 60), iou=0.5)
    assert same_face((40, 40, 60, 60), (0, 0, 100, 100), iou=0.5)
    assert not same_face((0, 0, 100, 100), (80, 0, 180, 100), iou=0.5)


@given(st.lists(faces, max_size=12), st.floats(0, 1))
def test_suppression_keeps_the_first_of_each_face(found, iou):
    kept = suppress(found, iou)

    assert suppress(kept, iou) == kept
    assert [face for face in found if face in kept] == list(kept)
    for i, face in enumerate(kept):
        assert not any(same_face(face.box, other.box, iou) for other in kept[:i])
    for face in found:
        assert any(face is one or same_face(face.box, one.box, iou) for one in kept)


@given(boxes, st.floats(0.01, 1))
def test_prominence_grows_with_size_and_confidence_and_closeness(box, confidence):
    x0, y0, x1, y1 = box
    centred = (500 - (x1 - x0) / 2, 400 - (y1 - y0) / 2, 500 + (x1 - x0) / 2, 400 + (y1 - y0) / 2)
    larger = (x0 - 10, y0 - 10, x1 + 10, y1 + 10)
    here = prominence(box, confidence, 1000, 800)

    assert 0 < here <= prominence(centred, confidence, 1000, 800) * (1 + 1e-9)
    assert here < prominence(larger, confidence, 1000, 800)
    assert here == pytest.approx(prominence(box, 1, 1000, 800) * confidence)


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_tiles_cover_the_picture_with_overlap_and_are_few(width, height):
    windows = tiles(width, height)

    if max(width, height) <= 640:
        assert windows == []
        return
    side = windows[0].side
    assert len(windows) <= 90
    for x, y in [(0, 0), (width, height), (width / 2, height / 3), (width / 7, height)]:
        assert any(
            abs(w.x - x) <= side / 2 + 1e-6 and abs(w.y - y) <= side / 2 + 1e-6 for w in windows
        )
    steps = np.diff(sorted({w.x for w in windows}))
    assert (steps <= 0.7 * side + 1e-6).all()


def test_a_face_has_a_roll():
    keypoints = np.zeros((6, 2), np.float32)
    keypoints[1] = (10, 10)

    assert degrees(Face((0, 0, 1, 1), 1.0, keypoints).roll) == pytest.approx(45)
