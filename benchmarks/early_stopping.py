r"""What tells that a network learns its points by heart: 48 points of a known law, where the true error is known.

python benchmarks/early_stopping.py --plot docs/assets/early_stopping.png       # 3 minutes of one core

The law is `standard_mixture` of tests/oracles.py, so E[y_0 | u] is known. The excess of a network is its denoising loss
less that of the exact denoiser, E |D - D*|^2 (1/s^2 + 1/sd^2) a number, whatever points it was trained on.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from oracles import Mixture, standard_mixture  # noqa: E402

from scoregen.losses import DenoisingScoreMatching  # noqa: E402
from scoregen.losses.weightings import EDMWeighting  # noqa: E402
from scoregen.models import MLP, Denoiser  # noqa: E402

POINTS, BATCH, SIGMA_DATA = 48, 48, 0.5
LEVELS = torch.logspace(-2, 0.5, 11, dtype=torch.float64)
LOOKS = [50, 100, 200, 400, 800, 1600, 3200, 6400, 12_000]
Loss = Callable[[Denoiser, torch.Tensor, None, torch.Generator, torch.Tensor], torch.Tensor]


def excess(denoiser: Denoiser, law: Mixture, s: float) -> float:
    r"""E |D - D*|^2 w(s) a number, of 2,000 fresh noisy points at a level."""
    u = law.sample(2000, torch.Generator().manual_seed(11), s)
    weight = EDMWeighting()(torch.tensor(s, dtype=torch.float64), SIGMA_DATA)
    with torch.no_grad():
        error = (denoiser(u.float(), s).double() - law(u, s)).square().mean()
    return float(error * weight)


def loss_of(loss: Loss, denoiser: Denoiser, x: torch.Tensor, seed: int) -> float:
    r"""The loss of points, of 2,000 noisy copies with frozen noise and levels, as `early_stopping` computes it."""
    copies = x.repeat(math.ceil(2000 / len(x)), 1)[:2000]
    quantile = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    g = torch.Generator().manual_seed(seed)
    quantile = quantile[torch.randperm(2000, generator=g)]
    with torch.no_grad():
        return float(loss(denoiser, copies, None, g, quantile).mean())


def run(seed: int, steps: int) -> dict[int, dict[str, float | list[float]]]:
    r"""Losses and excess at some steps of a training of 48 points."""
    law, g = standard_mixture(), torch.Generator().manual_seed(seed)
    train, held_out, validation = (law.sample(n, g).float() for n in (POINTS, 2000, 24))
    torch.manual_seed(seed)
    denoiser = Denoiser(MLP((2,), width=128, depth=3), law.sde, SIGMA_DATA)
    loss = DenoisingScoreMatching()
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=5e-4)
    found, recent = {}, []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        value = loss(denoiser, train[torch.randint(0, POINTS, (BATCH,), generator=g)], None, g).mean()
        value.backward()
        optimizer.step()
        recent.append(float(value.detach()))
        if step in LOOKS:
            by_level = [excess(denoiser, law, float(s)) for s in LEVELS]
            found[step] = {
                "logged": sum(recent) / len(recent),
                "training": loss_of(loss, denoiser, train, 5),
                "held out": loss_of(loss, denoiser, held_out, 5),
                "24 points": loss_of(loss, denoiser, validation, 5),
                "excess": sum(by_level) / len(by_level),
                "by level": by_level,
            }
            recent = []
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=LOOKS[-1])
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    start = time.process_time()
    runs = [run(seed, given.steps) for seed in range(given.seeds)]
    columns = ("logged", "training", "held out", "24 points", "excess")
    print(
        f"{POINTS} points, {given.seeds} seeds, {time.process_time() - start:.0f} s of one core; mean (sd over seeds)"
    )
    print(f"| step | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for step in runs[0]:
        cells = (torch.tensor([one[step][name] for one in runs]) for name in columns)
        print(f"| {step:,} | " + " | ".join(f"{c.mean():.3f} ({c.std(correction=0):.3f})" for c in cells) + " |")
    for name in ("held out", "24 points"):
        best = [min(one, key=lambda step: one[step][name]) for one in runs]
        kept = sum(one[step]["excess"] for one, step in zip(runs, best, strict=True)) / len(runs)
        print(f"the lowest loss of {name}: at steps {best}, excess there {kept:.3f}")
    if given.plot is not None:
        draw(given.plot, runs)


def draw(path: Path, runs: list[dict[int, dict[str, float | list[float]]]]) -> None:
    r"""Curves against the step, and the excess by level at three steps."""
    from matplotlib.figure import Figure

    def mean(step: int, name: str) -> torch.Tensor:
        return torch.tensor([one[step][name] for one in runs]).mean(0)

    steps = list(runs[0])
    figure = Figure(figsize=(9.0, 3.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, style in (("logged", ":"), ("training", "-"), ("held out", "-"), ("24 points", "--"), ("excess", "-")):
        left.plot(steps, [float(mean(step, name)) for step in steps], style, marker=".", label=name)
    left.set(xscale="log", yscale="log", xlabel="step", ylabel="loss, or true excess of it")
    left.legend()
    best = min(steps, key=lambda step: float(mean(step, "held out")))
    for step in sorted({steps[0], best, steps[-1]}):
        right.plot(LEVELS, mean(step, "by level"), marker=".", label=f"step {step:,}")
    right.set(xscale="log", yscale="log", xlabel="noise ratio s", ylabel="true excess")
    right.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
