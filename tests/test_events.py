"""The wire form of events."""

import copy
import json
import pickle
from base64 import b64decode
from datetime import UTC, datetime
from typing import get_args

import numpy as np
import pytest

from talkgen import Image, events

COMMON = {
    "task_id": "t",
    "attempt": 1,
    "sequence": 3,
    "timestamp": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "stage": "s",
    "progress": 40,
    "message": "m",
    "metadata": {"n": 1},
}
FACTS = {
    events.Complete: {"video_url": None, "execution_time_ms": 5},
    events.Error: {"error": "e", "error_type": "T", "severity": "permanent", "hint": "h"},
    events.Deferred: {"error": "e", "error_type": "T", "hint": None},
    events.Cancelled: {"recoverable": True},
}


@pytest.mark.parametrize("kind", [k for k in get_args(events.Event) if k is not events.Preview])
def test_wire_form_is_json_with_the_facts_of_its_kind(kind):
    facts = FACTS.get(kind, {})
    event = kind(**COMMON, **facts)
    wire = event.to_dict()
    assert json.loads(json.dumps(wire)) == wire
    assert wire == {
        "task_id": "t",
        "event_type": kind.event_type,
        "sequence": 3,
        "data": {
            "stage": "s",
            "progress_percent": 40,
            "message": "m",
            "metadata": {"n": 1},
            **facts,
        },
        "timestamp": "2026-01-02T03:04:05.678Z",
    }
    assert event.cursor == "1-3"


def test_event_types_differ():
    kinds = get_args(events.Event)
    assert len({kind.event_type for kind in kinds}) == len(kinds)
    assert {kind for kind in kinds if kind.terminal} == set(FACTS)


def test_a_preview_travels_small_and_on_white():
    cut = np.zeros((300, 600, 4), np.uint8)
    cut[:, :300] = (255, 0, 0, 255)
    wire = events.Preview(**COMMON, image=Image(cut)).to_dict()
    assert (wire["event_type"], wire["sequence"]) == ("preview", 3)
    assert (wire["data"]["width"], wire["data"]["height"]) == (600, 300)
    head, _, body = wire["data"]["image"].partition(",")
    assert head == "data:image/jpeg;base64"
    small = Image.open(b64decode(body))
    assert (small.width, small.height) == (256, 128)
    assert small.pixels[64, 20] == pytest.approx((255, 0, 0), abs=8)
    assert small.pixels[64, 236] == pytest.approx((255, 255, 255), abs=8)


def test_no_preview_is_large():
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    preview = events.Preview(**COMMON, image=Image(noise))
    assert len(json.dumps(preview.to_dict())) < 100_000
    tiny = events.Preview(**COMMON, image=Image(noise[:1, :2])).image
    assert tiny.fitted(256) is tiny


def write(metadata):
    metadata["n"] = 1


def merge(metadata):
    metadata |= {"n": 1}


@pytest.mark.parametrize(
    "change",
    [write, merge, lambda facts: facts.update(n=1), lambda facts: facts.setdefault("n", 1)],
)
def test_no_reader_writes_what_all_others_read(change):
    event = events.ProgressUpdate(**COMMON | {"metadata": events.NO_FACTS})
    with pytest.raises(TypeError, match="read-only"):
        change(event.metadata)
    assert event.metadata == {}
    assert json.dumps(event.metadata) == "{}"
    for own in (pickle.loads(pickle.dumps(event)), copy.deepcopy(event)):
        change(own.metadata)
    assert events.NO_FACTS == {}
