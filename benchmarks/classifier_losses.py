r"""The losses for certificates: what a training step of each costs, and what they reach with equal compute.

    OMP_NUM_THREADS=1 python benchmarks/classifier_losses.py                              # costs, no data
    OMP_NUM_THREADS=1 python benchmarks/classifier_losses.py --train --data PATH          # radii at equal compute

Costs: the network of conf/model/classifier_fast.yaml on random images of MNIST's shape, in the precision that a CPU
trains in. All losses take turns; the time is the CPU time of the process, the median of the rounds.

Equal compute: each loss gets the steps that cost what `--steps` steps of Gaussian augmentation cost, on MNIST, by the
command train. Then every 20th test image is certified with n = 1,000. A finished run is not made again. The table has
the CPU minutes that each training took, the mean of the certified radii over inputs and seeds, and its difference from
Gaussian augmentation of the same seed and input, with its standard error over inputs.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from scoregen.config import build
from scoregen.description import option
from scoregen.keys import Keys
from scoregen.losses import Loss
from scoregen.models import Classifier
from scoregen.smoothing import results
from scoregen.smoothing.report import certified_accuracy, correct_radii
from scoregen.training.precision import autocast, mixed_precision

SIGMA, BATCH, RADII = 0.5, 128, (0.0, 0.25, 0.5, 0.75, 1.0)
BASE = "Gaussian augmentation"
# name: option of conf/loss, its keys, and whether it is trained
LOSSES: dict[str, tuple[str, dict[str, Any], bool]] = {
    BASE: ("cross_entropy", {}, True),
    "consistency regularisation": ("consistency_regularization", {}, True),
    "MACER, 4 draws": ("macer", {"num_noises": 4}, True),
    "MACER, 16 draws": ("macer", {}, False),
    "SmoothAdv, 1 draw, 2 steps": ("smooth_adv", {"num_noises": 1}, True),
    "SmoothAdv, 2 draws, 2 steps": ("smooth_adv", {}, False),
    "SmoothMix, 1 draw, 2 steps": ("smooth_mix", {"num_noises": 1, "attack_steps": 2, "step_size": 2.0}, True),
    "SmoothMix, 2 draws, 2 steps": ("smooth_mix", {"num_noises": 2, "attack_steps": 2, "step_size": 2.0}, False),
    "SmoothMix, 4 draws, 4 steps": ("smooth_mix", {}, False),
}


class Run:
    r"""A training of one loss, step by step."""

    def __init__(self, loss: Loss) -> None:
        torch.manual_seed(0)
        self.loss, self.step = loss, 0
        self.network = Classifier((1, 28, 28), 10, (16, 32), (0, 0), hidden=128, dropout=0.0)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), fused=True)
        self.x, self.label = torch.rand(BATCH, 1, 28, 28), torch.arange(BATCH) % 10
        self.seconds: list[float] = []

    def __call__(self) -> None:
        start = time.process_time()
        self.loss.at(self.step, 1)  # at full strength
        with autocast(self.x.device, mixed_precision("auto")):
            loss = self.loss(self.network, self.x, self.label, Keys(0, 1, self.step, range(BATCH))).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.seconds.append(time.process_time() - start)


def costs(rounds: int) -> dict[str, float]:
    r"""Seconds of a step of each loss."""
    nodes = {name: option("loss", kind) | {"noise_sigma": SIGMA} | keys for name, (kind, keys, _) in LOSSES.items()}
    runs = {name: Run(build(node)) for name, node in nodes.items()}
    for _ in range(rounds):
        for run in runs.values():
            run()
    return {name: statistics.median(run.seconds[3:]) for name, run in runs.items()}


def kept_costs(options: argparse.Namespace) -> dict[str, float]:
    r"""The costs by which the runs of a folder were made, so that a repeated command finds them."""
    place = options.out / "costs.json"
    if not place.exists():
        options.out.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(costs(options.rounds)))
    found: dict[str, float] = json.loads(place.read_text())
    return found


def command(*argv: str) -> float:
    r"""Runs a job; the CPU minutes that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "scoregen", *argv], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60


def trained(name: str, seed: int, steps: int, options: argparse.Namespace) -> tuple[results.Run, float]:
    r"""The certificates of a loss, and the CPU minutes of its training."""
    kind, keys, _ = LOSSES[name]
    run = options.out / f"{kind}_{seed}_{steps}"
    data, spent = ["data=mnist", f"data.root={options.data}"], run / "cpu_minutes"
    if not spent.exists():
        given = [f"loss.{key}={value}" for key, value in {"noise_sigma": SIGMA, **keys}.items()]
        settings = [
            f"trainer.steps={steps}",
            f"trainer.checkpoint_every={steps}",
            f"seed={seed}",
            "accuracy.every=null",
        ]
        argv = ["+experiment=classifier/base", f"loss={kind}", *given, *settings, *data, f"hydra.run.dir={run}"]
        spent.write_text(str(command("train", *argv)))
    out = run / f"certified_{options.inputs}"
    settings = [f"noise.sigma={SIGMA}", "method=fixed", "n=1000", f"max_inputs={options.inputs}"]
    command("certify", f"checkpoint={run}", *data, *settings, f"out={out}")
    return results.load(out), float(spent.read_text())


def table(steps: dict[str, int], options: argparse.Namespace) -> None:
    head = f"loss | steps | CPU minutes | average certified radius | against Gaussian | {' | '.join(map(str, RADII))}"
    print(f"\n| {head} |\n|{'---|' * (head.count('|') + 1)}")
    base = np.zeros(0)
    for name, (_, _, wanted) in LOSSES.items():
        if not wanted:
            continue
        made = [trained(name, seed, steps[name], options) for seed in options.seeds]
        radii = np.mean([correct_radii(run).clip(0) for run, _ in made], axis=0)  # over seeds; an input each
        base = radii if name == BASE else base
        gain = radii - base
        error = gain.std(ddof=1) / len(gain) ** 0.5
        accuracy = 100 * np.mean([certified_accuracy(run, RADII) for run, _ in made], axis=0)
        minutes = statistics.mean(spent for _, spent in made)
        against = "" if name == BASE else f"{gain.mean():+.3f} +- {error:.3f}"
        cells = " | ".join(f"{value:.1f}" for value in accuracy)
        print(f"| {name} | {steps[name]} | {minutes:.1f} | {radii.mean():.3f} | {against} | {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=10_000, help="of Gaussian augmentation, the budget")
    parser.add_argument("--train", action="store_true", help="train and certify too")
    parser.add_argument("--data", default="data", help="folder with MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--inputs", type=int, default=500, help="test images, evenly spread")
    parser.add_argument("--out", type=Path, default=Path("outputs/classifier_losses"))
    options = parser.parse_args()
    cost = kept_costs(options) if options.train else costs(options.rounds)
    steps = {name: round(options.steps * cost[BASE] / seconds) for name, seconds in cost.items()}
    print("\n| loss | ms a step | steps of Gaussian augmentation | steps for the budget |\n|---|---|---|---|")
    for name, seconds in cost.items():
        print(f"| {name} | {1e3 * seconds:.1f} | {seconds / cost[BASE]:.1f} | {steps[name]} |", flush=True)
    if options.train:
        table(steps, options)


if __name__ == "__main__":
    main()
