"""Milliseconds a picture and peak memory of the full models, beside what others give.

    python benchmarks/models.py [--yolo WEIGHTS.pt] [--reference CHECKOUT] [...]

YOLO beside plain `YOLO.predict`, where weights are given; BiRefNet beside the official code, where
a checkout of it is. All other options are those of `models_birefnet.py`.
"""

import argparse

import models_birefnet
import models_yolo


def main() -> None:
    """Measure both, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--yolo")
    options, others = parser.parse_known_args()
    if options.yolo:
        models_yolo.main([options.yolo])
    models_birefnet.main(others)


if __name__ == "__main__":
    main()
