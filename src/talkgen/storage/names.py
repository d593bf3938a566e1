"""Which names may become files, decided in one place; nothing here touches a disk.

A task id holds lower-case letters, digits, `_`, `-` and single dots, so that an id is one plain
file name on every system, and two ids never meet on a disk that ignores case. A suffix holds no
`_`: the last one in a file's name therefore ends the task id, and no two tasks share a name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args
from uuid import uuid4

from talkgen.errors import InvalidName
from talkgen.media import Tier

if TYPE_CHECKING:
    from talkgen.media import FileRef

__all__ = [
    "MANIFEST_SUFFIX",
    "TIERS",
    "check_file",
    "check_task_id",
    "check_tier",
    "file_name",
    "is_task_id",
    "is_temporary",
    "task_of",
    "temporary_name",
]

TIERS: tuple[Tier, ...] = get_args(Tier)
MANIFEST_SUFFIX = "metadata.json"

# Together with the separator and a tier in front, well inside the 255 bytes of a file name.
MAX_TASK_ID = 128
MAX_SUFFIX = 64

TASK_ID = re.compile(r"[a-z0-9][a-z0-9_-]*(?:\.[a-z0-9_-]+)*")
SUFFIX = re.compile(r"[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)+")
TEMPORARY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}_[a-z]+")

# Windows takes these for devices, whatever follows the first dot.
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
DEVICES = frozenset({"con", "prn", "aux", "nul"}) | {
    f"{port}{number}" for port in ("com", "lpt") for number in range(10)
}


def is_task_id(name: str) -> bool:
    """It can be the beginning of a file name everywhere."""
    plain = TASK_ID.fullmatch(name) is not None and len(name) <= MAX_TASK_ID
    return plain and name.partition(".")[0] not in DEVICES


def check_task_id(task_id: str) -> str:
    """Give the id back.

    Raises:
        InvalidName: It cannot be the beginning of a file name everywhere.
    """
    if not is_task_id(task_id):
        raise InvalidName(
            f"{_shown(task_id)} cannot be a task id.",
            hint=f"Use 1 to {MAX_TASK_ID} lower-case letters, digits, '_', '-' and single dots "
            "between them, beginning with a letter or a digit, and no device name such as 'con'.",
        )
    return task_id


def check_tier(tier: str) -> None:
    """Let only the four tiers pass.

    Raises:
        InvalidName: It is none of them.
    """
    if tier not in TIERS:
        raise InvalidName(f"{_shown(tier)} is no tier.", hint=f"Use one of {', '.join(TIERS)}.")


def file_name(task_id: str, suffix: str) -> str:
    """`{task_id}_{suffix}`.

    Args:
        task_id: The task.
        suffix: Like `cropped.png`.

    Raises:
        InvalidName: One of them is no good, or the name is the manifest's.
    """
    check_task_id(task_id)
    if not _is_suffix(suffix) or suffix == MANIFEST_SUFFIX:
        raise InvalidName(
            f"{_shown(suffix)} cannot end a file name.",
            hint=f"Use up to {MAX_SUFFIX} lower-case letters, digits and '-', and an extension, "
            f"like 'cropped.png'; {MANIFEST_SUFFIX!r} is the manifest's own.",
        )
    return f"{task_id}_{suffix}"


def task_of(name: str) -> str | None:
    """The task whose file or manifest bears this name; None if it is nobody's."""
    task_id, _, suffix = name.rpartition("_")
    return task_id if is_task_id(task_id) and _is_suffix(suffix) else None


def check_file(file: FileRef) -> None:
    """Let only a file pass whose name is its task's and whose tier exists.

    Raises:
        InvalidName: It is not; following it might leave the storage's folder.
    """
    check_tier(file.tier)
    check_task_id(file.task_id)
    if file.name != file_name(file.task_id, file.name.removeprefix(f"{file.task_id}_")):
        raise InvalidName(f"{_shown(file.name)} is no file of task {file.task_id}.")


def temporary_name(label: str) -> str:
    """`{uuid4}_{label}`: never the name of a task's file, which has an extension."""
    return f"{uuid4()}_{label}"


def is_temporary(name: str) -> bool:
    """`temporary_name` may have made this one."""
    return TEMPORARY.fullmatch(name) is not None


def _is_suffix(suffix: str) -> bool:
    return SUFFIX.fullmatch(suffix) is not None and len(suffix) <= MAX_SUFFIX


def _shown(name: str) -> str:
    """As Python writes it, and short: it may hold anything."""
    text = ascii(name)
    return text if len(text) <= MAX_TASK_ID else f"{text[:MAX_TASK_ID]}..."
