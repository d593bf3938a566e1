"""Ultralytics, kept to itself: what it would do to the process, the disk and the network.

Importing it writes a settings file, asks a name server whether there is a network, and changes
the environment, OpenCV's threads, print options, warning filters, logging and `torch.save`. Used,
it may run pip, download, and send statistics.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from talkgen.requirements import explained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["contained"]

# The environment is the whole process's: one thread at a time.
_lock = threading.RLock()

# Read by Ultralytics: when it is imported, the last one whenever it misses a package.
_SWITCHES = {
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS": "true",
}

# Written by Ultralytics.
_WRITTEN = (
    "OMP_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "TF_CPP_MIN_LOG_LEVEL",
    "TORCH_CPP_LOG_LEVEL",
    "KINETO_LOG_LEVEL",
)


@contextmanager
def contained() -> Iterator[None]:
    """A block that may import Ultralytics, load networks with it and export them.

    Inside, nothing is installed and no package is looked for; afterwards the process is as it was.
    A program that imported Ultralytics itself before keeps its own settings and logging.

    Raises:
        talkgen.errors.MissingDependency: It is absent, or lacks a package or a system library.
    """
    with _lock, _environment(_SWITCHES), _globals(), explained():
        if "ultralytics" not in sys.modules:
            _import()
        yield


@contextmanager
def _environment(switches: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in (*switches, *_WRITTEN)}
    os.environ.update(switches)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _globals() -> Iterator[None]:
    """The state of other packages, put back as it was."""
    with explained():
        import cv2
        import numpy as np

        # Before OMP_NUM_THREADS is set to 1, which torch would obey for good.
        import torch
    readers = {name: getattr(cv2, name) for name in ("imread", "imwrite", "imshow")}
    # Leaving by an error undoes as much.
    with ExitStack() as undo:
        undo.enter_context(warnings.catch_warnings())
        undo.enter_context(np.printoptions())
        undo.callback(torch.set_printoptions, **torch._tensor_str.get_printoptions())  # noqa: SLF001 - there is no public way to ask
        undo.callback(torch.set_num_threads, torch.get_num_threads())
        undo.callback(cv2.setNumThreads, cv2.getNumThreads())
        undo.callback(setattr, torch, "save", torch.save)
        for name, reader in readers.items():
            undo.callback(setattr, cv2, name, reader)
        yield


def _import() -> None:
    """The first import of the process."""
    # Its settings are read once and kept in memory: the user's own file is neither read nor made.
    with TemporaryDirectory() as folder, _environment({"YOLO_CONFIG_DIR": folder}):
        import ultralytics.utils as module

        _forget_settings(module.SETTINGS)
    _quiet(module.LOGGER)


def _forget_settings(settings: Any) -> None:
    settings.update(sync=False)  # its word for sending statistics
    settings.file_path = Path(os.devnull)  # where it saves every change


def _quiet(logger: logging.Logger) -> None:
    """Leave the records to the host's logging instead of printing them."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.addHandler(logging.NullHandler())
    logger.propagate = True
