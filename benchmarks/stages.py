"""Seconds of each stage in the first run of a process, and in the next ones.

    python benchmarks/stages.py

The first run loads the models. Each has another photo, because what was found in the same one is
kept. A process for each turn; the medians of the turns.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import numpy as np

from talkgen import Image, Pipeline, Speech

DEMO = Path(__file__).parent.parent / "docs" / "assets" / "demo"
TURNS = 5
RUNS = 4  # in a process


def photos() -> Iterator[Image]:
    """The demo's, each time with another pixel in its corner."""
    pixels = Image.open(DEMO / "portrait.png").pixels
    for number in range(RUNS):
        changed = pixels.copy()
        changed[0, 0] = np.uint8(number)
        yield Image(changed)


async def turn() -> list[dict[str, float]]:
    """The seconds of the stages in each run of this process."""
    speech = Speech.open(DEMO / "speech.wav")
    second = Speech(speech.samples[:, : speech.sample_rate], speech.sample_rate)
    async with Pipeline() as pipeline:
        return [dict((await pipeline.run(photo, second)).timings) for photo in photos()]


def main() -> None:
    """Measure, and print the table."""
    if sys.argv[1:] == ["turn"]:
        print(json.dumps(anyio.run(turn)))
        return
    command = [sys.executable, __file__, "turn"]
    turns = [json.loads(subprocess.check_output(command)) for _ in range(TURNS)]
    print(f"{'':20} {'the first run':>14} {'the next':>10}")
    for stage in turns[0][0]:
        first = statistics.median(runs[0][stage] for runs in turns)
        after = statistics.median(run[stage] for runs in turns for run in runs[1:])
        print(f"{stage:20} {first:12.2f} s {after:8.2f} s")


if __name__ == "__main__":
    main()
