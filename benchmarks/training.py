r"""What the training loop costs over a bare forward/backward/optimizer step of the same network and batch.

    python benchmarks/training.py            # the MNIST network, batch 128; prints the ratio, at most 1.05

Rounds of the loop (data, keyed noise, logging, averages, checks) and of bare steps alternate, so that the noise of the
machine meets both; medians of several rounds.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from scoregen.data import ArrayDataset, Source
from scoregen.losses import DenoisingScoreMatching
from scoregen.models import Denoiser, UNet
from scoregen.sde import EDM, Affine
from scoregen.training import JSONLines, Trainer
from scoregen.training.loggers import read_metrics
from scoregen.training.precision import mixed_precision


class RandomImages(Source):
    r"""Grey noise of MNIST's shape and number."""

    name, range, num_classes = "random", (0.0, 1.0), 10

    def load(self, train: bool) -> ArrayDataset:
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (60_000, 1, 28, 28), generator=generator, dtype=torch.uint8)
        return ArrayDataset(x, torch.randint(0, 10, (len(x),), generator=generator))


def network() -> Denoiser:
    r"""The model of data=mnist."""
    torch.manual_seed(0)
    unet = UNet((1, 28, 28), (64, 128), num_classes=10, patch_size=2)
    return Denoiser(unet, EDM(chart=Affine(2.0, -1.0)))


def make_optimizer(params) -> torch.optim.Optimizer:
    r"""What conf/trainer/default.yaml uses."""
    return torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.99), fused=True)


def loop_seconds(steps: int, batch: int, source: Source) -> float:
    r"""Seconds a step inside the trainer, without its start."""
    trainer = Trainer(
        steps=2 * steps, batch_size=batch, optimizer=make_optimizer, log_every=steps, checkpoint_every=10**9
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer.fit(network(), DenoisingScoreMatching(), source, Path(folder), {}, loggers=[JSONLines()])
        return batch / read_metrics(Path(folder))[-1]["images_per_second"]


def bare_seconds(steps: int, batch: int, precision: str) -> float:
    r"""Seconds of a bare step on a fixed noisy batch."""
    model = network()
    optimizer = make_optimizer(model.parameters())
    y, eps = torch.randn(batch, 1, 28, 28), torch.randn(batch, 1, 28, 28)
    s, label = torch.rand(batch, dtype=torch.float64) + 0.1, torch.randint(0, 10, (batch,))
    u, weight = y + s.float().reshape(-1, 1, 1, 1) * eps, torch.ones(batch)
    for step in range(2 * steps):
        if step == steps:
            start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = (weight * (model(u, s, label) - y).square().flatten(1).mean(1)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    source = RandomImages()
    precision = mixed_precision("auto")
    loop, bare = [], []
    for _ in range(options.rounds):
        bare.append(bare_seconds(options.steps, options.batch, precision))
        loop.append(loop_seconds(options.steps, options.batch, source))
    ratios = [a / b for a, b in zip(loop, bare, strict=True)]
    print(f"precision {precision}, batch {options.batch}, {options.rounds} rounds of {options.steps} steps")
    for name, seconds in (("bare step", bare), ("training loop", loop)):
        middle = statistics.median(seconds)
        print(f"{name:14} {middle * 1e3:8.1f} ms  {options.batch / middle:6.0f} images/s")
    rounds = ", ".join(f"{r:.3f}" for r in ratios)
    print(f"{'ratio':14} {statistics.median(ratios):8.3f}     (of the rounds: {rounds})")


if __name__ == "__main__":
    main()
