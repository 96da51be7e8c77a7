r"""Training loops of others until their models are useful, on our network and images: the peers of docs/results.md.

    python benchmarks/long_training.py --loop diffusers --out outputs/long_diffusers
    PYTHONPATH=PEERS python benchmarks/long_training.py --loop denoising-diffusion-pytorch --out outputs/long_lucidrains

The network is the `UNet2DModel` inside `data=digits model.network.channels=[32,64]`, without labels; the images are
the 1,617 digits of the training part, 128 a step. Ours beside it:

    python train.py data=digits conditional=false model.network.channels=[32,64] trainer.steps=9000 \
        trainer.batch_size=128 trainer.ema_halflife=20000 trainer.resume=auto hydra.run.dir=outputs/long_scoregen
    scoregen evaluate samples=outputs/long_diffusers/calls_035 data=digits features=pixels n=1000

Each peer has what its authors advise:

* diffusers' example for images: v-prediction, betas rescaled to zero terminal SNR, AdamW and `EMAModel` with the
  example's settings, cosine rate with warm-up; then `DDIMScheduler` with trailing time steps.
* denoising-diffusion-pytorch: its `GaussianDiffusion` (v-prediction, sigmoid schedule), `Trainer` and DDIM as they are.

The rate of learning is an option, since neither was made for small networks: --lr.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.training_peers import Unshuffled, learn, of_the_example
from scoregen.compat import repair_torchvision
from scoregen.data import Batches, Digits
from scoregen.models import UNet
from scoregen.progress import progress

CALLS = (18, 35, 100)
Sampler = Callable[[int, int], Tensor]  # calls, images -> images in [0, 1]


def batches(source: Digits, steps: int, batch: int, seed: int) -> Iterator[Tensor]:
    for indices in progress(Batches(len(source.train), batch, 1, 0, 1, seed, 0, steps), description="training"):
        yield source.train.__getitems__(indices)[0]


def diffusers(net: nn.Module, images: Iterator[Tensor], steps: int, lr: float) -> Sampler:
    r"""The loop of diffusers' train_unconditional.py; the sampler has the averaged weights."""
    from diffusers import DDIMScheduler, DDPMScheduler

    scheduler = DDPMScheduler(1000, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    optimizer, rate, ema = of_the_example(net, lr, steps)
    for x in images:
        clean, noise, t = 2 * x - 1, torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        found = net(scheduler.add_noise(clean, noise, t), t).sample
        learn(functional.mse_loss(found, scheduler.get_velocity(clean, noise, t)), net, optimizer, rate, ema)
    ema.copy_to(net.parameters())
    net.eval()

    def sampler(calls: int, n: int) -> Tensor:
        ddim = DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")
        ddim.set_timesteps(calls)
        x = torch.randn(n, 1, 8, 8)
        for t in ddim.timesteps:
            x = ddim.step(net(x, t).sample, t, x).prev_sample
        return (x + 1) / 2

    return sampler


def lucidrains(net: nn.Module, images: Iterator[Tensor], steps: int, lr: float) -> Sampler:
    r"""`denoising_diffusion_pytorch.Trainer`; it wants 100 files, which are not read."""
    repair_torchvision()
    from denoising_diffusion_pytorch import GaussianDiffusion
    from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Trainer
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        for k in range(100):
            Image.new("L", (8, 8)).save(f"{folder}/{k}.png")
        options = {"save_and_sample_every": 10**9, "results_folder": f"{folder}/results", "calculate_fid": False}
        trainer = Trainer(
            GaussianDiffusion(Unshuffled(net, 1), image_size=8), folder, train_lr=lr, train_num_steps=steps, **options
        )
        trainer.dl = images
        trainer.train()
    diffusion = trainer.ema.ema_model.eval()

    def sampler(calls: int, n: int) -> Tensor:
        diffusion.sampling_timesteps, diffusion.is_ddim_sampling = calls, calls < diffusion.num_timesteps
        return diffusion.sample(batch_size=n)

    return sampler


LOOPS = {"diffusers": diffusers, "denoising-diffusion-pytorch": lucidrains}


@torch.no_grad()
def write(sampler: Sampler, n: int, seed: int, out: Path) -> None:
    for calls in CALLS:
        torch.manual_seed(seed)
        folder = out / f"calls_{calls:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "samples.npz", images=sampler(calls, n).clamp(0, 1).numpy())
        print(folder / "samples.npz", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", choices=LOOPS, required=True)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    source, net = Digits(), UNet((1, 8, 8), (32, 64), layers=1).net
    images = batches(source, options.steps, options.batch, options.seed)
    loop = partial(LOOPS[options.loop], net, images, options.steps, options.lr)
    write(loop(), options.n, options.seed, options.out)


if __name__ == "__main__":
    main()
