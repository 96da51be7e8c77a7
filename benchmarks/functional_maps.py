r"""Functional maps between near-isometric surfaces: what a prior of |C| adds to descriptors and to the Laplacian.

python benchmarks/functional_maps.py          # three seeds, some minutes of one core

C (30, 30) takes functions of one surface to those of another, in eigenfunctions of their Laplacians. It is estimated
from a few noisy descriptors, C A = B, with a term for what A leaves open:

    |C A - B|^2 + sum penalty_ij C_ij^2 + weight |C - T|^2          row by row in closed form
    penalty: 1 (ridge), the gap of eigenvalues (C commutes with Laplacians or resolvents), or DiffuMatch's residual mask
    T = sign(C) D(|C|, s), weight = kappa/s^2, s annealed: RED; signs of eigenfunctions are arbitrary, hence |C|

Every weight is chosen on validation pairs by the error of points.

Reference: Pierson et al. (2025), arXiv 2507.23715 (DiffuMatch); Ovsjanikov et al. (2012), functional maps.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from functional_map_shapes import FAMILIES, Shape, descriptors, draw, points, surface, truth, zoom_out

from scoregen.losses import DenoisingScoreMatching, LogUniform
from scoregen.models import Denoiser, FlatMLP
from scoregen.priors import Annealed, GaussianDenoiser, ScorePrior, residual_mask
from scoregen.rng import generator
from scoregen.sde import EDM

SIZE = 30
SDE = EDM(0.01, 1.0)  # entries of C are in [-1, 1], about .18 of them
NEAR = 0.05  # of the root of the area: a point that is right
BLOCK = 12  # functions of C from which ZoomOut begins
HEAD = "| | error of C | error of points | right points | error, ZoomOut | right points |\n|---|---|---|---|---|---|"


@dataclass
class Pairs:
    r"""Pairs of surfaces.

    Args:
        shapes: (m, n) of each pair. right: for each vertex of n the nearest of m. lengths: of paths, by the id of m.
        c: true C (P, K, K). a, b: descriptors of m and n (P, K, d).
        gaps, resolvent: penalties of maps that do not commute with the Laplacians (P, K, K), of mean 1.
    """

    shapes: list[tuple[Shape, Shape]]
    right: list[np.ndarray]
    lengths: dict[int, np.ndarray]
    c: Tensor
    a: Tensor
    b: Tensor
    gaps: Tensor
    resolvent: Tensor

    def errors(self, maps: list[np.ndarray]) -> tuple[float, float]:
        r"""Mean length of the path from the found to the right point, and the share of points nearer than NEAR."""
        found = []
        for (m, n), right, c in zip(self.shapes, self.right, maps, strict=True):
            found.append(self.lengths[id(m)][points(m, n, c), right])
        return float(np.mean([e.mean() for e in found])), float(np.mean([(e < NEAR).mean() for e in found]))

    def zoomed(self, c: Tensor) -> list[np.ndarray]:
        r"""ZoomOut from the first BLOCK functions of each C (P, K, K)."""
        return [zoom_out(m, n, one.numpy(), BLOCK) for (m, n), one in zip(self.shapes, c, strict=True)]


def pairs(shapes: list[list[Shape]], noise: float, g: np.random.Generator) -> Pairs:
    r"""All ordered pairs of the surfaces of each family; noise: relative length of the error of each descriptor."""
    chosen = [pair for family in shapes for pair in permutations(family, 2)]
    c, right = zip(*(truth(m, n, SIZE) for m, n in chosen), strict=True)
    sides = []
    for side in range(2):
        exact = np.stack([descriptors(pair[side], SIZE) for pair in chosen])
        exact[..., :-1] += noise * g.normal(size=exact[..., :-1].shape) / math.sqrt(SIZE)  # the constant is known
        sides.append(torch.from_numpy(exact))
    values = [torch.from_numpy(np.stack([pair[k].values[:SIZE] for pair in chosen])) for k in (0, 1)]
    lengths = {id(m): m.distances() for family in shapes for m in family}
    return Pairs(chosen, list(right), lengths, torch.from_numpy(np.stack(c)), *sides, *commuting(*values))


def commuting(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    r"""(l_i - l_j)^2 of eigenvalues (P, K), rows of the second surface; and the same of the resolvents of l^(1/2).

    Reference: Ren, Panine, Wonka, Ovsjanikov (2019), Structured regularization of functional map computations.
    """
    top = torch.maximum(first[:, -1:], second[:, -1:])
    roots = [(v / top).clamp_min(0).sqrt() for v in (second, first)]
    gaps = ((second[:, :, None] - first[:, None]) / top[..., None]).square()
    parts = [(r / (1 + r**2), 1 / (1 + r**2)) for r in roots]
    resolvent = sum((a[:, :, None] - b[:, None]).square() for a, b in zip(*parts, strict=True))
    return tuple(p / p.flatten(1).mean(1).reshape(-1, 1, 1) for p in (gaps, resolvent))


def solve(given: Pairs, penalty: Tensor, target: Tensor | float = 0.0, weight: float = 0.0) -> Tensor:
    r"""The minimum of |C A - B|^2 + sum penalty C^2 + weight |C - target|^2, (P, K, K)."""
    gram = (given.a @ given.a.mT)[:, None] + torch.diag_embed(penalty + weight)
    return torch.linalg.solve(gram, given.b @ given.a.mT + weight * target)


def ridge(given: Pairs, weight: float) -> Tensor:
    return solve(given, torch.full_like(given.c, weight))


def masked(given: Pairs, weight: float, *, network: Denoiser, start: Tensor) -> Tensor:
    prior = ScorePrior(network, 0.3, transform=torch.abs)
    return solve(given, weight * residual_mask(prior, start.float(), 0.3, 50, generator(0, 2)).double() + 1e-6)


def red(
    given: Pairs,
    commute: float,
    kappa: float,
    high: float,
    *,
    denoiser: nn.Module,
    draws: int,
    start: Callable[..., Tensor],
) -> Tensor:
    r"""RED, or SDS with draws, in 30 steps from level `high`; commute: weight of the resolvent's penalty beside it."""
    prior = ScorePrior(denoiser, Annealed(high, 0.03), draws=draws, transform=torch.abs)
    x, g = start(given), generator(0, 3)
    for step in range(30):
        now, s = prior.at(step, 30), prior.levels.at(step, 30)
        target = x - s**2 * now.gradient(x.float(), g).double()  # sign(x) D(|x|, s)
        x = solve(given, commute * given.resolvent, target, kappa / s**2)
    return x


def trained(c: Tensor, steps: int, seed: int) -> Denoiser:
    r"""An MLP of 256 x 3, trained on |C| (N, K, K)."""
    torch.manual_seed(seed)
    denoiser = Denoiser(FlatMLP((SIZE, SIZE), width=256, depth=3), SDE, sigma_data=float(c.square().mean().sqrt()))
    loss, draws = DenoisingScoreMatching(LogUniform()), generator(seed, 1)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=2e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 + math.cos(math.pi * step / steps)) / 2
        batch = c[torch.randint(0, len(c), (64,), generator=draws)]
        optimizer.zero_grad()
        loss(denoiser, batch, None, draws).mean().backward()
        optimizer.step()
    return denoiser.eval()


def priors(train: Pairs, validation: Pairs, steps: int, seed: int) -> dict[str, Callable[[Pairs], Tensor]]:
    r"""Each method with the weights that validation pairs choose."""
    sizes = train.c.abs().float()
    network, normal = trained(sizes, steps, seed), GaussianDenoiser.fit(sizes, SDE, shrinkage=0.02)
    found: dict[str, Callable[[Pairs], Tensor]] = {}

    def add(name: str, method: Callable[..., Tensor], *grids: tuple[float, ...]) -> tuple[float, ...]:
        scores = {w: validation.errors(list(method(validation, *w).numpy()))[0] for w in product(*grids)}
        best = min(scores, key=scores.__getitem__)
        found[name] = lambda given: method(given, *best)
        print(f"seed {seed}, {name}: weights {best}, {scores[best]:.4f} on validation pairs", file=sys.stderr)
        return best

    weights = (0.1, 1.0, 10.0, 100.0)
    add("ridge", ridge, (0.001, 0.01, 0.1, 1.0))
    add("Laplacian", lambda g, w: solve(g, w * g.gaps + 1e-6), weights)
    (close,) = add("resolvent", lambda g, w: solve(g, w * g.resolvent + 1e-6), weights)

    def start(given: Pairs) -> Tensor:
        return solve(given, close * given.resolvent + 1e-6)

    add("residual mask, network", lambda g, w: masked(g, w, network=network, start=start(g)), weights)
    kappas, highs = (0.001, 0.01, 0.1), (0.1, 0.3)
    fields = [("RED, normal", normal, 0), ("RED, network", network, 0), ("SDS, network", network, 4)]
    for name, denoiser, draws in fields:
        method = partial(red, denoiser=denoiser, draws=draws, start=start)
        add(name, lambda g, *w, method=method: method(g, 0.0, *w), kappas, highs)
        if not draws:
            add(f"resolvent and {name}", method, (0.3 * close, close), (1e-4, 1e-3, 1e-2), highs)
    return found


def experiment(seed: int, given: argparse.Namespace) -> dict[str, list[float]]:
    r"""A row of numbers for each method: error of C; error and share of points; both after ZoomOut."""
    g = np.random.default_rng(seed)

    def part(count: int) -> Pairs:
        shapes = [[draw(family, given.vertices, given.stretch, g) for _ in range(count)] for family in FAMILIES]
        return pairs(shapes, given.noise, g)

    train, validation, test = part(given.shapes), part(3), part(4)
    rows = {}
    for name, method in {"true C": lambda g: g.c, **priors(train, validation, given.steps, seed)}.items():
        c = method(test)
        error = float((torch.linalg.norm(c - test.c, dim=(1, 2)) / torch.linalg.norm(test.c, dim=(1, 2))).mean())
        rows[name] = [error, *test.errors(list(c.numpy())), *test.errors(test.zoomed(c))]
        print(f"seed {seed}, {name}: {[round(v, 4) for v in rows[name]]}", file=sys.stderr)
    return rows


def check() -> None:
    r"""A surface and itself have C = I; of a copy in another order every point is found, where there is no noise."""
    g = np.random.default_rng(0)
    for family in FAMILIES:
        m = draw(family, 300, 0.05, g)
        count = len(m.xyz)
        own, same = truth(m, m, SIZE)
        assert np.abs(own - np.eye(SIZE)).max() < 1e-8 and (same == np.arange(count)).all(), family
        order = g.permutation(count)
        n = surface(m.xyz[order], np.argsort(order)[m.faces], m.places[:count][order], m.corners)
        sides = [torch.from_numpy(descriptors(shape, SIZE))[None] for shape in (m, n)]
        values = [torch.from_numpy(shape.values[None, :SIZE]) for shape in (m, n)]
        given = Pairs(
            [(m, n)], [order], {id(m): m.distances()}, torch.from_numpy(own)[None], *sides, *commuting(*values)
        )
        c = solve(given, given.gaps + 1e-9)
        assert given.errors(list(c.numpy())) == (0.0, 1.0), family
        assert float((c[0].abs() - torch.eye(SIZE)).abs().max()) < 0.01, family


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shapes", type=int, default=20, help="of each family, for training")
    parser.add_argument("--vertices", type=int, default=600)
    parser.add_argument("--stretch", type=float, default=0.05)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=3000, help="of the network's training")
    given = parser.parse_args()
    check()
    start = time.process_time()
    runs = [experiment(seed, given) for seed in range(given.seeds)]
    seconds = time.process_time() - start
    print(f"{len(FAMILIES)} families, {given.seeds} seeds, mean (deviation over seeds), {seconds:.0f} s of one core")
    print(HEAD)
    for name in runs[0]:
        cells = torch.tensor([run[name] for run in runs]).T
        shown = [f"{float(c.mean()):.3f} ({float(c.std(correction=0)):.3f})" for c in cells]
        print(f"| {name} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
