"""BiRefNet: how far the logits are from the official code's, in both precisions.

    python benchmarks/models_exactness.py CHECKOUT [--backbones lite large] [--seeds 5]
        [--offsets 1] [--threads 1]

CHECKOUT is as in `models_birefnet.py`. In fp64 the difference itself is printed, the largest of
all logits. In fp32 each side rounds in its own way, so that both are held against the official
code's fp64 result: the root mean square of the errors, ours over theirs, since the largest single
error is a matter of luck. `--offsets` enlarges the offsets of the deformable convolutions, which
carry a rounding on the furthest.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import attrs
import torch
from torch import Tensor, nn

from models_birefnet import BACKBONES, official, random_weights
from talkgen.models.birefnet.backbones import Backbone
from talkgen.models.birefnet.network import build

SHAPES = ((2, 64, 96), (1, 256, 256), (1, 352, 480))
"""Batch, height, width: a batch, whole windows, and windows that are filled up."""


@attrs.frozen
class Case:
    """One network and one picture: the largest fp64 difference, and the fp32 errors' sizes."""

    backbone: str
    seed: int
    shape: tuple[int, int, int]
    exact: float
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Below 1 we are nearer to the fp64 result than the official code."""
        return self.ours / self.theirs

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        fp32 = f"fp32 {self.ours:.1e}, official {self.theirs:.1e}, ratio {self.ratio:.3f}"
        return f"{self.backbone:5} seed {self.seed} {size:10} fp64 {self.exact:.1e}  {fp32}"


def weights_of(backbone: Backbone, seed: int, offsets: float) -> dict[str, Tensor]:
    """Random ones, with the offsets enlarged."""
    weights = random_weights(backbone, seed)
    return {
        name: tensor * offsets if "offset_conv" in name else tensor
        for name, tensor in weights.items()
    }


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Every backbone, seed and shape."""
    for name in options.backbones:
        for seed in range(options.seeds):
            weights = weights_of(BACKBONES[name], seed, options.offsets)
            ours = build(weights)
            theirs = official(options.checkout, BACKBONES[name], weights)
            for shape in SHAPES:
                yield _case(name, seed, shape, ours, theirs)


def _case(
    name: str, seed: int, shape: tuple[int, int, int], ours: nn.Module, theirs: nn.Module
) -> Case:
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = shape
    pictures = torch.randn(batch, 3, height, width, generator=generator, dtype=torch.float64)
    pictures = pictures.float().double()
    truth = _logits(theirs.double(), pictures)
    exact = (_logits(ours.double(), pictures) - truth).abs().max()
    errors = [_logits(side.float(), pictures.float()).double() - truth for side in (ours, theirs)]
    rounding = [float(error.square().mean().sqrt()) for error in errors]
    return Case(name, seed, shape, float(exact), *rounding)


def _logits(network: nn.Module, pictures: Tensor) -> Tensor:
    result = network(pictures)  # the official code gives a list, the last of which is the result
    logits: Tensor = result[-1] if isinstance(result, list) else result
    return logits


def main() -> None:
    """Compare, and print each case and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--offsets", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        found = []
        for case in cases(options):
            print(case, flush=True)
            found.append(case)
    exact = max(case.exact for case in found)
    mean = statistics.geometric_mean(case.ratio for case in found)
    print(f"{len(found)} cases: fp64 {exact:.1e} at most, fp32 ratio {mean:.3f} (geometric mean)")


if __name__ == "__main__":
    main()
