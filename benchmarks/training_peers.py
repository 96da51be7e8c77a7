r"""The training loops of denoising-diffusion-pytorch and diffusers' example, on the network of benchmarks/training.py.

Both get images as tensors in memory, which is quicker than the files that they read by themselves, and neither saves
nor samples. Their clocks run from the start of a step to the end of the last one.
"""

import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class Unshuffled(nn.Module):
    r"""A network on patches, called as both peers call theirs."""

    channels, out_dim, self_condition = 1, 1, False

    def __init__(self, net: nn.Module, size: int = 2) -> None:
        super().__init__()
        self.net, self.size = net, size

    def forward(self, x: Tensor, t: Tensor, x_self_cond: None = None) -> Tensor:
        found = self.net(functional.pixel_unshuffle(x, self.size), t, return_dict=False)[0]
        return functional.pixel_shuffle(found, self.size)


class Clocked:
    r"""Batches without end; notes when the batch of a step was asked for.

    Args:
        images: (N, 1, H, W). batch: of a step. first: step at which the clock starts.
    """

    def __init__(self, images: Tensor, batch: int, first: int) -> None:
        self.loader, self.first, self.start = DataLoader(TensorDataset(images), batch, shuffle=True), first, 0.0

    def __iter__(self) -> Iterator[Tensor]:
        step = 0
        while True:
            for (x,) in self.loader:
                if step == self.first:
                    self.start = time.perf_counter()
                yield x
                step += 1


def lucidrains_seconds(net: nn.Module, images: Tensor, steps: int, batch: int, precision: str) -> float:
    r"""Seconds a step of `denoising_diffusion_pytorch.Trainer`, after `steps` steps that do not count."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer
    from PIL import Image

    diffusion = GaussianDiffusion(Unshuffled(net), image_size=images.shape[-1], timesteps=1000)
    with tempfile.TemporaryDirectory() as folder:
        for k in range(100):  # the least that its data set takes; they are not read
            Image.new("L", images.shape[-2:]).save(f"{folder}/{k}.png")
        trainer = Trainer(
            diffusion,
            folder,
            train_batch_size=batch,
            train_num_steps=2 * steps,
            save_and_sample_every=10**9,
            results_folder=f"{folder}/results",
            amp=precision == "bf16",
            mixed_precision_type="bf16",
            calculate_fid=False,
        )
        clocked = Clocked(images, batch, steps)
        trainer.dl = iter(clocked)
        trainer.train()
    return (time.perf_counter() - clocked.start) / steps


def of_the_example(net: nn.Module, lr: float, steps: int) -> tuple[Any, Any, Any]:
    r"""Optimizer, rate and averages of diffusers' train_unconditional.py, with a warm-up of a tenth, 500 at most."""
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel

    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    rate = get_cosine_schedule_with_warmup(optimizer, min(500, steps // 10), steps)
    return optimizer, rate, EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)


def learn(loss: Tensor, net: nn.Module, optimizer: Any, rate: Any, ema: Any) -> None:
    r"""A step of the example: gradients of norm 1 at most, the rate of the next step, averages."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    rate.step()
    optimizer.zero_grad()
    ema.step(net.parameters())


def diffusers_seconds(net: nn.Module, images: Tensor, steps: int, batch: int, precision: str) -> float:
    r"""Seconds a step of the loop of diffusers' examples/unconditional_image_generation/train_unconditional.py."""
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from tqdm import tqdm

    accelerator = Accelerator(mixed_precision=precision)
    model = Unshuffled(net)
    optimizer, rate, ema = of_the_example(model, lr=1e-4, steps=10_000)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    model, optimizer, rate = accelerator.prepare(model, optimizer, rate)
    ema.to(accelerator.device)
    clocked = Clocked(images, batch, steps)
    bar = tqdm(total=2 * steps, disable=None)
    for step, clean in zip(range(2 * steps), clocked, strict=False):
        clean = (2 * clean - 1).to(accelerator.device)
        noise = torch.randn(clean.shape, device=clean.device)
        t = torch.randint(0, 1000, (len(clean),), device=clean.device).long()
        noisy = scheduler.add_noise(clean, noise, t)
        with accelerator.accumulate(model):
            loss = functional.mse_loss(model(noisy, t).float(), noise.float())
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            ema.step(model.parameters())
            bar.update(1)
        bar.set_postfix(loss=loss.detach().item(), lr=rate.get_last_lr()[0], step=step, ema=ema.cur_decay_value)
    bar.close()
    return (time.perf_counter() - clocked.start) / steps


PEERS = {"denoising-diffusion-pytorch": lucidrains_seconds, "diffusers' example": diffusers_seconds}
