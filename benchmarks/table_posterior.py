r"""How near a trained network comes to Bayes' posterior of a table whose law is known.

    python benchmarks/table_posterior.py

The table has a category c of two values with probabilities .3 and .7, and a number | c ~ N(m_c, .05), m = (-.6, .4).
Every step reads new rows of that law. The posterior of the category, given the noisy row (u, v) with noise s, is

    p(c | u, v) = softmax_c( log p_c + log N(u; m_c, .05 + s^2) + v_c / s^2 )

and the error is that of the network's softmax, over 20,000 noisy rows.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from scoregen.losses import LogNormal, TableScoreMatching
from scoregen.models import TableDenoiser, TableMLP
from scoregen.progress import progress
from scoregen.sde import EDM
from scoregen.training import Cosine

SHARE, MEAN, VAR = torch.tensor([0.3, 0.7]), torch.tensor([-0.6, 0.4]), 0.05
LEVELS = (0.2, 0.5, 1.0, 2.0, 5.0)


def rows(n: int, g: torch.Generator) -> Tensor:
    c = (torch.rand(n, generator=g) < SHARE[1]).long()
    return torch.cat([(MEAN[c] + VAR**0.5 * torch.randn(n, generator=g))[:, None], torch.eye(2)[c]], 1)


def posterior(u: Tensor, s: float) -> Tensor:
    number, own = u[:, :1], u[:, 1:]
    return (SHARE.log() - (number - MEAN) ** 2 / (2 * (VAR + s**2)) + own / s**2).softmax(1)


@torch.no_grad()
def errors(model: TableDenoiser, s: float, g: torch.Generator) -> tuple[float, float]:
    r"""The mean and the largest absolute error of the posterior over 20,000 noisy rows."""
    u = rows(20_000, g) + s * torch.randn(20_000, 3, generator=g)
    error = (model(u, torch.tensor(s))[:, 1:] - posterior(u, s)).abs()
    return error.mean().item(), error.max().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    g = torch.Generator().manual_seed(options.seed)
    model = TableDenoiser(TableMLP((3,), width=64, depth=2), EDM(0.002, 80.0), 1, [2])
    loss = TableScoreMatching(LogNormal(0.3, 1.4))
    loss.begin(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    rate, begin = Cosine(200, 0.001), time.process_time()
    for step in progress(range(options.steps), description="training"):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * rate(step, options.steps)
        loss(model, rows(options.batch, g), None, g).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"{options.steps} steps of {options.batch} rows, {time.process_time() - begin:.0f} s of CPU")
    print("| s | mean error | largest |\n|---|---|---|")
    for s in LEVELS:
        mean, most = errors(model, s, g)
        print(f"| {s} | {mean:.1e} | {most:.1e} |")


if __name__ == "__main__":
    main()
