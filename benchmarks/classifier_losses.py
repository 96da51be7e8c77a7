r"""What a training step of each loss for certificates costs, and how many steps a budget buys.

    OMP_NUM_THREADS=1 python benchmarks/classifier_losses.py --steps 10000       # the steps of docs/results.md

The network is that of conf/model/classifier_fast.yaml on random images of MNIST's shape, in the precision that a CPU
trains in. All losses take turns; the time is the CPU time of the process, the median of the rounds. The budget is
what `--steps` steps of Gaussian augmentation cost.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from scoregen.keys import Keys
from scoregen.losses import MACER, ConsistencyRegularization, CrossEntropy, Loss, SmoothAdv, SmoothMix
from scoregen.models import Classifier
from scoregen.training.precision import autocast, mixed_precision

SIGMA, BATCH = 0.5, 128
LOSSES: dict[str, Loss] = {
    "Gaussian augmentation": CrossEntropy(SIGMA),
    "consistency regularisation": ConsistencyRegularization(SIGMA),
    "MACER, 4 draws": MACER(SIGMA, num_noises=4),
    "MACER, 16 draws": MACER(SIGMA),
    "SmoothAdv, 1 draw, 2 steps": SmoothAdv(SIGMA, num_noises=1),
    "SmoothAdv, 2 draws, 2 steps": SmoothAdv(SIGMA),
    "SmoothMix, 1 draw, 2 steps": SmoothMix(SIGMA, num_noises=1, attack_steps=2, step_size=2.0),
    "SmoothMix, 2 draws, 2 steps": SmoothMix(SIGMA, num_noises=2, attack_steps=2, step_size=2.0),
    "SmoothMix, 4 draws, 4 steps": SmoothMix(SIGMA),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=10_000, help="of Gaussian augmentation, the budget")
    options = parser.parse_args()
    runs = {name: Run(loss) for name, loss in LOSSES.items()}
    for _ in range(options.rounds):
        for run in runs.values():
            run()
    cost = {name: statistics.median(run.seconds[3:]) for name, run in runs.items()}
    unit = cost["Gaussian augmentation"]
    print("\n| loss | ms a step | steps of Gaussian augmentation | steps for the budget |\n|---|---|---|---|")
    for name, seconds in cost.items():
        print(f"| {name} | {1e3 * seconds:.1f} | {seconds / unit:.1f} | {options.steps * unit / seconds:.0f} |")


if __name__ == "__main__":
    main()
