"""The API key in the forms in which people have it."""

from __future__ import annotations

import base64
import re

from talkgen._types import Secret

__all__ = ["authorization", "form_of", "hidden"]

# What may stand in a header, and is no text that was pasted along with the key.
KEY = re.compile(r"(?:(?:Basic|Bearer) )?[!-~]+")
SCHEMES = ("Basic ", "Bearer ")
HIDDEN = "***"
SHORTEST = 8  # what is shorter is no secret, and may be a part of any word


def authorization(api_key: str) -> Secret:
    """The header's value for a key.

    Args:
        api_key: `user:password` as D-ID's studio shows it, the same in base64, or a whole value
            that begins with `Basic ` or `Bearer `.

    Raises:
        ValueError: It is none of these. The message does not repeat it.
    """
    key = str.__str__(api_key).strip()
    if not KEY.fullmatch(key):
        raise ValueError(
            "The D-ID API key must be 'user:password', the same in base64, or begin with "
            "'Basic ' or 'Bearer '; the one given has other characters in it, or is empty."
        )
    return Secret(key if key.startswith(SCHEMES) else f"Basic {key}")


def form_of(api_key: str) -> str:
    """Which of the forms a key has, in words that do not repeat it.

    Raises:
        ValueError: It is none of them, or only a part of a key.
    """
    scheme, _, value = authorization(api_key).partition(" ")
    if str.__str__(api_key).strip().startswith(SCHEMES):
        return f"the form '{scheme} ...'"
    if ":" in value:
        return "the form 'user:password'"
    if ":" in _decoded(value):
        return "base64"
    raise ValueError(
        "The D-ID API key has no ':', and is not the base64 of one that has; it may be half of it."
    )


def hidden(text: str, header: str) -> str:
    """A text without the key: the gateway repeats headers that it does not understand."""
    value = header.partition(" ")[2]
    plain = _decoded(value)
    for secret in (header, value, plain, value.partition(":")[2], plain.partition(":")[2]):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, HIDDEN)
    return text


def _decoded(value: str) -> str:
    """The key in its other form, where it was given in base64."""
    try:
        return base64.b64decode(value, validate=True).decode()
    except ValueError:
        return ""
