"""What is missing on this machine, and the command that installs it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from talkgen.errors import MissingDependency

__all__ = ["explained", "require"]

# Import names, and what pip installs them by: a distribution, or an extra of talkgen.
INSTALLED_BY = {
    "PIL": "pillow",
    "ai_edge_litert": "ai-edge-litert",
    "anyio": "anyio",
    "attrs": "attrs",
    "av": "av",
    "cv2": "opencv-python",
    "environ": "environ-config",
    "filelock": "filelock",
    "h2": "httpx[http2]",
    "httpx": "httpx",
    "numpy": "numpy",
    "rich": "rich",
    "scipy": "scipy",
    "stamina": "stamina",
    "ultralytics": "talkgen[yolo]",
    "torchvision": "talkgen[yolo]",
    "onnx": "talkgen[onnx]",
    "onnxruntime": "talkgen[onnx]",
    "tensorrt": "talkgen[tensorrt]",
    "huggingface_hub": "huggingface-hub",
    "safetensors": "talkgen[birefnet]",
    "torch": "talkgen[birefnet]",
    "transformers": "talkgen[birefnet]",
    "obstore": "talkgen[s3]",
    "opentelemetry": "talkgen[otel]",
    "trio": "talkgen[testing]",
}

# Shared objects that slim images lack, by the Debian package that carries them.
SYSTEM_LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
}

# How the loader of Linux puts it; elsewhere such libraries come with the wheels.
NO_LIBRARY = re.compile(r"(?P<library>\S+\.so[.\d]*): cannot open shared object file")


@contextmanager
def explained() -> Iterator[None]:
    """Turn a failing import inside the block into `MissingDependency` with its remedy.

    Raises:
        talkgen.errors.MissingDependency: A package or a system library is absent; the hint is
            the command that installs it.
    """
    try:
        yield
    except MissingDependency:
        raise
    except ImportError as error:
        raise _missing(error) from error


def require(*modules: str) -> None:
    """Look for packages without importing them, which may take seconds.

    Raises:
        talkgen.errors.MissingDependency: The first that is absent; see `explained`.
    """
    for module in modules:
        if find_spec(module) is None:
            raise _missing(ModuleNotFoundError(f"No module named {module!r}", name=module))


def _missing(error: ImportError) -> MissingDependency:
    if match := NO_LIBRARY.search(str(error)):
        return _missing_library(match["library"])
    module = (error.name or "").partition(".")[0]
    return MissingDependency(
        f"The package {module or 'that is needed'} cannot be imported: {error}.",
        # A name that is not known here may be anybody's on the index: it is not to be suggested.
        hint=f'Install it: pip install "{INSTALLED_BY.get(module, "talkgen")}"',
    )


def _missing_library(library: str) -> MissingDependency:
    package = SYSTEM_LIBRARIES.get(library)
    return MissingDependency(
        f"The system library {library} is missing.",
        hint=f"Install it: apt-get install {package} (or your system's package of it)."
        if package
        else f"Install the package of your system that carries {library}.",
    )
