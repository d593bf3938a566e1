"""Where pictures and recordings come from: paths, bytes and files, read within limits."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs

from talkgen.errors import (
    AudioNotFound,
    AudioUnreadable,
    ImageNotFound,
    ImageUnreadable,
    InvalidAudio,
    InvalidImage,
    InvalidInput,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PICTURE", "RECORDING", "Medium", "name_of"]

URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)


@attrs.frozen
class Medium:
    """How sources of one kind are read, and refused."""

    opener: str
    takes: str
    invalid: type[InvalidInput]
    not_found: type[InvalidInput]
    unreadable: type[InvalidInput]

    @contextmanager
    def about(self, source: object) -> Iterator[None]:
        """Say in errors which source they are about."""
        try:
            yield
        except InvalidInput as error:
            error.message = f"{name_of(source)}: {error.message}"
            error.args = (error.message,)
            raise

    def read(self, source: Any, max_bytes: int) -> bytes:
        """The bytes of a source, `max_bytes` at most."""
        data = self._read(source, max_bytes + 1)
        if not data:
            raise self.invalid("The file is empty.", hint="Check how it was made or sent.")
        if len(data) > max_bytes:
            raise self.invalid(
                f"The file has more bytes than the limit of {max_bytes}.",
                hint=f"Make it smaller, or raise the limit: {self.opener}(source, max_bytes=...).",
            )
        return data

    def _read(self, source: Any, most: int) -> bytes:
        if isinstance(source, bytes | bytearray | memoryview):
            return bytes(source)
        if isinstance(source, str | os.PathLike):
            return self._read_path(os.fsdecode(source), most)
        if hasattr(source, "read"):
            return self._read_file(source, most)
        raise TypeError(f"{self.takes} is wanted, not {type(source).__name__}.")

    def _read_path(self, path: str, most: int) -> bytes:
        if URL.match(path):
            raise self.invalid(
                "Nothing is fetched from a URL.",
                hint="Download it first, and pass the path or the bytes.",
            )
        try:
            if not Path(path).is_dir():
                with Path(path).open("rb") as file:
                    return file.read(most)
        except (OSError, ValueError) as error:
            raise self.refusal(error) from error
        raise self.invalid("This is a folder.", hint="Pass the path of a file.")

    def _read_file(self, file: IO[bytes], most: int) -> bytes:
        parts: list[bytes] = []
        try:
            while most > 0 and (part := file.read(most)):
                if not isinstance(part, bytes | bytearray | memoryview):
                    raise TypeError(
                        f"read() gave {type(part).__name__}, not bytes: open the file with mode "
                        "'rb'; of an asynchronous one, pass what await file.read() gives."
                    )
                parts.append(part)
                most -= len(part)
        except (OSError, ValueError) as error:
            raise self.refusal(error) from error
        return b"".join(parts)

    def refusal(self, error: OSError | ValueError) -> InvalidInput:
        """What it means for the caller that the file could not be read."""
        match error:
            case FileNotFoundError() | NotADirectoryError():
                return self.not_found("There is no such file.", hint="Check the path.")
            case PermissionError():
                return self.unreadable(
                    "The file may not be read.", hint="Give this user permission to read it."
                )
            case _:
                reason = getattr(error, "strerror", None) or error
                return self.invalid(f"The file cannot be read: {reason}.", hint="Check the file.")


PICTURE = Medium(
    opener="Image.open",
    takes="A path, bytes, a binary file object, Pillow's image or a uint8 array",
    invalid=InvalidImage,
    not_found=ImageNotFound,
    unreadable=ImageUnreadable,
)
RECORDING = Medium(
    opener="Speech.open",
    takes="A path, bytes, a binary file object or (samples, sample_rate)",
    invalid=InvalidAudio,
    not_found=AudioNotFound,
    unreadable=AudioUnreadable,
)


def name_of(source: object) -> str:
    """What to call a source in a message."""
    if isinstance(source, str | os.PathLike):
        return _short(os.fsdecode(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return "the bytes"
    name = getattr(source, "name", None)
    return _short(name) if isinstance(name, str) else f"the {type(source).__name__}"


def _short(name: str, most: int = 200) -> str:
    return name if len(name) <= most else f"{name[: most // 2]}...{name[-most // 2 :]}"
