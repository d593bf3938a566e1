"""Ultralytics' exporter, without what it would install or leave behind."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

from talkgen.errors import ModelUnavailable
from talkgen.models._ultralytics import contained
from talkgen.models._yolo import checkpoint

__all__ = ["exported"]

# The largest batch that an engine takes; ONNX takes any, whatever it is traced with.
_BATCH = {"engine": 8, "onnx": 1}


def exported(
    source: Path, target: Path, *, precision: int, imgsz: int, data: str | Path | None
) -> Path:
    """Export a checkpoint; the target's suffix says to what.

    Args:
        source: The checkpoint, checked.
        target: Replaced when the new file is whole.
        precision: Bits: 32, 16 or 8.
        imgsz: The longer side of the pictures that it is tuned for.
        data: What calibrates 8 bits.

    Returns:
        The target.
    """
    kind = target.suffix.removeprefix(".")
    with contained(), TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        # How it goes about it is deprecated here and there: not for the caller to mend.
        warnings.simplefilter("ignore")
        _needs(kind)
        network = checkpoint(source)
        network.pt_path = str(Path(folder) / source.name)  # where its files go
        from ultralytics.engine.exporter import Exporter

        options = {
            "format": kind,
            "imgsz": imgsz,
            "batch": _BATCH[kind],
            "dynamic": True,
            "quantize": precision,
            "simplify": False,  # ONNX Runtime and TensorRT do as much themselves
            "data": None if data is None else str(data),
            "verbose": False,
        }
        exporter = Exporter(overrides=options)
        exporter.callbacks.clear()  # they send statistics
        made = exporter(model=network)
        Path(made).replace(target)
    return target


def _needs(kind: str) -> None:
    """Import what is needed, so that what is absent is named before the work."""
    import onnx  # noqa: F401

    if kind == "engine":
        import torch

        if not torch.cuda.is_available():
            raise ModelUnavailable(
                "A TensorRT engine can only be made on a machine with a CUDA device.",
                hint='Make it there, or use format="onnx".',
            )
        import tensorrt  # type: ignore[import-not-found]  # noqa: F401
    else:
        import onnxruntime  # noqa: F401 - its tools write fp16 and int8
