"""BiRefNet: seconds and memory for a picture, beside the official code in interleaved pairs.

    python benchmarks/models_birefnet.py [--reference CHECKOUT] [--backbones lite large]
        [--sizes 512 1024] [--pairs 5] [--device cpu] [--precision fp32] [--compile]
        [--threads 1]

The weights are random: no figure depends on their values. CHECKOUT is one of ZhengPeng7/BiRefNet,
which needs einops, kornia and timm beside torchvision. On a CPU two times are taken: the wall's,
and the process's own, which with `--threads 1` other work on the machine disturbs less. Ratios are
official over ours, the median and the range of the pairs.
"""

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

import attrs
import torch
from torch import Tensor, nn

from talkgen.models.birefnet.backbones import LARGE, LITE, Backbone
from talkgen.models.birefnet.network import BiRefNet, build
from talkgen.models.birefnet.swin import relative_positions

BACKBONES = {backbone.name: backbone for backbone in (LITE, LARGE)}
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Network = Callable[[Tensor], object]


@attrs.frozen
class Row:
    """A line of the table; times in seconds for a picture, memory in bytes."""

    backbone: str
    size: int
    device: str
    precision: str
    compiled: bool
    seconds: float
    peak: int
    ratios: tuple[float, ...] = ()
    cpu_ratios: tuple[float, ...] = ()

    def __str__(self) -> str:
        mode = "compiled" if self.compiled else "eager"
        where = f"{self.device:8} {self.precision} {mode:8}"
        line = f"{self.backbone:5} {self.size:5} {where} {self.seconds * 1000:9.0f} ms"
        line += f" {self.peak / 2**20:8.0f} MiB"
        if self.ratios:
            line += f"  official/ours: wall {_spread(self.ratios)}"
        if self.cpu_ratios:
            line += f"; process {_spread(self.cpu_ratios)}"
        return line


def _spread(ratios: tuple[float, ...]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def random_weights(backbone: Backbone, seed: int = 0) -> dict[str, Tensor]:
    """As large as keeps values near 1, with offsets of a pixel or two."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: meta.shape for name, meta in BiRefNet(backbone).state_dict().items()}
    return {name: _random(name, shape, generator) for name, shape in shapes.items()}


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if name.endswith("relative_position_index"):
        return relative_positions(int(shape[0] ** 0.5))
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    noise = torch.randn(shape, generator=generator)
    if name.endswith("running_var"):
        return noise.abs() + 0.5
    if name.endswith("weight"):
        return noise * (1.4 / shape[1:].numel()) ** 0.5 if len(shape) > 1 else 1 + 0.2 * noise
    return 0.1 * noise


def official(checkout: Path, backbone: Backbone, weights: dict[str, Tensor]) -> nn.Module:
    """The official network with these weights."""
    # Its `models` is a folder without an `__init__`, which the script of this name would hide.
    here = str(Path(__file__).parent)
    sys.path[:] = [str(checkout), *(path for path in sys.path if path != here)]
    module = import_module("models.birefnet")
    settings = import_module("config").Config()
    settings.bb = {"large": "swin_v1_l", "lite": "swin_v1_t"}[backbone.name]
    settings.lateral_channels_in_collection = [2 * width for width in backbone.widths[::-1]]
    settings.cxt = settings.lateral_channels_in_collection[1:][::-1]
    module.Config = lambda: settings
    network: nn.Module = module.BiRefNet(bb_pretrained=False).eval()
    network.load_state_dict(weights)
    return network


def timed(network: Network, picture: Tensor) -> tuple[float, float]:
    """Seconds by the wall and of the process."""
    wall, own = time.perf_counter(), time.process_time()
    network(picture)
    if picture.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - own


def peak(network: Network, picture: Tensor) -> int:
    """Of one picture: on a GPU what torch has allocated, on a CPU the process's so far."""
    if not picture.is_cuda:
        network(picture)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    torch.cuda.reset_peak_memory_stats()
    network(picture)
    return torch.cuda.max_memory_allocated()


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """A row for each backbone and size."""
    dtype = PRECISIONS[options.precision]
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    for backbone in (BACKBONES[name] for name in options.backbones):
        weights = random_weights(backbone)
        ours: Network = build(weights).to(device, dtype)
        theirs = None
        if options.reference:
            theirs = official(options.reference, backbone, weights).to(device, dtype)
        if options.compile:
            ours = torch.compile(ours)
        for size in options.sizes:
            picture = torch.randn(1, 3, size, size, dtype=dtype, device=device)
            most = peak(ours, picture)
            mine, other = [], []
            if theirs is not None:
                timed(theirs, picture)
            for _ in range(options.pairs):
                mine.append(timed(ours, picture))
                if theirs is not None:
                    other.append(timed(theirs, picture))
            ratios = [
                tuple(b[kind] / a[kind] for a, b in zip(mine, other, strict=False))
                for kind in (0, 1)
            ]
            yield Row(
                backbone.name,
                size,
                name,
                options.precision,
                options.compile,
                statistics.median(wall for wall, _ in mine),
                most,
                ratios[0],
                () if device.type == "cuda" else ratios[1],
            )


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        for row in rows(options):
            print(row, flush=True)


if __name__ == "__main__":
    main()
