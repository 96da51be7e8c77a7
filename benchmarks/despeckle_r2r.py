r"""deepinv's R2RLoss with Gamma noise, on the U-Net, the optimizer and the steps of our run: one peer of despeckle.py.

    pip install --target PEERS --no-deps deepinv==0.5.0 einops natsort h5py torchmetrics lightning-utilities
    PYTHONPATH=PEERS python benchmarks/despeckle_r2r.py FILE.npz --looks 4 --out outputs/r2r_fashion_mnist_4

The network takes the logarithm of an intensity in our chart and gives one back, so that it starts as well as ours does;
R2RLoss is the squared error of intensities with its alpha = .15, and averages five corruptions at test.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
import scoregen  # noqa: E402
from scoregen.compat import repair_torchvision  # noqa: E402
from scoregen.losses import Loss  # noqa: E402
from scoregen.samplers import log_moments  # noqa: E402

repair_torchvision()
import deepinv  # noqa: E402

ALPHA = 0.15  # of R2RLoss


class OnIntensities(nn.Module):
    r"""A denoiser as a model of deepinv: intensities (B, 1, H, W) of given looks to intensities."""

    def __init__(self, denoiser: Any, looks: float) -> None:
        super().__init__()
        self.denoiser, self.chart = denoiser, denoiser.sde.chart.as_log()
        self.s = self.chart.rate * log_moments(looks)[1] ** 0.5

    def forward(self, y: Tensor, physics: object = None) -> Tensor:
        u = self.chart.rate * y.clamp_min(1e-6).log() + self.chart.shift
        found: Tensor = ((self.denoiser(u, self.s) - self.chart.shift) / self.chart.rate).exp()
        return found


class R2R(Loss):
    r"""deepinv's loss as one of ours, which the trainer takes.

    Args:
        looks: of the training images.
    """

    comparable = False

    def __init__(self, looks: float) -> None:
        super().__init__()
        self.looks = looks
        self.physics = deepinv.physics.Denoising(deepinv.physics.GammaNoise(looks))
        self.peer = deepinv.loss.R2RLoss(alpha=ALPHA)  # the noise is that of the physics

    def forward(self, model: Any, x_0: Tensor, *_: Any, **__: Any) -> Tensor:
        adapted = self.peer.adapt_model(OnIntensities(model, self.looks * (1 - ALPHA))).train()
        value: Tensor = self.peer(adapted(x_0, self.physics, update_parameters=True), x_0, self.physics, adapted)
        return value.expand(len(x_0))


def restorer(run: Path, looks: float, calls: int = 5) -> Callable[[Tensor], Tensor]:
    r"""The trained model with its averages over corruptions, as deepinv evaluates it."""
    model = OnIntensities(scoregen.load(run), looks * (1 - ALPHA))
    physics = deepinv.physics.Denoising(deepinv.physics.GammaNoise(looks))
    adapted = deepinv.loss.R2RLoss(alpha=ALPHA, eval_n_samples=calls).adapt_model(model).eval()

    def restore(intensity: Tensor) -> Tensor:
        torch.manual_seed(0)
        found: Tensor = adapted(intensity, physics)
        return found

    return restore


def main() -> None:
    from tiny import job

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--looks", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args, more = parser.parse_known_args()  # further keys of a training: trainer.steps=500
    keys = ["+experiment=despeckle_speckled", f"data.path={args.path}", f"loss.looks={args.looks}", *more]
    job("train", *keys, loss={"_target_": "despeckle_r2r.R2R", "looks": args.looks}).run(args.out)


if __name__ == "__main__":
    main()
