"""The runtime of the networks in the wheel."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from talkgen.requirements import explained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from talkgen.models._assets import Asset

__all__ = ["Network", "sigmoid"]


class Network:
    """A loaded network: one picture in, all its outputs out. Used by one thread at a time."""

    def __init__(self, asset: Asset) -> None:
        """Load the network.

        Raises:
            talkgen.errors.ModelUnavailable: Its file is absent or damaged.
            talkgen.errors.MissingDependency: The runtime cannot be had on this machine.
        """
        data = asset.read()
        with explained():
            from ai_edge_litert.interpreter import Interpreter
        with _without_banner():
            # The networks take about a millisecond: more threads only wait for each other.
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


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logits as probabilities, 0..1."""
    # Beyond 80 the answer is 0 or 1 in any case, and exp() overflows.
    return 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -80, 80)))


_BANNER = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
_stderr = Lock()


@contextmanager
def _without_banner() -> Iterator[None]:
    """Keep the runtime's start-up line out of the terminal, where a progress bar may live.

    It is written to the file descriptor from C++, and no switch turns it off. Whatever else
    arrives there in the meantime is passed on.
    """
    with _stderr:
        terminal = _duplicate_of_stderr()
        if terminal is None:  # nothing to keep clean
            yield
            return
        with tempfile.TemporaryFile() as caught:
            os.dup2(caught.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(terminal, 2)
                os.close(terminal)
                caught.seek(0)
                for line in caught:
                    if not line.startswith(_BANNER):
                        os.write(2, line)


def _duplicate_of_stderr() -> int | None:
    if sys.__stderr__ is None:  # the process began without one: 2 may be anybody's file
        return None
    try:
        return os.dup(2)
    except OSError:
        return None
