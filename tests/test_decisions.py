"""The policy, as a table."""

import attrs
import pytest

from talkgen.decisions import Answer, answer, as_talkgen_error, check_order
from talkgen.errors import InvalidImage, OutOfMemory, StageFailed, TalkgenError


class Outage(TalkgenError):
    outage = True


@attrs.frozen
class Step:
    name: str
    requires: frozenset[str] = frozenset()
    provides: frozenset[str] = frozenset()
    resets: frozenset[str] = frozenset()
    weight: float = 1.0
    key: str = "step"


def fields(*names):
    return frozenset(names)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([Step("a", requires=fields("person"))], "'a' requires 'person', which no earlier"),
        (
            [Step("a", provides=fields("portrait")), Step("b", resets=fields("portrait"))],
            "'b' makes 'portrait' anew and would lose what stage 'a' made",
        ),
        ([Step("a"), Step("a")], "two stages are named 'a'"),
        ([Step("a", provides=fields("potrait"))], "'potrait', which is no field"),
        ([Step("a", weight=0)], "weight"),
    ],
)
def test_wrong_order_names_the_field(stages, message):
    with pytest.raises(ValueError, match=message):
        check_order(stages)


def test_right_order_passes():
    check_order([Step("a", provides=fields("person")), Step("b", requires=fields("person"))])


@pytest.mark.parametrize(
    ("error", "facts", "expected"),
    [
        (InvalidImage("x"), {}, Answer.FAIL),
        (InvalidImage("x"), {"optional": True}, Answer.GO_ON),
        (InvalidImage("x"), {"optional": True, "strict": True}, Answer.FAIL),
        (InvalidImage("x"), {"optional": True, "paid": True}, Answer.DEFER),
        (InvalidImage("x"), {"paid": True}, Answer.DEFER),
        (Outage("x"), {}, Answer.FAIL),
        (Outage("x"), {"defer": {"external"}}, Answer.DEFER),
        (OutOfMemory("x"), {"defer": {"external"}}, Answer.FAIL),
        (OutOfMemory("x"), {"defer": {"resource"}}, Answer.DEFER),
    ],
)
def test_answers(error, facts, expected):
    facts = {"optional": False, "strict": False, "defer": (), "paid": False} | facts
    assert answer(error, **facts) is expected


def test_strangers_are_wrapped_and_told_where():
    stranger = KeyError("k")
    error = as_talkgen_error(stranger, stage="a", task_id="t")
    assert isinstance(error, StageFailed)
    assert error.__cause__ is stranger
    assert (error.stage, error.task_id) == ("a", "t")
    own = InvalidImage("x")
    assert as_talkgen_error(own, stage=None, task_id="t") is own
    group = ExceptionGroup("tasks", [ExceptionGroup("tasks", [own])])
    assert as_talkgen_error(group, stage=None, task_id="t") is own
    several = ExceptionGroup("tasks", [own, stranger])
    assert as_talkgen_error(several, stage="a", task_id="t").__cause__ is several
