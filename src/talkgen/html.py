"""What notebooks show: HTML strings made of plain values."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "bar",
    "below",
    "data_url",
    "failure",
    "labelled_boxes",
    "link",
    "picture",
    "player",
    "table",
]

WIDEST = 480  # pixels: what fits beside code


def data_url(data: bytes, media_type: str) -> str:
    """The bytes themselves as an address."""
    return f"data:{media_type};base64,{b64encode(data).decode()}"


def picture(source: str, size: tuple[int, int], *, over: str = "") -> str:
    """A picture, on a chequered ground where it is transparent.

    Args:
        source: Its address.
        size: Its width and height in pixels; it is shown no wider than 480.
        over: Something to lay over it, in its pixels: SVG elements.
    """
    width, height = size
    shown = min(width, WIDEST)
    chequered = "repeating-conic-gradient(#ddd 0 25%, #fff 0 50%) 0 0/16px 16px"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{shown}" style="max-width:100%;background:{chequered}">'
        f'<image href="{escape(source)}" width="{width}" height="{height}"/>{over}</svg>'
    )


def labelled_boxes(
    boxes: Iterable[tuple[tuple[int, int, int, int], str]], size: tuple[int, int]
) -> str:
    """Boxes to lay over a picture.

    Args:
        boxes: x0, y0, x1 and y1 in pixels, and a label.
        size: The picture's width and height in pixels.
    """
    line = max(size) / 240
    return "".join(_labelled_box(box, label, line) for box, label in boxes)


def _labelled_box(box: tuple[int, int, int, int], label: str, line: float) -> str:
    x0, y0, x1, y1 = box
    text = 7 * line
    width = 0.65 * text * (len(label) + 1)  # about what the letters take, in any font
    return (
        f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}" fill="none" '
        f'stroke="#e33" stroke-width="{line:.1f}"/>'
        f'<rect x="{x0}" y="{y0}" width="{width:.0f}" height="{1.4 * text:.0f}" fill="#e33"/>'
        f'<text x="{x0 + 2 * line:.0f}" y="{y0 + 1.1 * text:.0f}" font-size="{text:.0f}" '
        f'font-family="sans-serif" fill="#fff">{escape(label)}</text>'
    )


def player(source: str, size: tuple[int, int], *, poster: str) -> str:
    """A video with its controls.

    Args:
        source: Its address.
        size: Its width and height in pixels; it is shown no wider than 480.
        poster: The address of the picture that is shown until it plays.
    """
    return (
        f'<video controls src="{escape(source)}" poster="{escape(poster)}" '
        f'width="{min(size[0], WIDEST)}" style="max-width:100%"></video>'
    )


def link(address: str, text: str) -> str:
    """A link; the text alone where there is no address."""
    return f'<a href="{escape(address)}">{escape(text)}</a>' if address else escape(text)


def table(rows: Mapping[str, str]) -> str:
    """Names and values; the values are HTML already."""
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{value}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def bar(per_cent: int, message: str) -> str:
    """A progress bar and what is happening.

    Args:
        per_cent: 0..100.
        message: One line.
    """
    return (
        f'<progress max="100" value="{per_cent}" style="width:240px"></progress> '
        f"{per_cent}% {escape(message)}"
    )


def below(*parts: str) -> str:
    """One under the other."""
    return "".join(f"<div>{part}</div>" for part in parts)


def failure(message: str, hint: str | None) -> str:
    """What went wrong, and what to do about it."""
    return f'<div style="color:#c22">{escape(message)}</div><div>{escape(hint or "")}</div>'
