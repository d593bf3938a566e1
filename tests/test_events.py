"""The wire form of events."""

import json
from datetime import UTC, datetime
from typing import get_args

import pytest

from talkgen import events

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
