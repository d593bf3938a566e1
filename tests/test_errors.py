"""The error tree: what it promises, and that its picture in the docstring is true."""

import builtins
import inspect
import pickle
import re

import pytest

from talkgen import errors
from talkgen.errors import Severity, TalkgenError

LINE = re.compile(r"^(?P<indent> {4,})(?P<name>[A-Z]\w+)(?: \((?P<builtin>\w+)\))?(?:  .*)?$")
CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, TalkgenError)
]


def documented() -> dict[str, tuple[str | None, str | None]]:
    """Name -> (parent, builtin parent), from the docstring."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    above: list[tuple[int, str]] = []
    for match in filter(None, map(LINE.match, (errors.__doc__ or "").splitlines())):
        depth = len(match["indent"])
        above = [(at, name) for at, name in above if at < depth]
        tree[match["name"]] = (above[-1][1] if above else None, match["builtin"])
        above.append((depth, match["name"]))
    return tree


def test_the_documented_tree_is_the_tree() -> None:
    actual = {}
    for cls in CLASSES:
        parents = [base for base in cls.__bases__ if base is not Exception]
        own = [base.__name__ for base in parents if base.__module__ == errors.__name__]
        foreign = [base.__name__ for base in parents if base.__module__ == "builtins"]
        assert len(own) <= 1
        assert len(foreign) <= 1
        actual[cls.__name__] = (own[0] if own else None, foreign[0] if foreign else None)

    assert documented() == actual


@pytest.mark.parametrize("name", documented())
def test_errors_can_be_caught_as_what_the_tree_says(name: str) -> None:
    parent, builtin = documented()[name]
    error = getattr(errors, name)("what happened")

    assert isinstance(error, TalkgenError)
    assert parent is None or isinstance(error, getattr(errors, parent))
    assert builtin is None or isinstance(error, getattr(builtins, builtin))


def test_every_error_is_public() -> None:
    assert set(errors.__all__) == {cls.__name__ for cls in CLASSES} | {"Severity"}
    assert errors.__all__ == sorted(errors.__all__)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_has_its_facts(cls: type[TalkgenError]) -> None:
    error = cls("what happened", hint="what to do", retry_after=1.5)

    assert str(error) == error.message == "what happened"
    assert error.hint == "what to do"
    assert error.retry_after == 1.5
    assert error.stage is None
    assert error.task_id is None
    assert isinstance(error.severity, Severity)
    assert cls.__doc__


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_pickle_with_all_facts(cls: type[TalkgenError]) -> None:
    error = cls("what happened", hint="what to do", retry_after=1.5)
    error.stage, error.task_id = "render", "task-1"
    error.add_note("seen on a Monday")

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is cls
    assert str(copy) == "what happened"
    assert vars(copy) == vars(error)
    assert copy.__notes__ == ["seen on a Monday"]


def test_a_hint_given_replaces_the_usual_one() -> None:
    assert errors.InsufficientStorage("full").hint == errors.InsufficientStorage.default_hint
    assert errors.InsufficientStorage("full", hint="wait").hint == "wait"
    assert errors.StageFailed("broken").hint is None


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if issubclass(cls, errors.InvalidInput)])
def test_bad_input_is_permanent(cls: type[TalkgenError]) -> None:
    assert cls.severity is Severity.PERMANENT
    assert not cls.retryable
    assert issubclass(cls, ValueError)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls.severity is Severity.RESOURCE])
def test_what_this_machine_lacks_may_be_there_later(cls: type[TalkgenError]) -> None:
    assert cls.retryable
