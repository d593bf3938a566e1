"""Writes the table of settings into the documentation: a hook of mkdocs.

    python scripts/settings_table.py

prints it. It is made from `Settings` at each build, so that it cannot get out of date.
"""

import inspect
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import attrs

from talkgen._types import Secret
from talkgen.settings import Settings

PLACE = "<!-- the table of settings -->"
HEAD = ("Variable", "Type", "Default", "Meaning", "Argument")
WORDS = {float: "number", int: "whole number", bool: "yes or no", str: "text", Path: "path"}
WORDS |= {Secret: "secret"}
# An attribute in the docstring of `Settings`, up to the next one.
MEANING = re.compile(r"^    (\w+): [A-Z_0-9]+; (.*?)(?=^    \w+: |\Z)", re.DOTALL | re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table into the page that has a place for it; mkdocs calls this for each page."""
    return markdown.replace(PLACE, table()) if PLACE in markdown else markdown


def table() -> str:
    """The table, in Markdown."""
    meanings = dict(MEANING.findall(inspect.getdoc(Settings) or ""))
    types = get_type_hints(Settings)
    rows = [
        (
            f"`{field.metadata['environ_config'].name}`",
            in_words(types[field.name]),
            "none" if field.default is None else f"`{field.default}`",
            " ".join(meanings[field.name].split()),
            f"`{field.name}`",
        )
        for field in attrs.fields(Settings)
    ]
    lines = (HEAD, ("---",) * len(HEAD), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def in_words(kind: Any) -> str:
    """A type, for people."""
    if get_origin(kind) is Literal:
        return " or ".join(f"`{word}`" for word in get_args(kind))
    if parts := get_args(kind):
        return ", or ".join(in_words(part) for part in parts if part is not type(None))
    return WORDS[kind]


if __name__ == "__main__":
    print(table())
