"""What the body of `POST /talks` must be like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from talkgen.testing.fake_did._request import Refused, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from talkgen._types import JSON

__all__ = ["check"]

SOURCE_URL = re.compile(r"(?:https|s3):.*\.(?:jpe?g|png|JPE?G|PNG)")
AUDIO_URL = re.compile(
    r"(?:https|s3)://\S+\.(?:m4a|flac|mp[34]|wav|M4A|FLAC|MP[34]|WAV)(?:[?#][\w./=&#%-]+)?"
)
USER_DATA = re.compile(r"(?!\s*$).{1,1000}")
# The service takes https alone; this one posts to loopback, where nobody has a certificate.
WEBHOOK = re.compile(r"(?:https://|http://(?:127\.0\.0\.1|localhost|\[::1\])[:/]).*|")

FIELDS = {"source_url", "script", "config", "user_data", "name", "webhook", "result_url"}
CONFIG_FIELDS = {
    "logo", "stitch", "result_format", "fluent", "pad_audio", "driver_expressions",
}  # fmt: skip
SCRIPT_FIELDS = {
    "audio": {"type", "subtitles", "audio_url"},
    "text": {"type", "input", "ssml", "subtitles", "provider"},
}
LENGTHS = range(3, 40_001)
MOST_PADDING = 60


def check(body: JSON, *, strict: bool) -> None:
    """Refuse a body that the service would refuse before it looks at the media.

    Raises:
        Refused: The answer.
    """
    if "script" not in body:
        raise invalid("body.script", "'script' is required")
    script, config = body["script"], body.get("config", {})
    kind = script.get("type") if isinstance(script, dict) else None
    if kind not in SCRIPT_FIELDS:
        raise Refused(400, "BadRequestError", "Failed to validate script")
    if not isinstance(config, dict):
        raise invalid("body.config", "'config' must be an object")
    if strict:
        _check_names("body", body, FIELDS)
        _check_names("body.config", config, CONFIG_FIELDS)
        _check_names("body.script", script, SCRIPT_FIELDS[kind])
    _check_script(script)
    for where, fields in (("body", body), ("body.config", config)):
        for name, (is_valid, message) in RULES[where].items():
            if name in fields and not is_valid(fields[name]):
                raise invalid(f"{where}.{name}", f"'{name}' must be {message}")


def _check_names(where: str, fields: Collection[str], known: set[str]) -> None:
    if unknown := set(fields) - known:
        name = min(unknown)
        raise invalid(f"{where}.{name}", f"'{name}' is not allowed")


def _check_script(script: dict[str, JSON]) -> None:
    """The text's length and voice, or the recording's address."""
    provider = script.get("provider", {"voice_id": "the default"})
    fits = (
        _has_length(script.get("input")) and isinstance(provider, dict) and "voice_id" in provider
        if script["type"] == "text"
        else _like(AUDIO_URL)(script.get("audio_url"))
    )
    if not fits:
        raise Refused(400, "BadRequestError", "Failed to validate script")


def _has_length(text: JSON) -> bool:
    return isinstance(text, str) and len(text) in LENGTHS


def _is_padding(value: JSON) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= MOST_PADDING


def _like(pattern: re.Pattern[str]) -> Callable[[JSON], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _has(pattern: re.Pattern[str]) -> Callable[[JSON], bool]:
    return lambda value: isinstance(value, str) and pattern.search(value) is not None


RULES: dict[str, dict[str, tuple[Callable[[JSON], bool], str]]] = {
    "body": {
        "user_data": (_like(USER_DATA), "one line of 1 to 1000 characters"),
        "webhook": (_like(WEBHOOK), "an https URL"),
        "source_url": (_has(SOURCE_URL), "a valid image URL (ending with jpg|jpeg|png)"),
    },
    "body.config": {
        "result_format": (lambda value: value in ("mp4", "mov"), "mp4 or mov"),
        "pad_audio": (_is_padding, "from 0 to 60"),
    },
}
