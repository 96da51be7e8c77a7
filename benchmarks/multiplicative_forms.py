r"""The same data, network, budget and sampler; what the network sees and gives, and the weighting, differ.

    python benchmarks/multiplicative_forms.py [--steps 2500] [--seeds 3]

Data: a mixture of three log-normal laws in two dimensions. Process: geometric Brownian motion, volatility 3 (v(1) = 9).
Network: MLP, 3 blocks of width 96. Adam, batch 256, averaged weights. Samples: 4,000 by `DaleLangevin(200)`. Energy
distance of their logarithms to 4,000 draws of the law (the last row: of other draws).
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from oracles import energy_distance, standard_mixture  # noqa: E402

from scoregen.losses import (  # noqa: E402
    DataWeighting,
    DenoisingScoreMatching,
    EDMWeighting,
    LogNormal,
    LogUniform,
    NoiseWeighting,
    UniformTime,
)
from scoregen.models import MLP, AbstractDenoiser, Denoiser, RawDenoiser  # noqa: E402
from scoregen.rng import generator  # noqa: E402
from scoregen.samplers import DaleLangevin  # noqa: E402
from scoregen.sde import GeometricBrownianMotion  # noqa: E402
from scoregen.training import EMA  # noqa: E402

LAW = standard_mixture()
ROWS = 4000


class SeesLog(nn.Module):
    r"""A network that is given X and sees log X."""

    num_classes = None

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.network(x.log(), t, label)


def forms() -> dict[str, tuple[AbstractDenoiser, DenoisingScoreMatching]]:
    r"""Denoisers and losses, by name."""

    def network() -> MLP:
        return MLP((2,), width=96, depth=3)

    def raw(net: nn.Module, prediction: str) -> RawDenoiser:
        return RawDenoiser(net, process(), prediction=prediction)

    def standardised(prediction: str) -> Denoiser:
        return Denoiser(network(), process(), 0.5**0.5, prediction)

    paper = DenoisingScoreMatching(UniformTime(), DataWeighting())
    log_uniform = DenoisingScoreMatching(LogUniform(), NoiseWeighting())
    return {
        "x, Stein score, v^2, t uniform (the paper's)": (raw(network(), "stein"), paper),
        "log x, h, v^2, t uniform": (raw(SeesLog(network()), "hyvarinen"), paper),
        "log x / sqrt(.5 + v), eps, v^2, t uniform": (standardised("eps"), paper),
        "log x, h, v, v log-uniform": (raw(SeesLog(network()), "hyvarinen"), log_uniform),
        "log x / sqrt(.5 + v), eps, v, v log-uniform": (standardised("eps"), log_uniform),
        "log x / sqrt(.5 + v), EDM (the default)": (
            standardised("edm"),
            DenoisingScoreMatching(LogNormal(), EDMWeighting()),
        ),
    }


def process() -> GeometricBrownianMotion:
    y = LAW.sample(100_000, generator(0, 1))
    return GeometricBrownianMotion(3.0).with_moments(y.mean(0), y.var(0))


def fit(model: AbstractDenoiser, loss: DenoisingScoreMatching, steps: int, seed: int) -> None:
    r"""Trains in place and leaves the averaged weights."""
    optimizer, average = torch.optim.Adam(model.parameters(), 1e-3), EMA(model, 40_000)
    for step in range(steps):
        x = LAW.sample(256, generator(seed, 2, step)).exp().float()
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, 2 * (1 - step / steps))
        optimizer.zero_grad()
        loss(model, x, generator=generator(seed, 3, step)).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(256, 256 * (step + 1))
    average.swap()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        torch.manual_seed(seed)
        data = LAW.sample(ROWS, generator(seed, 4))
        for name, (model, loss) in forms().items():
            fit(model, loss, arguments.steps, seed)
            x = DaleLangevin(200)(model.eval(), (ROWS, 2), generator=generator(seed, 5))
            found.setdefault(name, []).append(energy_distance(x.double().log(), data))
        found.setdefault("draws of the law", []).append(energy_distance(LAW.sample(ROWS, generator(seed, 6)), data))
    print("| the network sees, gives; lambda; law of the levels | energy distance, mean (largest) |\n|---|---|")
    for name, values in found.items():
        print(f"| {name} | {sum(values) / len(values):.4f} ({max(values):.4f}) |")


if __name__ == "__main__":
    main()
