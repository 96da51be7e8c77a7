r"""What a step with a smoothness penalty costs over a plain one: python benchmarks/smoothness.py [--repeats 9]

Rounds of four steps of every kind alternate, so that the noise of the machine meets all of them; medians of the ratios
of a round. Exits with 1 above 2.3 (finite difference, every step) or 1.3 (every = 4).
"""

import argparse
import statistics
import sys
import time

import torch

from scoregen.losses import DenoisingScoreMatching, JacobianPenalty, Loss, OptimalTransportPairing, StepwiseVariation
from scoregen.models import Denoiser, FlatMLP, UNet
from scoregen.sde import EDM, VP

BUDGETS = {"finite difference": 2.3, "finite difference, every = 4": 1.3}


def seconds(model: Denoiser, loss: Loss, x: torch.Tensor, steps: int = 4) -> float:
    r"""Seconds of four optimizer steps, one of which is due for every = 4."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    start = time.perf_counter()
    for step in range(steps):
        loss.at(step, steps)
        loss(model, x).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    base = DenoisingScoreMatching()
    losses: dict[str, Loss] = {
        "plain": base,
        "finite difference": StepwiseVariation(base),
        "finite difference, every = 4": StepwiseVariation(base, every=4),
        "vjp": StepwiseVariation(base, estimator="vjp"),
        "plain penalty": JacobianPenalty(base),
        "OT pairing": OptimalTransportPairing(base),
    }
    networks = {
        "MLP 512 x 3, VP, batch 256": (Denoiser(FlatMLP((1, 8, 8), 512), VP()), (256, 1, 8, 8)),
        "U-Net (64, 96), 8 x 8, EDM, batch 32": (Denoiser(UNet((1, 8, 8), (64, 96), layers=1), EDM()), (32, 1, 8, 8)),
        "U-Net (32, 64) on 2 x 2 patches, 28 x 28, EDM, batch 16": (
            Denoiser(UNet((1, 28, 28), (32, 64), layers=1, patch_size=2), EDM()),
            (16, 1, 28, 28),
        ),
    }
    worst = dict.fromkeys(losses, 0.0)
    print("| network | plain, ms | " + " | ".join(list(losses)[1:]) + " |\n" + "|---" * (len(losses) + 1) + "|")
    for name, (model, shape) in networks.items():
        x = torch.rand(shape)
        rounds = [[seconds(model, loss, x) for loss in losses.values()] for _ in range(options.repeats + 1)][1:]
        ratios = [statistics.median(row[k] / row[0] for row in rounds) for k in range(len(losses))]
        worst = {key: max(worst[key], ratio) for key, ratio in zip(losses, ratios, strict=True)}
        plain = 1e3 * statistics.median(row[0] for row in rounds)
        print(f"| {name} | {plain:.1f} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios[1:]) + " |", flush=True)
    over = [f"{name}: {worst[name]:.2f} > {most}" for name, most in BUDGETS.items() if worst[name] > most]
    if over:
        sys.exit("a step costs more than its budget: " + "; ".join(over))


if __name__ == "__main__":
    main()
