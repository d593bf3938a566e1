"""Many runs at a time, in a process that is killed again and again: all end, each paid once."""

from __future__ import annotations

import json
import random
import signal
import time

import pytest

from talkgen.testing import PaidServer

LIMIT = 900  # seconds


@pytest.mark.parametrize(
    ("count", "most", "between"),
    [
        (40, 3, (0.1, 0.5)),
        pytest.param(
            1000, 1000, (2.0, 5.0), marks=[pytest.mark.slow, pytest.mark.timeout(LIMIT + 60)]
        ),
    ],
)
def test_all_are_completed_once(tmp_path, harness, count, most, between):
    chance, kills = random.Random(count), 0
    store, outcome = tmp_path / "store", tmp_path / "outcome.json"
    config = {"kind": "paid", "root": str(store), "outcome": str(outcome), "count": count}
    end = time.monotonic() + LIMIT
    with PaidServer(size=1_000) as server:
        while not outcome.exists():
            assert time.monotonic() < end
            server.asked.clear()
            process = harness.start(action="many", url=server.url, **config)
            while process.is_alive() and not server.asked.wait(0.05):
                pass  # it is not at work yet
            process.join(chance.uniform(*between) if kills < most else LIMIT)
            if process.exitcode is None:
                process.kill()
                kills += 1
            process.join()
            assert process.exitcode in {0, -signal.SIGKILL}
    assert json.loads(outcome.read_text())["states"] == {"completed": count}
    assert len(server.ledger) == len(set(server.ledger)) == count
    assert kills > 0
    assert len(list(store.glob("videos/*.mp4"))) == count
    assert harness.orphans(store) == set()
