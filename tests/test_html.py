"""What notebooks show is whole, escaped, and no larger than a page can carry."""

import pickle
import re
from base64 import b64decode
from xml.etree import ElementTree as ET

import attrs
import numpy as np
import pytest

from talkgen import DetectPersons, GenerateVideo, Image, MemoryStorage, Pipeline, Speech, html
from talkgen.draft import Box, Draft, Person, Persons
from talkgen.generators.local import LocalGenerator

PICTURE = Image(np.full((300, 600, 3), 128, np.uint8))


def inside(page, media_type):
    return b64decode(re.search(rf"data:{media_type};base64,([^\"]+)", page)[1])


def test_a_picture_is_shown_small_and_in_its_shape():
    page = PICTURE._repr_html_()
    small = Image.open(inside(page, "image/jpeg"))
    assert (small.width, small.height) == (480, 240)
    assert ET.fromstring(page).get("viewBox") == "0 0 600 300"


def test_a_cut_out_keeps_its_transparency():
    cut = Image(np.zeros((4, 4, 4), np.uint8))
    assert Image.open(inside(cut._repr_html_(), "image/png")).has_alpha


def test_a_persons_repr_is_a_line():
    marks = np.zeros((478, 2), np.float32)
    assert "landmarks=<float32 (478, 2)>" in repr(Person(1, Box(0, 0, 1, 1), 0.9, marks))
    assert "landmarks=None" in repr(Person(1, Box(0, 0, 1, 1), 0.9))


def test_persons_have_boxes_and_numbers():
    persons = Persons([Person(1, Box(10, 20, 110, 220), 0.93)], PICTURE)
    assert persons == (persons[0],)
    svg = ET.fromstring(persons._repr_html_())
    rect = svg.find("{http://www.w3.org/2000/svg}rect")
    assert [rect.get(name) for name in ("x", "y", "width", "height")] == ["10", "20", "100", "200"]
    assert svg.find("{http://www.w3.org/2000/svg}text").text == "#1 93%"
    again = pickle.loads(pickle.dumps(persons))
    assert (again[0].box, again.image.digest) == (persons[0].box, PICTURE.digest)


def test_strangers_words_are_escaped():
    evil = '"><script>'
    for page in (
        html.link(evil, evil),
        html.table({evil: ""}),
        html.bar(3, evil),
        html.picture(evil, (1, 1), over=html.labelled_boxes([((0, 0, 1, 1), evil)], (1, 1))),
        html.player(evil, (1, 1), poster=evil),
    ):
        assert "<script>" not in page


@pytest.mark.integration
async def test_a_result_shows_its_video_or_a_link(anyio_backend, portrait_path, monkeypatch):
    speech = Speech(np.zeros((1, 1600), np.float32), 16000)
    stages = [DetectPersons(), GenerateVideo(LocalGenerator(size=64))]
    result = await Pipeline(stages, storage=MemoryStorage()).run(portrait_path, speech)
    page = result._repr_html_()
    assert inside(page, "video/mp4") == await result.video.aread()
    poster = Image.open(inside(page, "image/jpeg"))
    assert (poster.width, poster.height) == result.video.size
    assert result.task_id in page
    draft = result.draft._repr_html_()
    assert all(name in draft for name in ("source", "portrait", "video", "#1 "))
    monkeypatch.setattr("talkgen.media.LARGEST_INLINE", 10)
    page = result.video._repr_html_()
    assert "video.save" in page  # a storage in memory has no addresses
    assert "base64" not in page
    published = attrs.evolve(result.video.file, url="https://example.org/v.mp4")
    elsewhere = attrs.evolve(result.video, file=published, reader=None)
    assert elsewhere._repr_html_().startswith('<a href="https://example.org/v.mp4">')
    assert "video.save" not in elsewhere._repr_html_()
    file = attrs.evolve(elsewhere.file, url="file:///v.mp4")
    assert "video.save" in attrs.evolve(elsewhere, file=file)._repr_html_()


def test_a_draft_that_outlived_its_photo_is_shown() -> None:
    person = Person(1, Box(0, 0, 4, 4), 0.9)
    draft = Draft("t", None, None, Box(0, 0, 8, 8), persons=(person,))
    assert "<img" not in draft._repr_html_()
