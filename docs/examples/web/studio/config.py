"""What the application itself may be told; everything else is talkgen's `Settings`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import environ

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Config"]


def _var(name: str, default: float | str, kind: Callable[[str], Any]) -> Any:
    """A field that names its variable when the value is no good."""

    def convert(value: str) -> Any:
        try:
            return kind(value)
        except ValueError as error:
            raise ValueError(f"{name}={value!r}: {error}") from None

    return environ.var(default, name=name, converter=convert)


def _at_least(least: float, kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(value: str) -> float:
        number = kind(value)
        if not least <= number < math.inf:
            raise ValueError(f"must be {least:g} or more")
        return number

    return parse


@environ.config(prefix="", frozen=True)
class Config:
    """The application's own settings; `Config.from_env()` reads the variables.

    Attributes:
        host: TALKGEN_WEB_HOST; the address to listen on.
        port: TALKGEN_WEB_PORT; 0 takes a free one.
        max_upload_mb: TALKGEN_WEB_MAX_UPLOAD_MB; of a whole request (2**20 bytes).
        upload_seconds: TALKGEN_WEB_UPLOAD_SECONDS; how long a request may take to arrive.
        max_tasks: TALKGEN_WEB_MAX_TASKS; more than these at a time are turned away.
        recover_seconds: TALKGEN_WEB_RECOVER_SECONDS; how often deferred tasks are tried again.
        stop_seconds: TALKGEN_WEB_STOP_SECONDS; how long tasks may take when the server is stopped.
    """

    host: str = _var("TALKGEN_WEB_HOST", "127.0.0.1", str)
    port: int = _var("TALKGEN_WEB_PORT", 8000, _at_least(0, int))
    max_upload_mb: float = _var("TALKGEN_WEB_MAX_UPLOAD_MB", 64.0, _at_least(0.01, float))
    upload_seconds: float = _var("TALKGEN_WEB_UPLOAD_SECONDS", 120.0, _at_least(0.1, float))
    max_tasks: int = _var("TALKGEN_WEB_MAX_TASKS", 20, _at_least(1, int))
    recover_seconds: float = _var("TALKGEN_WEB_RECOVER_SECONDS", 300.0, _at_least(1, float))
    stop_seconds: float = _var("TALKGEN_WEB_STOP_SECONDS", 30.0, _at_least(0, float))

    @property
    def max_upload_bytes(self) -> int:
        """`max_upload_mb` in bytes."""
        return int(self.max_upload_mb * 2**20)

    @classmethod
    def from_env(cls) -> Config:
        """Read the environment variables.

        Raises:
            ValueError: A variable holds what it must not; the message names it.
        """
        config: Config = environ.to_config(cls)
        return config
