"""Where the full models may run, and in which precision: options that they share."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

__all__ = ["Half", "check_device", "check_half", "half_on", "precision"]

Half: TypeAlias = bool | Literal["auto"]
"""fp16: `auto` on CUDA alone, True on whatever is no CPU, False nowhere."""

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_device(_instance: object, _attribute: object, value: str) -> None:
    """Refuse what names no device; a validator."""
    if not DEVICE.fullmatch(value):
        raise ValueError(f"device={value!r}: must be auto, cpu, cuda, mps, or one such as cuda:1")


def check_half(_instance: object, _attribute: object, value: object) -> None:
    """Refuse what is no precision; a validator."""
    if value not in {"auto", True, False}:
        raise ValueError(f"half={value!r}: must be 'auto', True or False")


def half_on(half: Half, device: str) -> bool:
    """Whether it means fp16 on a device."""
    return device.startswith("cuda") if half == "auto" else half and device != "cpu"


def precision(half: Half) -> str:
    """What it is called in a key; `auto` may mean either."""
    return half if half == "auto" else "fp16" if half else "fp32"
