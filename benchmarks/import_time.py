"""How long `import talkgen` takes, beside the packages that it cannot do without.

python benchmarks/import_time.py
"""

import statistics
import subprocess
import sys

RUNS = 15
WAYS = {"talkgen": "import talkgen", "anyio + attrs": "import anyio, attrs"}
TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def seconds(way: str) -> float:
    """One import in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(way)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Take turns, so that a machine that slows down slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(RUNS):
        for name, way in WAYS.items():
            times[name].append(seconds(way))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:15} {median * 1000:7.1f} ms")
    print(f"ratio           {medians['talkgen'] / medians['anyio + attrs']:7.2f}")


if __name__ == "__main__":
    main()
