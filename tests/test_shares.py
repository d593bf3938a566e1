"""The shares of the stages: in order, within their range, well-known ones in their places."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkgen.shares import spans

NAMES = st.sampled_from(
    ["detection", "background_removal", "background", "video_generation", "a", "b"]
)


@given(st.lists(st.tuples(NAMES, st.floats(0.01, 100)), max_size=8))
def test_spans_follow_each_other_within_their_range(stages):
    shares = spans(stages)
    assert len(shares) == len(stages)
    edges = [20.0, *(edge for span in shares for edge in (span.start, span.end)), 90.0]
    assert all(b - a >= -1e-9 for a, b in pairwise(edges))


def test_well_known_stages_have_their_places():
    shares = spans([("detection", 1), ("background_removal", 1), ("x", 3), ("video_generation", 1)])
    assert [(span.start, span.end) for span in shares] == [(25, 40), (50, 60), (60, 70), (70, 80)]
    assert spans([("x", 1), ("y", 3)])[1].start == pytest.approx(37.5)
    assert shares[0].at(-1) == 25
    assert shares[0].at(2) == 40
