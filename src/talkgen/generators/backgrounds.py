"""What a portrait that was cut out is laid on."""

from __future__ import annotations

__all__ = ["WHITE", "check_colour"]

WHITE = "#ffffff"


def check_colour(_generator: object, _attribute: object, value: str) -> None:
    """Refuse, as a validator of attrs, what is no opaque colour as CSS writes it.

    Raises:
        TypeError: It is no text.
        ValueError: The text names no colour, or a transparent one.
    """
    if not isinstance(value, str):
        raise TypeError(f"background={value!r} must be a colour, like '#ffffff' or 'teal'")
    if value == WHITE:  # needs no Pillow, which a pipeline is assembled without
        return
    from talkgen import codecs

    try:
        codecs.parse_colour(value)
    except ValueError as error:
        raise ValueError(f"background={value!r}: {error}") from error
