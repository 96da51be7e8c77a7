r"""What the training loop costs over a bare forward/backward/optimizer step of the same network and batch.

    python benchmarks/training.py                # the MNIST network, batch 128; prints the ratio, at most 1.03
    python benchmarks/training.py --processes 2  # weak scaling: as many images a process, by one process and by two
    python benchmarks/training.py --peers        # beside denoising-diffusion-pytorch and diffusers' example

Rounds of the loop (data, keyed noise, logging, averages, checks) and of what it is compared with alternate, so that the
noise of the machine meets both; medians of several rounds. The first peer has to be installed beside this package:
pip install --no-deps --target PEERS denoising-diffusion-pytorch ema-pytorch einops torch-fidelity; PYTHONPATH=PEERS.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.training_peers import PEERS
from scoregen.data import ArrayDataset, Source
from scoregen.losses import DenoisingScoreMatching
from scoregen.models import Denoiser, UNet
from scoregen.parallel import finalize, rank, world_size
from scoregen.sde import EDM, Affine
from scoregen.training import JSONLines, Trainer
from scoregen.training.loggers import read_metrics
from scoregen.training.precision import mixed_precision
from scoregen.training.processes import start_processes


class RandomImages(Source):
    r"""Grey noise of MNIST's shape and number."""

    name, range, num_classes = "random", (0.0, 1.0), 10

    def load(self, train: bool) -> ArrayDataset:
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (60_000, 1, 28, 28), generator=generator, dtype=torch.uint8)
        return ArrayDataset(x, torch.randint(0, 10, (len(x),), generator=generator))


def network(num_classes: int | None = 10) -> Denoiser:
    r"""The model of data=mnist."""
    torch.manual_seed(0)
    unet = UNet((1, 28, 28), (64, 128), num_classes=num_classes, patch_size=2)
    return Denoiser(unet, EDM(chart=Affine(2.0, -1.0)))


def make_optimizer(params) -> torch.optim.Optimizer:
    r"""What conf/trainer/default.yaml uses."""
    return torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.99), fused=True)


def loop_seconds(steps: int, batch: int, source: Source, num_classes: int | None = 10) -> float:
    r"""Seconds a step inside the trainer, without its start."""
    trainer = Trainer(
        steps=2 * steps, batch_size=batch, optimizer=make_optimizer, log_every=steps, checkpoint_every=10**9
    )
    with tempfile.TemporaryDirectory() as folder:
        loggers = [JSONLines()] if rank() == 0 else []
        trainer.fit(network(num_classes), DenoisingScoreMatching(), source, Path(folder), {}, loggers=loggers)
        return batch / read_metrics(Path(folder))[-1]["images_per_second"] if rank() == 0 else 0.0


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


def compared(found: dict[str, list[float]], batch: int) -> None:
    r"""Prints milliseconds a step and images a second, medians over the rounds, and the ratios to the first row."""
    first = next(iter(found.values()))
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        ratios = [a / b for a, b in zip(seconds, first, strict=True)]
        rounds = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        line = f"{name:28} {middle * 1e3:8.1f} ms  {batch / middle:6.0f} images/s"
        print(f"{line}   ratio {statistics.median(ratios):.3f} (of the rounds: {rounds})")


def beside_bare_steps(options: argparse.Namespace) -> None:
    source, precision = RandomImages(), mixed_precision("auto")
    found: dict[str, list[float]] = {"bare step": [], "training loop": []}
    for _ in range(options.rounds):
        found["bare step"].append(bare_seconds(options.steps, options.batch, precision))
        found["training loop"].append(loop_seconds(options.steps, options.batch, source))
    print(f"precision {precision}, batch {options.batch}, {options.rounds} rounds of {options.steps} steps")
    compared(found, options.batch)


def beside_peers(options: argparse.Namespace) -> None:
    source, precision = RandomImages(), mixed_precision("auto")
    images = source.train.in_units(range(4096))[0]
    found: dict[str, list[float]] = {"scoregen": [], **{name: [] for name in PEERS}}
    for _ in range(options.rounds):
        found["scoregen"].append(loop_seconds(options.steps, options.batch, source, None))
        for name, seconds in PEERS.items():
            net = network(None).network.net
            found[name].append(seconds(net, images, options.steps, options.batch, precision))
    print(f"precision {precision}, batch {options.batch}, {options.rounds} rounds of {options.steps} steps")
    compared(found, options.batch)


def weak_scaling(options: argparse.Namespace) -> None:
    r"""Images a second of one process and of several, one thread each, with as many images a process."""
    speeds: dict[int, list[float]] = {1: [], options.processes: []}
    for _ in range(options.rounds):
        for number, found in speeds.items():
            found.append(_launched(number, options))
    one, many = (statistics.median(found) for found in speeds.values())
    print(f"batch {options.batch} a process, one thread each, {options.rounds} rounds of {options.steps} steps")
    print(f" 1 process   {one:7.0f} images/s")
    print(f"{options.processes:2} processes {many:7.0f} images/s, {many / one / options.processes:.3f} of the ideal")


def _launched(number: int, options: argparse.Namespace) -> float:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
    own = [__file__, "--worker", "--steps", str(options.steps), "--batch", str(options.batch)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    text = subprocess.run([*launcher, *own], env=environment, check=True, capture_output=True, text=True).stdout
    return float(re.findall(r"images/s: ([\d.]+)", text)[0])


def worker(options: argparse.Namespace) -> None:
    start_processes()
    batch = options.batch * world_size()
    seconds = loop_seconds(options.steps, batch, RandomImages())
    if rank() == 0:
        print(f"images/s: {batch / seconds:.2f}")
    finalize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options)
    elif options.peers:
        beside_peers(options)
    elif options.processes > 1:
        weak_scaling(options)
    else:
        beside_bare_steps(options)


if __name__ == "__main__":
    main()
