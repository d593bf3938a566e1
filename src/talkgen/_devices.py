"""How the devices of a machine are named."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["device_name"]

NAME = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def device_name(value: Any) -> str:
    """A name of devices, or `auto`, which leaves the choice.

    Raises:
        ValueError: It is none.
    """
    if not NAME.fullmatch(str(value)):
        raise ValueError("must be auto, cpu, mps, cuda or one like cuda:1")
    return str(value)
