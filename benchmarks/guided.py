r"""Error against network calls under classifier-free guidance, with an exact denoiser of digits.

    python benchmarks/guided.py

The data law is the mean of 800 normal laws of variance .02 (images in [-1, 1]) around digits of the training part; the
denoiser and that of one class are known exactly, and guidance extrapolates from the first through the second. Same grid
(Karras, 80 to .002) and 200 starts for all, float64. Error: root mean square distance to the end of 600 steps.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from scoregen.compat import repair_torchvision
from scoregen.data import Digits
from scoregen.samplers import DDIM, DiffusersSampler, ExponentialABM, Karras, Sampler, VelocityABM
from scoregen.sde import EDM

repair_torchvision()
import diffusers  # noqa: E402

CALLS, GUIDANCE = (6, 8, 12, 18, 24, 36), (1.0, 2.0, 4.0, 7.5)
VARIANCE, SDE = 0.02, EDM(0.002, 80.0)
SAMPLERS: dict[str, Callable[[int], Sampler]] = {
    "VelocityABM": VelocityABM,
    "VelocityABM(limit=2)": lambda k: VelocityABM(k, limit=2.0),
    "VelocityABM(limit=10)": lambda k: VelocityABM(k, limit=10.0),
    "ExponentialABM": ExponentialABM,
    "DDIM": DDIM,
    "diffusers DPM-Solver++ 2M": lambda k: DiffusersSampler(diffusers.DPMSolverMultistepScheduler(), k),
}


def mean(u: Tensor, s: Tensor, centres: Tensor) -> Tensor:
    r"""E[y | u] of normal laws around centres."""
    total = VARIANCE + s**2
    share = ((2 * u @ centres.T - (centres**2).sum(1)) / (2 * total)).softmax(1)
    return (s**2 / total) * (share @ centres) + VARIANCE / total * u


def guided(centres: Tensor, chosen: Tensor, guidance: float) -> Callable[..., Tensor]:
    def denoiser(u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        s = torch.as_tensor(s, dtype=u.dtype)
        plain = mean(u, s, centres)
        return plain + guidance * (mean(u, s, chosen) - plain)

    denoiser.is_steep = guidance > 2  # as of `ClassifierFreeGuidance`
    return denoiser


@torch.no_grad()
def main() -> None:
    x, label = Digits().train.in_units(range(800))
    centres = (2 * x - 1).flatten(1).double()
    u = 80 * torch.randn(200, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    print(f"| guidance | sampler, RMSE at calls: | {' | '.join(map(str, CALLS))} |\n{'|---' * (len(CALLS) + 2)}|")
    for guidance in GUIDANCE:
        denoiser = guided(centres, centres[label == 3], guidance)

        def end(sampler: Sampler, denoiser: Callable[..., Tensor] = denoiser) -> Tensor:
            return sampler.integrate(denoiser, u, Karras()(SDE, sampler.steps), torch.zeros_like)

        exact = end(VelocityABM(600, limit=1e9))
        for name, build in SAMPLERS.items():
            errors = [(end(build(calls)) - exact).square().mean().sqrt().item() for calls in CALLS]
            print(f"| {guidance:g} | {name} | {' | '.join(f'{error:.3f}' for error in errors)} |", flush=True)


if __name__ == "__main__":
    main()
