"""Names that become files can be nothing but plain files of one folder, on every system."""

import re
import string
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkgen.errors import InvalidName
from talkgen.media import FileRef
from talkgen.storage import names

letters = string.ascii_lowercase + string.digits
words = st.text(letters, min_size=1, max_size=20)
plain = st.text(letters + "_-", max_size=20)
task_ids = st.builds("{}{}".format, words, plain).filter(names.is_task_id)
suffixes = st.builds("{}.{}".format, words, words)
anything = st.text(max_size=40) | st.text(letters + "._-~/\\: ", max_size=12)


@given(task_ids, suffixes)
def test_good_parts_make_a_name_that_leads_back(task_id: str, suffix: str):
    name = names.file_name(task_id, suffix)
    assert name == f"{task_id}_{suffix}"
    assert names.task_of(name) == task_id
    names.check_file(FileRef(task_id, "videos", name, 0, ""))


@given(anything, anything)
def test_whatever_passes_is_one_plain_file_name_everywhere(task_id: str, suffix: str):
    """No separator, no device, no trailing dot or space, and case does not matter."""
    try:
        name = names.file_name(task_id, suffix)
    except InvalidName:
        return
    assert len(name.encode()) <= 255 - len("processed~")
    assert name == name.casefold() == name.strip()
    assert not name.endswith(".")
    for path in (PurePosixPath("root", name), PureWindowsPath("root", name)):
        assert path.name == name
        assert path.parent.name == "root"
    assert not PureWindowsPath(name).is_reserved()
    assert not PureWindowsPath(task_id).is_reserved()
    assert not names.is_temporary(name)


@given(task_ids, suffixes, task_ids, suffixes)
def test_two_tasks_never_share_a_name(one: str, suffix: str, other: str, other_suffix: str):
    if one != other:
        assert names.file_name(one, suffix) != names.file_name(other, other_suffix)


def test_underscores_do_not_confuse_two_tasks():
    """`a` + `b_final.mp4` would be the name of `a_b` + `final.mp4`."""
    assert names.file_name("a_b", "final.mp4") == "a_b_final.mp4"
    with pytest.raises(InvalidName):
        names.file_name("a", "b_final.mp4")


@pytest.mark.parametrize(
    "task_id",
    ["A", "Task-1", "ä", "a" * 129, "-a", "_a", ".a", "a.", "a..b", "nul", "com1", "con.x", "a\n"],
)
def test_ids_that_mean_something_somewhere_are_refused(task_id: str):
    with pytest.raises(InvalidName, match=re.escape(ascii(task_id)[:60])) as refused:
        names.check_task_id(task_id)
    assert "lower-case" in refused.value.hint


@pytest.mark.parametrize("suffix", ["original", "a_b.png", "Final.mp4", "a" * 70 + ".x", "x.png "])
def test_suffixes_are_short_and_have_an_extension(suffix: str):
    with pytest.raises(InvalidName, match="cannot end a file name"):
        names.file_name("a", suffix)


def test_the_manifest_has_its_own_name():
    with pytest.raises(InvalidName, match=r"'metadata\.json' cannot end"):
        names.file_name("a", "metadata.json")
    assert names.task_of("a_metadata.json") == "a"


@pytest.mark.parametrize(
    "file",
    [
        FileRef("a", "videos", "b_final.mp4", 0, ""),
        FileRef("a", "videos", "final.mp4", 0, ""),
        FileRef("a", "videos", "../a_final.mp4", 0, ""),
        FileRef("a", "..", "a_final.mp4", 0, ""),
        FileRef("..", "videos", ".._final.mp4", 0, ""),
        FileRef("a", "videos", "a_metadata.json", 0, ""),
    ],
)
def test_references_that_lead_elsewhere_are_refused(file: FileRef):
    with pytest.raises(InvalidName):
        names.check_file(file)


def test_a_long_name_is_shown_short():
    with pytest.raises(InvalidName) as refused:
        names.check_task_id("\N{BOMB}" * 10_000)
    assert len(str(refused.value)) < 200


def test_temporary_names_are_told_apart():
    assert names.is_temporary(names.temporary_name("scratch"))
    assert names.temporary_name("part") != names.temporary_name("part")
    assert names.task_of(names.temporary_name("part")) is None
