r"""Inpainting of the standard mixture against its exact posterior (W1): python benchmarks/conditioning.py"""

import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from oracles import standard_mixture  # noqa: E402

from scoregen.models import Inpainting, PiGDM, Replacement  # noqa: E402
from scoregen.samplers import Ancestral, ExponentialABM, Heun, TimeTravel  # noqa: E402
from scoregen.samplers.grids import Karras  # noqa: E402

OBSERVED, NOISE, DRAWS = 0.7, 0.02, 20_000


def exact_draws(mixture, n: int) -> torch.Tensor:
    r"""Draws of x2 given x1 + noise = OBSERVED."""
    variance = mixture.covariances[:, 0, 0] + NOISE**2
    weights = (
        mixture.weights.log() - variance.log() / 2 - (OBSERVED - mixture.means[:, 0]) ** 2 / variance / 2
    ).softmax(0)
    gain = mixture.covariances[:, 1, 0] / variance
    mean = mixture.means[:, 1] + gain * (OBSERVED - mixture.means[:, 0])
    spread = (mixture.covariances[:, 1, 1] - gain * mixture.covariances[:, 1, 0]).sqrt()
    g = torch.Generator().manual_seed(0)
    k = torch.multinomial(weights, n, replacement=True, generator=g)
    return mean[k] + spread[k] * torch.randn(n, generator=g, dtype=torch.float64)


def main() -> None:
    mixture = standard_mixture()
    exact = exact_draws(mixture, DRAWS).sort().values
    observation = Inpainting(torch.tensor([OBSERVED, 0.0]).double(), torch.tensor([True, False]), NOISE)
    wrappers = {f"PiGDM, sigma_data {sd}": PiGDM(mixture, observation, sd) for sd in (0.35, 0.5, 0.7)}
    wrappers["Replacement"] = Replacement(mixture, observation)
    samplers = {f"Ancestral({n})": Ancestral(n) for n in (64, 256)} | {
        "Heun(32)": Heun(32),
        "ABM(32)": ExponentialABM(32),
    }
    samplers["Ancestral(64), TimeTravel(4, 4)"] = Ancestral(64, grid=TimeTravel(Karras(), 4, 4))
    floor = (exact_draws(mixture, 2 * DRAWS)[DRAWS:].sort().values - exact).abs().mean()
    print(f"exact posterior: mean {exact.mean():.3f}, std {exact.std():.3f}; W1 of two exact samples {floor:.3f}\n")
    print("| denoiser | " + " | ".join(samplers) + " |\n|---" + "|---" * len(samplers) + "|")
    for name, wrapper in wrappers.items():
        row = []
        for sampler in samplers.values():
            start = 80 * torch.randn(DRAWS, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            x = sampler(wrapper, start=(start, 1.0), generator=torch.Generator().manual_seed(2))
            row.append(f"{(x[:, 1].sort().values - exact).abs().mean():.3f}")
        print(f"| {name} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
