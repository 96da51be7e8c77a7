r"""Cost of a step of consistency models and flow maps, and a two-dimensional toy in few calls.

python benchmarks/consistency.py [--cost | --flow-maps]
"""

import copy
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from oracles import energy_distance, standard_mixture  # noqa: E402

from scoregen.losses import (  # noqa: E402
    ConsistencyDistillation,
    ConsistencyTuning,
    DenoisingScoreMatching,
    FlowMap,
    Loss,
)
from scoregen.losses.consistency import AbstractConsistency  # noqa: E402
from scoregen.models import MLP, Denoiser, UNet  # noqa: E402
from scoregen.samplers import (  # noqa: E402
    DDIM,
    RK2,
    Consistency,
    FlowTime,
    Heun,
    Jumps,
    Levels,
    decode,
    encode,
)
from scoregen.sde import EDM  # noqa: E402
from scoregen.sde.path import expand  # noqa: E402

LEVELS = {1: [80.0], 2: [80.0, 0.821], 4: [80.0, 5.0, 0.821, 0.2]}
BUDGETS = {"tuning": 2.2, "flow map": 1.5}  # step over denoising-score-matching step, at most


class IndependentNoise(AbstractConsistency):
    r"""Broken on purpose: fresh noise in the second branch."""

    def lower(self, y, eps, s, r, label):
        return y + expand(r, y) * torch.randn(y.shape)


def seconds(model: Denoiser, loss: Loss, x: torch.Tensor) -> float:
    r"""One step without the optimizer, in seconds of the processor."""
    start = time.process_time()
    loss(model, x).mean().backward()
    elapsed = time.process_time() - start
    model.zero_grad(set_to_none=True)
    return elapsed


def cost(repeats: int = 9) -> dict[str, float]:
    r"""Prints median times of alternating steps; returns the largest ratio of each loss."""
    networks = {
        "U-Net (64, 96), 8 x 8": (UNet((1, 8, 8), (64, 96), layers=1, next_level=True), (64, 1, 8, 8)),
        "U-Net (64, 128) on 2 x 2 patches, 28 x 28": (
            UNet((1, 28, 28), (64, 128), patch_size=2, next_level=True),
            (16, 1, 28, 28),
        ),
    }
    names = ["tuning", "distillation", "flow map", "flow map, meanflow"]
    print(f"| network | score matching, ms | {', ratio | '.join(names)}, ratio |\n{'|---' * (2 + len(names))}|")
    worst = dict.fromkeys(names, 0.0)
    for name, (network, shape) in networks.items():
        model = Denoiser(network, EDM())
        teacher = copy.deepcopy(model)
        losses = [
            DenoisingScoreMatching(),
            ConsistencyTuning(),
            ConsistencyDistillation(teacher),
            FlowMap(),
            FlowMap("meanflow"),
        ]
        x = torch.rand(shape)
        times = [[seconds(model, loss, x) for loss in losses] for _ in range(repeats + 1)][1:]
        ratios = {key: statistics.median(row[k] / row[0] for row in times) for k, key in enumerate(names, 1)}
        worst = {key: max(worst[key], ratio) for key, ratio in ratios.items()}
        base = 1e3 * statistics.median(row[0] for row in times)
        columns = " | ".join(f"{ratio:.2f}" for ratio in ratios.values())
        print(f"| {name}, batch {shape[0]} | {base:.0f} | {columns} |")
    return worst


def train(model: Denoiser, loss: Loss, x: torch.Tensor, rate: float, steps: int) -> Denoiser:
    r"""The averages of a training with batches of 256."""
    g = torch.Generator().manual_seed(0)
    average = copy.deepcopy(model)
    optimizer = torch.optim.RAdam(model.parameters(), rate)
    for step in range(steps):
        loss.at(step, steps)
        value = loss(model, x[torch.randint(len(x), (256,), generator=g)], None, g).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        keep = 0.5 ** (1 / max(1.0, min(steps / 20, step / 10)))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
    return average.eval()


def toy(steps: int = 2000) -> None:
    r"""Prints energy distances to the mixture for the variants of the loss."""
    torch.manual_seed(0)
    mixture = standard_mixture()
    x = mixture.sample(50_000, torch.Generator().manual_seed(1)).float()
    real = mixture.sample(4000, torch.Generator().manual_seed(2)).float()

    def distance(model, sampler) -> float:
        return energy_distance(sampler(model, real.shape, generator=torch.Generator().manual_seed(3)), real)

    def row(name: str, model: Denoiser) -> None:
        values = [distance(model, Consistency(k, Levels(levels))) for k, levels in LEVELS.items()]
        print(f"| {name} | " + " | ".join(f"{v:.4f}" for v in values) + " |")

    fresh = Denoiser(MLP((2,), 64, 2), EDM(), sigma_data=0.8)
    teacher = train(copy.deepcopy(fresh), DenoisingScoreMatching(), x, 2e-3, 1000)
    print(f"\nteacher, Heun(18): {distance(teacher, Heun(18)):.4f}")
    print("\n| model | 1 call | 2 calls | 4 calls |\n|---|---|---|---|")
    row("teacher", teacher)
    variants = {
        "tuned, c = 0": (teacher, ConsistencyTuning()),
        "tuned, c = .03": (teacher, ConsistencyTuning(c=0.03)),
        "from scratch, c = .03": (fresh, ConsistencyTuning(c=0.03)),
        "distilled, c = .03": (teacher, ConsistencyDistillation(teacher, c=0.03)),
        "broken: independent noise": (teacher, IndependentNoise(c=0.03)),
    }
    for name, (start, loss) in variants.items():
        row(name, train(copy.deepcopy(start).train(), loss, x, 1e-3, steps))


def flow_maps(seeds: tuple[int, ...] = (0, 1, 2), steps: int = 2000) -> None:
    r"""Prints energy distances of flow maps in few calls, deterministic, and errors of inversion, for some seeds."""
    mixture = standard_mixture()
    x = mixture.sample(50_000, torch.Generator().manual_seed(1)).float()
    real = mixture.sample(4000, torch.Generator().manual_seed(2)).float()
    calls = (1, 2, 4, 8)

    def distance(model, sampler) -> float:
        return energy_distance(sampler(model, real.shape, generator=torch.Generator().manual_seed(3)), real)

    def inversion(model, solver) -> float:
        back = decode(model, encode(model, real, solver=solver), solver=solver)
        return (back - real).square().mean().sqrt().item()

    heads = ["seed, model", *(f"{k} calls" for k in calls), "35 calls, Heun", "there and back, RMS", "by the inverse"]
    print(f"\n| {' | '.join(heads)} |")
    print("|---" * len(heads) + "|")
    for seed in seeds:
        torch.manual_seed(seed)
        fresh = Denoiser(MLP((2,), 64, 2, next_level=True), EDM(), sigma_data=0.8)
        teacher = train(copy.deepcopy(fresh), DenoisingScoreMatching(), x, 2e-3, 1000)
        row = [distance(teacher, DDIM(k, FlowTime(0.8))) for k in calls] + [distance(teacher, Heun(18))]
        errors = f"RK2(16) {inversion(teacher, RK2(16)):.3f}"
        print(f"| {seed} teacher | {' | '.join(f'{v:.4f}' for v in row)} | {errors} | |", flush=True)
        variants = {
            "flow map": (teacher, FlowMap()),
            "flow map, upward=.3": (teacher, FlowMap(upward=0.3)),
            "meanflow": (teacher, FlowMap("meanflow")),
            "from scratch": (fresh, FlowMap()),
        }
        for name, (start, loss) in variants.items():
            before = time.process_time()
            model = train(copy.deepcopy(start).train(), loss, x, 1e-3, steps)
            spent = time.process_time() - before
            row = [distance(model, DDIM(k, FlowTime(0.8))) for k in calls] + [distance(model, Heun(18))]
            own, inverse = (
                ", ".join(f"{inversion(model, Jumps(k, rho, corrections)):.3f}" for k in (1, 2, 4))
                for rho, corrections in ((7.0, 0), (12.0, 1))
            )
            errors = f"{own} | {inverse}"
            print(f"| {seed} {name} ({spent:.0f} s) | {' | '.join(f'{v:.4f}' for v in row)} | {errors} |", flush=True)
        model = train(copy.deepcopy(teacher).train(), ConsistencyTuning(c=0.03), x, 1e-3, steps)
        row = [distance(model, Consistency(k)) for k in calls]
        print(f"| {seed} consistency tuning | {' | '.join(f'{v:.4f}' for v in row)} | | | |", flush=True)


if __name__ == "__main__":
    if "--flow-maps" in sys.argv:
        flow_maps()
        sys.exit()
    ratios = cost()
    if "--cost" not in sys.argv:
        toy()
    for key, budget in BUDGETS.items():
        if ratios[key] > budget:
            sys.exit(f"a step of {key} costs {ratios[key]:.2f} times a score-matching step, more than {budget}.")
