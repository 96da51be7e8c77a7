r"""Three inverse problems of digits, by the normal law in closed form and by a network as a prior (RED and SDS).

python benchmarks/priors.py --plot docs/assets/priors.png       # a minute of one core; numbers are squared errors
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from scoregen.data import Digits
from scoregen.losses import DenoisingScoreMatching
from scoregen.models import MLP, Denoiser, Inpainting, MatrixObservation, Observation
from scoregen.priors import Annealed, GaussianDenoiser, ScorePrior, fixed_point, reliability
from scoregen.rng import generator
from scoregen.sde import EDM, Affine

SDE = EDM(0.02, 80.0, chart=Affine(2.0, -1.0))
NOISE = 0.05  # in [0, 1], so .1 in [-1, 1], where errors are measured
DRAWS = 4


def trained(x: torch.Tensor, steps: int, seed: int) -> Denoiser:
    r"""An MLP of 128 x 2, trained on rows (N, 64) in [0, 1]."""
    torch.manual_seed(seed)
    denoiser = Denoiser(MLP((64,), width=128, depth=2), SDE, sigma_data=0.5)
    loss, draws = DenoisingScoreMatching(), generator(seed, 1)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=2e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 + math.cos(math.pi * step / steps)) / 2
        batch = x[torch.randint(0, len(x), (128,), generator=draws)]
        optimizer.zero_grad()
        loss(denoiser, batch, None, draws).mean().backward()
        optimizer.step()
    return denoiser.eval()


def problems(x: torch.Tensor, g: torch.Generator) -> dict[str, Observation]:
    r"""Observations of rows (N, 64)."""
    noisy = x + NOISE * torch.randn(x.shape, generator=g)
    image = torch.eye(64).reshape(4, 2, 4, 2, 64).mean((1, 3)).reshape(16, 64)
    random = torch.randn(16, 64, generator=g) / 8
    found: dict[str, Observation] = {"lower half missing": Inpainting(noisy, torch.arange(64) < 32, NOISE)}
    for name, matrix in (("2x downsampling", image), ("16 random projections", random)):
        z = x @ matrix.T
        found[name] = MatrixObservation(z + NOISE * torch.randn(z.shape, generator=g), matrix, NOISE)
    return found


def solutions(
    observation: Observation, normal: GaussianDenoiser, network: Denoiser, n: int, seed: int
) -> dict[str, torch.Tensor]:
    r"""What each method makes of an observation, by its name."""
    mean, wiener = SDE.from_chart(normal.mean.expand(n, 64)), normal.posterior_mean(observation, n)
    far = Annealed(0.7, 0.1)

    def red(denoiser: torch.nn.Module, levels: Annealed, start: torch.Tensor, steps: int, draws: int = 0):
        g = torch.Generator().manual_seed(seed)
        prior = ScorePrior(denoiser, levels, draws=draws)
        return fixed_point(prior, observation, start, steps=steps, generator=g)

    return {
        "mean image": mean,
        "Wiener, the normal law in closed form": wiener,
        "RED, normal denoiser, from the mean, .5 to .02, 100 steps": red(normal, Annealed(0.5, 0.02), mean, 100),
        "**RED, network, from Wiener, .3 to .1, 30 steps**": red(network, Annealed(0.3, 0.1), wiener, 30),
        "RED, network, from the mean, .7 to .1, 60 steps": red(network, far, mean, 60),
        f"SDS, network, {DRAWS} draws, from the mean, .7 to .1, 60 steps": red(network, far, mean, 60, DRAWS),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    source = Digits(test=360)
    train, test = (part.in_units(range(len(part)))[0].flatten(1) for part in (source.train, source.test))
    test = test[: given.n]
    normal = GaussianDenoiser.fit(train, SDE)
    errors: dict[str, dict[str, list[float]]] = {}
    start = time.process_time()
    for seed in range(given.seeds):
        network = trained(train, given.steps, seed)
        shown = {}
        for name, observation in problems(test, torch.Generator().manual_seed(seed)).items():
            shown[name] = solutions(observation, normal, network, len(test), seed)
            for method, x in shown[name].items():
                error = 4 * float((x - test).square().mean())
                errors.setdefault(method, {}).setdefault(name, []).append(error)
    names = list(next(iter(errors.values())))
    print(f"{len(test)} digits, {given.seeds} seeds, mean (sd), {time.process_time() - start:.0f} s of one core")
    print(f"| squared error in [-1, 1] | {' | '.join(names)} |\n|---{'|---' * len(names)}|")
    for method, row in errors.items():
        cells = (torch.tensor(row[name]) for name in names)
        print(f"| {method} | " + " | ".join(f"{float(c.mean()):.4f} ({float(c.std()):.4f})" for c in cells) + " |")
    if given.plot is not None:
        draw(given.plot, test, shown["2x downsampling"], network)


def draw(path: Path, test: torch.Tensor, shown: dict[str, torch.Tensor], network: Denoiser) -> None:
    r"""Digits, what was seen of them, Wiener, RED; and digits with a wrong patch with their reliability."""
    from matplotlib.figure import Figure

    n = 10
    wrong = test[:n].reshape(-1, 8, 8).clone()
    wrong[:, 2:4, 5:7] = 1 - wrong[:, 2:4, 5:7]
    sure = reliability(ScorePrior(network, 0.2), wrong.flatten(1), 0.2, 200, torch.Generator().manual_seed(0))
    seen = torch.nn.functional.avg_pool2d(test[:n].reshape(-1, 1, 8, 8), 2).repeat_interleave(2, 2)
    rows = {
        "digit": test[:n],
        "downsampled": seen.repeat_interleave(2, 3).flatten(1),
        "Wiener": shown["Wiener, the normal law in closed form"][:n],
        "RED": shown["**RED, network, from Wiener, .3 to .1, 30 steps**"][:n],
        "wrong patch": wrong.flatten(1),
        "reliability": sure,
    }
    figure = Figure(figsize=(7.5, 4.6), dpi=110, layout="constrained")
    for row, (axes, (name, images)) in enumerate(zip(figure.subplots(len(rows), n), rows.items(), strict=True)):
        for column, (place, image) in enumerate(zip(axes, images, strict=True)):
            colours = "viridis" if row == len(rows) - 1 else "gray"
            place.imshow(image.reshape(8, 8).numpy(), vmin=0, vmax=1, cmap=colours)
            place.set_xticks([])
            place.set_yticks([])
            if column == 0:
                place.set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(path)


if __name__ == "__main__":
    main()
