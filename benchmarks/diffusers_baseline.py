r"""diffusers' training example for image generation on our network and budget: the peer of docs/results.md.

DDPM's noise-prediction loss (`DDPMScheduler`, 1000 linear betas), AdamW with the example's betas and weight decay,
cosine schedule with warm-up, `EMAModel` with warm-up, bf16 where it is native; then `DDIMScheduler` with 18, 35 and 100
calls, with its default spacing of time steps ("leading") and with the one that suits few calls ("trailing"). The
network is the `UNet2DModel` inside `model=unet_small` (2 x 2 patches, labels), the number of images that of our run.

    python benchmarks/diffusers_baseline.py --data mnist --root PATH --steps 1500 --out outputs/diffusers_mnist
"""

import argparse
import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.training_peers import learn, of_the_example
from scoregen.data import MNIST, Batches, FashionMNIST
from scoregen.models import UNet
from scoregen.progress import progress
from scoregen.training.precision import bf16_is_native

SOURCES = {"mnist": MNIST, "fashion_mnist": FashionMNIST}


def train(net, source, steps: int, batch: int, lr: float, seed: int):
    r"""The example's loop; returns the averaged weights in the network."""
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer, rate, ema = of_the_example(net, lr, steps)
    generator = torch.Generator().manual_seed(seed)
    for indices in progress(Batches(len(source.train), batch, 1, 0, 1, seed, 0, steps), description="diffusers"):
        x, label = source.train.__getitems__(indices)
        clean = functional.pixel_unshuffle(2 * x - 1, 2)
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randint(0, 1000, (batch,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_native()):
            loss = functional.mse_loss(net(scheduler.add_noise(clean, noise, t), t, label).sample.float(), noise)
        learn(loss, net, optimizer, rate, ema)
    ema.copy_to(net.parameters())
    return scheduler


@torch.no_grad()
def sample(net, scheduler, calls: int, spacing: str, n: int, batch: int, seed: int) -> np.ndarray:
    r"""n images in [0, 1] by DDIM with `calls` network calls and random labels."""
    from diffusers import DDIMScheduler

    ddim = DDIMScheduler.from_config(scheduler.config, timestep_spacing=spacing)
    ddim.set_timesteps(calls)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for first in progress(range(0, n, batch), description=f"DDIM, {calls} calls"):
        label = torch.randint(0, 10, (min(batch, n - first),), generator=generator)
        x = torch.randn((len(label), 4, 14, 14), generator=generator)
        for t in ddim.timesteps:
            x = ddim.step(net(x, t, label).sample, t, x).prev_sample
        parts.append((functional.pixel_shuffle(x, 2) + 1).div(2).clamp(0, 1))
    return torch.cat(parts).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SOURCES, default="mnist")
    parser.add_argument("--root", default="data")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3, help="the example's 1e-4 is worse at this budget")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--spacing", nargs="+", default=["leading", "trailing"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    source = SOURCES[options.data](options.root)
    net = UNet(source.shape, (32, 64), layers=1, num_classes=10, patch_size=2).net
    scheduler = train(net, source, options.steps, options.batch, options.lr, options.seed)
    net.eval()
    for spacing, calls in product(options.spacing, (18, 35, 100)):
        folder = options.out / f"ddim_{spacing}_{calls:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        images = sample(net, scheduler, calls, spacing, options.n, 100, options.seed)
        np.savez(folder / "samples.npz", images=images)
        print(folder / "samples.npz")


if __name__ == "__main__":
    main()
