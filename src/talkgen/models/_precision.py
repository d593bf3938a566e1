"""Where the full models may run, and in which precision: options that they share."""

from __future__ import annotations

from typing import Literal, TypeAlias

from talkgen._devices import device_name

__all__ = ["Half", "check_device", "check_half", "half_on", "precision"]

Half: TypeAlias = bool | Literal["auto"]
"""fp16: `auto` on CUDA alone, True on whatever is no CPU, False nowhere."""


def check_device(_instance: object, _attribute: object, value: str) -> None:
    """Refuse what names no device; a validator."""
    try:
        device_name(value)
    except ValueError as error:
        raise ValueError(f"device={value!r}: {error}") from None


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
