r"""What the host does for a training step, and whether it waits for the accelerator.

    python benchmarks/host.py      # milliseconds a step at 32, 64 and 256 pixels, batch 128, one thread

The network is trivial, so what is left is the host's: reading a batch of bytes into pinned memory, and starting the
draws, the noise levels, the loss, the optimizer, averages and the meter. Without an accelerator one pixel of each image
stands in for what is on it: all operations are started, on one pixel, after the whole batch was read. Waits and copies
are counted by a spy (`device_spy.py`) in a run of their own on torch's `meta` device. The copies are those beside the
batch's own, of bytes and labels.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.device_spy import DEVICE, OneDevice, Spy, stand_in
from scoregen.data import ArrayDataset, Source
from scoregen.losses import DenoisingScoreMatching
from scoregen.models import Denoiser
from scoregen.sde import EDM, Affine
from scoregen.training.ema import EMA
from scoregen.training.meter import Meter
from scoregen.training.parts import Parts, Progress
from scoregen.training.settings import Settings
from scoregen.training.step import Step


class Trivial(nn.Module):
    r"""One factor."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        return self.factor * z


class OnePixel(ArrayDataset):
    r"""Images that are read whole, of which one pixel goes on."""

    def units(self, x: Tensor) -> Tensor:
        return super().units(x[..., :1, :1])


class RandomBytes(Source):
    r"""Coloured noise with labels, in a given kind of part."""

    name, range, num_classes = "random", (0.0, 1.0), 10

    def __init__(self, pixels: int, count: int, kind: type[ArrayDataset]) -> None:
        super().__init__()
        self.pixels, self.count, self.kind = pixels, count, kind

    def load(self, train: bool) -> ArrayDataset:
        generator = torch.Generator().manual_seed(0)
        shape = (self.count, 3, self.pixels, self.pixels)
        x = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return self.kind(x, torch.arange(self.count) % 10)


def training(pixels: int, batch: int, steps: int, device: torch.device):
    r"""A function that does one step of a training."""
    model = Denoiser(Trivial(), EDM(chart=Affine(2.0, -1.0))).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    settings, progress = Settings(steps, batch, precision="no"), Progress()
    parts = Parts(
        settings=settings,
        seed=0,
        accelerator=OneDevice(device),
        model=model,
        loss=DenoisingScoreMatching(),
        optimizer=optimizer,
        rates=[1e-3],
        ema=EMA(model),
        source=RandomBytes(pixels, 4 * batch, OnePixel if device.type == "cpu" else ArrayDataset),
        folder=Path(),
        config={},
        progress=progress,
    )
    step, meter = Step(parts), Meter(steps, batch, device, progress)
    return lambda: meter.add(*step())


def milliseconds(step, count: int) -> float:
    r"""The median of the time in which a step is started."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def spied(pixels: int, batch: int) -> tuple[int, int]:
    r"""Waits and copies a step, the batch's own left out."""
    step = training(pixels, batch, 4, DEVICE)
    with Spy():
        step()
    with Spy() as spy:
        step()
    own = [((batch, 3, pixels, pixels), torch.uint8), ((batch,), torch.int64)]
    return len(spy.waits), len([copy for copy in spy.copies if copy not in own])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pixels", type=int, nargs="+", default=[32, 64, 256])
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    print(f"device {device}, batch {options.batch}, {options.steps} steps, one thread")
    print(f"{'pixels':>6} {'ms a step':>10} {'waits':>6} {'copies':>7}")
    with stand_in():
        for pixels in options.pixels:
            step = training(pixels, options.batch, options.steps + 3, device)
            for _ in range(3):
                step()
            took = milliseconds(step, options.steps)
            waits, copies = spied(pixels, options.batch)
            print(f"{pixels:6} {took:10.2f} {waits:6} {copies:7}")


if __name__ == "__main__":
    main()
