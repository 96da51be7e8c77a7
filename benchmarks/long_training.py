r"""Training loops of others until their models are useful, on our network and images: the peers of docs/results.md.

    python benchmarks/long_training.py --loop diffusers --data mnist --root PATH --out outputs/long_diffusers
    PYTHONPATH=PEERS python benchmarks/long_training.py --loop denoising-diffusion-pytorch --data mnist --root PATH \
        --out outputs/long_lucidrains

The network is the `UNet2DModel` inside `model=unet_small`, without labels, in bfloat16 where it is native; with 9,000
steps of 128 images the budget is six times that of conf/trainer/comparison.yaml. Ours beside it:

    python train.py +experiment=images/edm data=mnist data.root=PATH conditional=false trainer.steps=9000 \
        trainer.checkpoint_every=1000 hydra.run.dir=outputs/long_scoregen
    scoregen evaluate samples=outputs/long_diffusers/calls_035 data=mnist data.root=PATH \
        features.checkpoint=outputs/classifier_mnist metrics.subset=1000

Each peer has what its authors advise:

* diffusers' example for images: v-prediction, betas rescaled to zero terminal SNR, AdamW and `EMAModel` with the
  example's settings, cosine rate with warm-up; then `DDIMScheduler` with trailing time steps, with and without its
  default of clipping x_0 to [-1, 1] (`clipped_*`): it clips x_0 and keeps eps, an error that grows with the calls.
* denoising-diffusion-pytorch: its `GaussianDiffusion` (v-prediction, sigmoid schedule), `Trainer` and DDIM as they are.

The rate of learning is an option, since neither was made for small networks: --lr.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.training_peers import Unshuffled, learn, of_the_example
from scoregen.compat import repair_torchvision
from scoregen.data import MNIST, Batches, Digits, FashionMNIST, Source
from scoregen.models import UNet
from scoregen.progress import progress
from scoregen.training.precision import bf16_is_native

CALLS = (18, 35, 100)
SOURCES = {"mnist": MNIST, "fashion_mnist": FashionMNIST, "digits": lambda root: Digits()}
Shape = tuple[int, int, int]
Samplers = dict[str, "Sampler"]  # by the names of their folders
Sampler = Callable[[int, int], Tensor]  # calls, images -> images in [0, 1]


def batches(source: Source, steps: int, batch: int, seed: int) -> Iterator[Tensor]:
    for indices in progress(Batches(len(source.train), batch, 1, 0, 1, seed, 0, steps), description="training"):
        yield source.train.in_units(indices)[0]


def diffusers(net: nn.Module, shape: Shape, images: Iterator[Tensor], steps: int, lr: float) -> Samplers:
    r"""The loop of diffusers' train_unconditional.py; the sampler has the averaged weights."""
    from diffusers import DDIMScheduler, DDPMScheduler

    scheduler = DDPMScheduler(1000, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    optimizer, rate, ema = of_the_example(net, lr, steps)
    for x in images:
        clean, noise, t = 2 * x - 1, torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_native()):
            found = net(scheduler.add_noise(clean, noise, t), t).float()
        learn(functional.mse_loss(found, scheduler.get_velocity(clean, noise, t)), net, optimizer, rate, ema)
    ema.copy_to(net.parameters())
    net.eval()

    def sampler(calls: int, n: int, clip: bool = False) -> Tensor:
        ddim = DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing", clip_sample=clip)
        ddim.set_timesteps(calls)
        x = torch.randn(n, *shape)
        for t in progress(ddim.timesteps, description=f"DDIM, {calls} calls"):
            x = ddim.step(net(x, t), t, x).prev_sample
        return (x + 1) / 2

    return {"calls": sampler, "clipped": partial(sampler, clip=True)}


def lucidrains(net: nn.Module, shape: Shape, images: Iterator[Tensor], steps: int, lr: float) -> Samplers:
    r"""`denoising_diffusion_pytorch.Trainer`; it wants 100 files, which are not read."""
    repair_torchvision()
    from denoising_diffusion_pytorch import GaussianDiffusion
    from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Trainer
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        for k in range(100):
            Image.new("L", shape[1:]).save(f"{folder}/{k}.png")
        trainer = Trainer(
            GaussianDiffusion(net, image_size=shape[1:]),
            folder,
            train_lr=lr,
            train_num_steps=steps,
            save_and_sample_every=10**9,
            results_folder=f"{folder}/results",
            amp=bf16_is_native(),
            mixed_precision_type="bf16",
            calculate_fid=False,
        )
        trainer.dl = images
        trainer.train()
    diffusion = trainer.ema.ema_model.eval()
    net.load_state_dict(diffusion.model.state_dict())  # the averaged weights, which are saved

    def sampler(calls: int, n: int) -> Tensor:
        diffusion.sampling_timesteps, diffusion.is_ddim_sampling = calls, calls < diffusion.num_timesteps
        return diffusion.sample(batch_size=n)

    return {"calls": sampler}


LOOPS = {"diffusers": diffusers, "denoising-diffusion-pytorch": lucidrains}


@torch.no_grad()
def write(sampler: Sampler, n: int, seed: int, out: Path, name: str) -> None:
    for calls in CALLS:
        torch.manual_seed(seed)
        folder = out / f"{name}_{calls:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "samples.npz", images=sampler(calls, n).clamp(0, 1).numpy())
        print(folder / "samples.npz", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", choices=LOOPS, required=True)
    parser.add_argument("--data", choices=SOURCES, default="mnist")
    parser.add_argument("--root", default="data")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    source = SOURCES[options.data](options.root)
    patch = 1 if options.data == "digits" else 2
    net = Unshuffled(UNet(source.shape, (32, 64), layers=1, patch_size=patch).net, patch)
    images = batches(source, options.steps, options.batch, options.seed)
    begin = time.process_time()
    samplers = LOOPS[options.loop](net, source.shape, images, options.steps, options.lr)
    print(f"trained: {time.process_time() - begin:.0f} s of CPU", flush=True)
    save_file(net.state_dict(), options.out / "weights.safetensors")
    for name, sampler in samplers.items():
        write(sampler, options.n, options.seed, options.out, name)


if __name__ == "__main__":
    main()
