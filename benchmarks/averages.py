r"""Averages made after a training, beside ema-pytorch: their error against tracked ones, and the time of an update.

    pip install --target PEERS --no-deps ema-pytorch==0.8.3
    PYTHONPATH=PEERS python benchmarks/averages.py

Error: weights walk at random for 640 steps; 32 snapshots of two averages in half precision; root mean square distance
to the average tracked in float64, relative to the spread of the last weights. Time: processor time of an update of two
averages of a U-Net, medians of interleaved rounds, one thread. Exit status 1 if an error is above that of ema-pytorch,
or an update takes more than half of its time.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parents[1])]
from scoregen import average_lengths, averages  # noqa: E402
from scoregen.averages import LENGTHS  # noqa: E402
from scoregen.training.ema import EMA  # noqa: E402
from scoregen.training.power_averages import PowerAverages  # noqa: E402

TARGETS = (0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.25)
STEPS, COUNT, BATCH, SIZE = 640, 32, 64, 2000


class Walk(nn.Module):
    r"""Weights that are moved from outside."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(SIZE, dtype=dtype))


def walked(model: Walk, update: Callable[[int], object]) -> None:
    r"""Moves the weights, and calls update(step) after each step; the same walk each time."""
    generator, place = torch.Generator().manual_seed(0), torch.zeros(SIZE, dtype=torch.float64)
    for step in range(1, STEPS + 1):
        place += torch.randn(SIZE, generator=generator, dtype=torch.float64) / STEPS**0.5
        with torch.no_grad():
            model.w.copy_(place)
        update(step)


def ours(folder: Path) -> dict[float, Tensor]:
    r"""The averages that snapshots and the last checkpoint of a run give."""
    model = Walk(torch.float32)
    powers, kept = PowerAverages(EMA(model)), averages.snapshot_steps(STEPS, COUNT)

    def update(step: int) -> None:
        powers.update(BATCH, step * BATCH)
        if step in kept:
            moment = powers.moment(step, step * BATCH)
            averages.write(folder / f"step_{step:08d}.safetensors", moment, half=step < STEPS)

    walked(model, update)
    moments = [averages.read(path) for path in sorted(folder.glob("*.safetensors"))]
    places = [(moment, length) for moment in moments for length in moment.values]
    times, lengths = [m.images for m, _ in places], [length for _, length in places]
    found = {}
    for target in TARGETS:
        x, _ = average_lengths.coefficients(times, lengths, STEPS * BATCH, target)
        parts = (a * m.values[n]["w"].double() for a, (m, n) in zip(x.tolist(), places, strict=True))
        found[target] = sum(parts, torch.zeros(SIZE, dtype=torch.float64))
    return found


def theirs(folder: Path) -> dict[float, Tensor]:
    r"""Those of ema-pytorch."""
    from ema_pytorch import PostHocEMA

    model = Walk(torch.float32)
    ema = PostHocEMA(
        model, sigma_rels=LENGTHS, update_every=1, checkpoint_every_num_steps=STEPS // COUNT, checkpoint_folder=folder
    )
    walked(model, lambda _: ema.update())
    return {target: ema.synthesize_ema_model(sigma_rel=target).ema_model.w.detach().double() for target in TARGETS}


def tracked() -> tuple[dict[float, Tensor], float]:
    r"""The averages themselves, and the spread of the last weights."""
    model = Walk(torch.float64)
    powers = PowerAverages(EMA(model), TARGETS)
    walked(model, lambda step: powers.update(BATCH, step * BATCH))
    return {target: powers.values[target]["w"] for target in TARGETS}, model.w.detach().std().item()


def times(rounds: int = 15, repeats: int = 20) -> tuple[float, float, int]:
    r"""Seconds of an update, ours and theirs, and the number of parameters."""
    from ema_pytorch import PostHocEMA

    from scoregen.models import UNet

    network = UNet((1, 28, 28), channels=(32, 64, 64))
    powers = PowerAverages(EMA(network))
    with tempfile.TemporaryDirectory() as folder:
        other = PostHocEMA(
            network, sigma_rels=LENGTHS, update_every=1, checkpoint_every_num_steps="manual", checkpoint_folder=folder
        )
        other.update()

        def timed(update: Callable[[], object]) -> float:
            start = time.process_time()
            for _ in range(repeats):
                update()
            return (time.process_time() - start) / repeats

        rows = [(timed(lambda: powers.update(64, 64_000)), timed(other.update)) for _ in range(rounds)]
    mine, peer = (statistics.median(column) for column in zip(*rows, strict=True))
    return mine, peer, sum(p.numel() for p in network.parameters())


def main() -> None:
    torch.set_num_threads(1)
    exact, spread = tracked()
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        sides = ours(Path(a)), theirs(Path(b))
    print("| length | error | of ema-pytorch |\n|---|---|---|")
    good = True
    for target in TARGETS:
        mine, peer = ((side[target] - exact[target]).square().mean().sqrt().item() / spread for side in sides)
        print(f"| {target} | {mine:.1e} | {peer:.1e} |")
        good &= mine <= peer
    mine, peer, size = times()
    print(
        f"\nan update of two averages of {size / 1e6:.2f} M parameters: {1e3 * mine:.2f} ms, ema-pytorch "
        f"{1e3 * peer:.2f} ms, ratio {mine / peer:.2f}"
    )
    sys.exit(0 if good and mine <= 0.5 * peer else 1)


if __name__ == "__main__":
    main()
