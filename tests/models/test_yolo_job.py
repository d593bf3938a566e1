"""The whole job with YOLO as its detector."""

from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest

from talkgen import DetectPersons, GenerateVideo, Image, Pipeline, RemoveBackground, Speech
from talkgen.errors import NoFaceInPortrait, NoPersonDetected
from talkgen.generators.local import LocalGenerator
from talkgen.models.yolo import YoloDetector

if find_spec("ultralytics") is None:
    pytest.skip("the extra yolo is not installed", allow_module_level=True)

pytestmark = pytest.mark.integration

ASSETS = Path(find_spec("ultralytics").origin).parent / "assets"


@pytest.fixture
def detector(weights) -> YoloDetector:
    return YoloDetector(weights / "yolov8n.pt")


@pytest.fixture
def short(speech_path) -> Speech:
    speech = Speech.open(speech_path)
    return Speech(speech.samples[:, : speech.sample_rate * 2 // 5], speech.sample_rate)


async def test_a_photo_of_two_becomes_a_video_of_one(anyio_backend, detector, short, tmp_path):
    stages = [
        DetectPersons(detector, select=2),
        RemoveBackground(),
        GenerateVideo(LocalGenerator(size=96)),
    ]
    result = await Pipeline(stages).run(ASSETS / "zidane.jpg", short)

    assert result.metadata["person_detection"]["total_persons"] == 2
    assert detector.key in stages[0].key
    # YOLO knows no faces: the portrait is where the face was found within the person's box.
    box, person = result.draft.portrait_box, result.draft.person.box
    assert box.width == box.height < person.width
    with av.open(str(result.video.save(tmp_path / "made.mp4"))) as container:
        frames = list(container.decode(video=0))
    assert (len(frames), frames[0].width) == (10, 96)


async def test_a_doubtful_person_is_accepted_by_the_same_look(anyio_backend, detector):
    stages = [DetectPersons(detector, confidence=0.95, framing="person")]
    result = await Pipeline(stages).run(ASSETS / "zidane.jpg")

    facts = result.metadata["person_detection"]
    assert facts["note"] == "accepted below the confidence of 0.95"
    assert facts["total_persons"] == 2


async def test_the_surest_person_is_passed_over_where_he_shows_no_face(anyio_backend, detector):
    result = await Pipeline([DetectPersons(detector)]).run(ASSETS / "zidane.jpg")
    assert result.draft.person.id == 2  # the first one is in profile
    with pytest.raises(NoFaceInPortrait):
        await Pipeline([DetectPersons(detector, select=1)]).run(ASSETS / "zidane.jpg")


async def test_a_photo_of_nobody(anyio_backend, detector):
    empty = Image(np.full((300, 400, 3), 90, np.uint8))
    with pytest.raises(NoPersonDetected, match=r"0\.3"):
        await Pipeline([DetectPersons(detector)]).run(empty)
