r"""Representations of checkpoints along the path from data to noise.

    python benchmarks/rrcm.py NAME=CHECKPOINT ... --data mnist --root PATH --out FIGURE.png

Prints the mean cosine with the representation of the nearly clean image and the accuracy of a linear probe at each
noise level; exits with 1 where a number is not finite.
"""

import argparse
import math
import sys
from pathlib import Path

import scoregen
from scoregen import data
from scoregen.metrics.representation import along_trajectory, save_trajectories

SOURCES = {"mnist": data.MNIST, "fashion_mnist": data.FashionMNIST, "cifar10": data.CIFAR10}
TIMES = [0.002, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]  # of pixels in [0, 1]: half of it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=CHECKPOINT")
    parser.add_argument("--data", choices=SOURCES, default="mnist")
    parser.add_argument("--root", default="data")
    parser.add_argument("--n", type=int, default=2000, help="images of each part")
    parser.add_argument("--out", type=Path, default=Path("outputs/rrcm.png"))
    arguments = parser.parse_args()
    source = SOURCES[arguments.data](arguments.root, download=False)
    found = {}
    for text in arguments.checkpoints:
        name, _, path = text.rpartition("=")
        model = scoregen.load(path)
        found[name or path] = along_trajectory(model, source.train, source.test, TIMES, n=arguments.n)
    print("| model | number | " + " | ".join(f"{t / 2:g}" for t in TIMES) + " |")
    print("|---|---|" + "---|" * len(TIMES))
    for name, one in found.items():
        print(f"| {name} | probe, % | " + " | ".join(f"{100 * a:.1f}" for a in one.accuracy) + " |")
        print(f"| {name} | cosine | " + " | ".join(f"{c:.3f}" for c in one.similarity) + " |")
    print(save_trajectories(found, arguments.out))
    return int(not all(math.isfinite(v) for one in found.values() for v in one.accuracy + one.similarity))


if __name__ == "__main__":
    sys.exit(main())
