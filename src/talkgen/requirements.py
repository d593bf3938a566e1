"""What is missing on this machine, and the command that installs it."""

from collections.abc import Iterator
from contextlib import contextmanager

from talkgen.errors import MissingDependency

__all__ = ["explained"]

# Import names whose distribution or extra differs from them.
INSTALLED_BY = {
    "PIL": "pillow",
    "ai_edge_litert": "ai-edge-litert",
    "av": "av",
    "cv2": "opencv-python",
    "ultralytics": "talkgen[yolo]",
    "huggingface_hub": "talkgen[birefnet]",
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


@contextmanager
def explained() -> Iterator[None]:
    """Turn a failing import inside the block into `MissingDependency` with its remedy."""
    try:
        yield
    except MissingDependency:
        raise
    except ImportError as error:
        raise _missing(error) from error


def _missing(error: ImportError) -> MissingDependency:
    for library, package in SYSTEM_LIBRARIES.items():
        if library in str(error):
            return MissingDependency(
                f"The system library {library} is missing.",
                hint=f"Install it: apt-get install {package} (or your system's package of it).",
            )
    module = (error.name or "").partition(".")[0]
    distribution = INSTALLED_BY.get(module, module)
    return MissingDependency(
        f"The package {module or 'that is needed'} cannot be imported: {error}.",
        hint=f'Install it: pip install "{distribution}"' if distribution else None,
    )
