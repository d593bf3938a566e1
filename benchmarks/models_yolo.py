"""Milliseconds and memory of YOLO, beside plain `YOLO.predict` on the same weights and pixels.

    python benchmarks/models_yolo.py WEIGHTS.pt [IMAGE]

The two take turns, picture by picture, in one process; the ratio is of the medians. Memory is the
peak of a full batch of 8 above what the imports take: on a CPU of a process of its own, on CUDA
as torch counts it.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import attrs
import numpy as np

from talkgen import Image
from talkgen.models.yolo import DetectionInput, YoloDetector, export

TURNS = 20
BATCH = 8
CONFIDENCE, IOU = 0.3, 0.45


@attrs.frozen
class Row:
    """One line: `times` is how many times as fast as `beside`."""

    name: str
    device: str
    precision: str
    milliseconds: float
    beside: str
    times: float
    peak: int | None

    def __str__(self) -> str:
        peak = "" if self.peak is None else f"{self.peak / 2**20:6.0f} MiB"
        return (
            f"{self.name:28} {self.device:5} {self.precision:5} {self.milliseconds:7.1f} ms   "
            f"{self.times:5.2f} x as fast as {self.beside:24} {peak}"
        )


def in_turns(*works: Callable[[], object], turns: int = TURNS) -> list[float]:
    """The median milliseconds of each."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(turns + 2):
        for work, taken in zip(works, times, strict=True):
            begin = time.perf_counter()
            work()
            if turn > 1:  # the first ones warm up
                taken.append((time.perf_counter() - begin) * 1e3)
    return [statistics.median(taken) for taken in times]


def predicting(weights: Path, image: Image, device: str, *, half: bool) -> Callable[[], object]:
    """What a user of Ultralytics would call."""
    from ultralytics import YOLO

    network, pixels = YOLO(weights), np.ascontiguousarray(image.pixels[..., 2::-1])
    options = {"classes": [0], "conf": CONFIDENCE, "iou": IOU, "verbose": False}
    precision = {"quantize": 16} if half else {}
    return lambda: network.predict(pixels, device=device, **options, **precision)


def finding(
    weights: Path, image: Image, device: str, *, half: bool, count: int = 1
) -> Callable[[], object]:
    """What the scheduler calls, on a batch of one picture or more."""
    network = YoloDetector(weights, half=half).model().load(device)
    batch = [DetectionInput(image, CONFIDENCE, IOU)] * count
    return lambda: network.run(batch)


PEAK = """
import re, sys
from pathlib import Path
import talkgen.models._yolo
from talkgen import Image
from talkgen.models.yolo import DetectionInput, YoloDetector
def memory(which):
    return int(re.search(which + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
before, image = memory("VmRSS"), Image.open(sys.argv[2])
network = YoloDetector(sys.argv[1]).model().load("cpu")
for _ in range(3):
    network.run([DetectionInput(image.resized(640, 640), 0.3, 0.45)] * 8)
print(memory("VmHWM") - before)
"""


def peak_on_cpu(weights: Path, picture: Path) -> int | None:
    """Bytes, where the system tells them."""
    if sys.platform != "linux":
        return None
    command = [sys.executable, "-c", PEAK, str(weights), str(picture)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak_on_cuda(weights: Path, image: Image, *, half: bool) -> int:
    """Bytes of one instance and a full batch."""
    import torch

    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    finding(weights, image.resized(640, 640), "cuda", half=half, count=BATCH)()
    return torch.cuda.max_memory_allocated() - before


def rows(weights: Path, picture: Path) -> Iterator[Row]:
    """The whole table, line by line."""
    import torch

    image = Image.open(picture)
    yield from _checkpoint_rows(
        weights, image, "cpu", half=False, peak=peak_on_cpu(weights, picture)
    )
    if torch.cuda.is_available():
        for half in (False, True):
            peak = peak_on_cuda(weights, image, half=half)
            yield from _checkpoint_rows(weights, image, "cuda", half=half, peak=peak)
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(weights, folder)
        for half in (False, True):
            file = export(copy, "onnx", half=half)
            plain, onnx = in_turns(
                finding(weights, image, "cpu", half=False), finding(file, image, "cpu", half=False)
            )
            precision = "fp16" if half else "fp32"
            peak = peak_on_cpu(file, picture)
            yield Row("ONNX Runtime", "cpu", precision, onnx, "the checkpoint", plain / onnx, peak)


def _checkpoint_rows(
    weights: Path, image: Image, device: str, *, half: bool, peak: int | None
) -> Iterator[Row]:
    precision = "fp16" if half else "fp32"
    # Ours first, so that Ultralytics is imported as talkgen imports it.
    single, plain = in_turns(
        finding(weights, image, device, half=half), predicting(weights, image, device, half=half)
    )
    yield Row("one picture", device, precision, single, "predict", plain / single, None)
    one = finding(weights, image, device, half=half)
    singles, batch = in_turns(
        lambda: [one() for _ in range(BATCH)],
        finding(weights, image, device, half=half, count=BATCH),
        turns=TURNS // 2,
    )
    name = f"one of a batch of {BATCH}"
    yield Row(name, device, precision, batch / BATCH, f"{BATCH} singly", singles / batch, peak)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    given = [Path(name) for name in arguments or sys.argv[1:]]
    assets = Path(find_spec("ultralytics").origin).parent / "assets"
    weights, picture = (*given, assets / "zidane.jpg")[:2]
    for row in rows(weights, picture):
        print(row, flush=True)


if __name__ == "__main__":
    main()
