"""Where the full models may run, and in which precision: options that they share."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import validators

__all__ = ["IS_DEVICE", "IS_HALF", "Half", "half_on", "precision"]

Half: TypeAlias = bool | Literal["auto"]
"""fp16: `auto` on CUDA alone, True on whatever is no CPU, False nowhere."""

# `auto`, a kind, or one of a kind.
IS_DEVICE = validators.matches_re(r"auto|cpu|mps|cuda(:\d+)?")

HALVES: tuple[Half, ...] = ("auto", True, False)
IS_HALF = validators.in_(HALVES)


def half_on(half: Half, device: str) -> bool:
    """Whether it means fp16 on a device."""
    return device.startswith("cuda") if half == "auto" else half and device != "cpu"


def precision(half: Half) -> str:
    """What it is called in a key; `auto` may mean either."""
    return half if half == "auto" else "fp16" if half else "fp32"
