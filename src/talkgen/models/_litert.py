"""The networks in the wheel: their files, checked, and the runtime that runs them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import contextmanager
from importlib.resources import files
from threading import Lock
from typing import TYPE_CHECKING

import attrs

from talkgen.errors import ModelUnavailable
from talkgen.requirements import explained

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Asset", "Network"]


@attrs.frozen
class Asset:
    """A network's file beside this module.

    Attributes:
        name: The file's name in `assets/`.
        sha256: Hexadecimal digest that the bytes must have.
    """

    name: str
    sha256: str

    @property
    def key(self) -> str:
        """The file and its content, short."""
        return f"{self.name.removesuffix('.tflite')}@{self.sha256[:12]}"

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            talkgen.errors.ModelUnavailable: The file is absent, unreadable or damaged.
        """
        try:
            data = (files(__package__) / "assets" / self.name).read_bytes()
        except OSError as error:
            raise self._unavailable(f"cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise self._unavailable("is damaged")
        return data

    def _unavailable(self, trouble: str) -> ModelUnavailable:
        return ModelUnavailable(
            f"The embedded model {self.name} {trouble}.",
            hint="Install the package again: pip install --force-reinstall --no-deps talkgen",
        )


class Network:
    """A loaded network: one picture in, all its outputs out. Used by one thread at a time.

    One thread each: the networks take about a millisecond, less than it costs to share them out.

    Raises:
        talkgen.errors.ModelUnavailable: The file is absent or damaged.
        talkgen.errors.MissingDependency: The runtime is not installed on this machine.
    """

    def __init__(self, asset: Asset) -> None:
        data = asset.read()
        with explained():
            from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - 0.2 s to import
        with _without_banner():
            self._interpreter = Interpreter(model_content=data, num_threads=1)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def run(self, picture: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run one picture.

        Args:
            picture: RGB, shape (height, width, 3), of the network's own size and range.

        Returns:
            The outputs in the network's order, each without its batch axis.
        """
        self._interpreter.set_tensor(self._input, picture[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]

    def close(self) -> None:
        """Free the memory."""
        del self._interpreter


_BANNER = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
_stderr_lock = Lock()


@contextmanager
def _without_banner() -> Iterator[None]:
    """Keep the runtime's start-up line out of the terminal, where a progress bar may live.

    It is written to the file descriptor from C++, and no switch turns it off. Whatever else
    arrives there in the meantime is passed on.
    """
    with _stderr_lock, tempfile.TemporaryFile() as caught:
        stderr = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            os.write(2, caught.read().replace(_BANNER, b""))
