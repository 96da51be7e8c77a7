r"""One optimizer step over the micro-batches of a global batch.

Everything random or scheduled is a function of (seed, step, place in the global batch), so resuming changes
nothing, and the number of blocks (micro-batches times processes) into which a batch is cut changes nothing but
rounding. What a network does with a block as a whole is of that block: dropout masks, batch statistics.
"""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoregen.keys import Keys
from scoregen.losses import Loss
from scoregen.parallel import moved, rank, world_size
from scoregen.rng import Stream, generator, seed_all
from scoregen.training.parts import Parts
from scoregen.training.precision import autocast, mixed_precision
from scoregen.training.reading import Batch, batches
from scoregen.training.scaling import Scaling
from scoregen.training.schedule import Constant
from scoregen.training.sharding import full, is_sharded
from scoregen.training.skipping import bad, guarded_step


@dataclass(frozen=True)
class Quantiles:
    r"""Where the noise levels of a block of a batch lie in their law: (place + offset) / size.

    Args:
        places: in the global batch. offset: in [0, 1). size: of the global batch.
    """

    places: range
    offset: float
    size: int

    def on(self, device: torch.device) -> Tensor:
        r"""(B,), float64, computed on the device."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        numbers = torch.arange(self.places.start, self.places.stop, dtype=dtype, device=device)
        return (numbers + self.offset) / self.size


class Objective(nn.Module):
    r"""Model and loss as one module, so that distributed training sees all calls of the model in one forward pass.

    Args:
        model: what is trained. loss: its loss. precision: of autocast, "no", "bf16" or "fp16".
    """

    def __init__(self, model: nn.Module, loss: Loss, precision: str) -> None:
        super().__init__()
        self.model, self.loss, self.precision = model, loss, precision

    def forward(self, x: Tensor, label: Tensor | None, generator: Keys, quantile: Quantiles) -> Tensor:
        # distributed training may cast tensors that it is handed, so noise levels become tensors here
        with autocast(x.device, self.precision):
            losses: Tensor = self.loss(self.model, x, label, generator, quantile.on(x.device))
        return losses if losses.dtype.itemsize > 2 else losses.float()


class Step:
    r"""The steps of a training, one a call.

    Args:
        parts: of the training.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        objective = Objective(parts.model, parts.loss, mixed_precision(parts.settings.precision))
        if is_sharded(parts.model):  # which Accelerate would take for one to be copied
            self.objective = objective
            parts.accelerator.prepare(parts.optimizer, device_placement=[False])
        else:
            self.objective, _ = parts.accelerator.prepare(objective, parts.optimizer)
        self.batches = parts.settings.batches(len(parts.source.train), parts.seed, parts.progress.step)
        self.schedule = parts.settings.schedule or Constant()
        self.scaling = Scaling(parts.accelerator, parts.optimizer)
        self.parameters = [p for p in parts.model.parameters() if p.requires_grad]
        self._read: Iterator[Batch] | None = None

    def __call__(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""Does a step; the loss of this process's part of the batch, the gradient norm, and 1 if it was skipped."""
        parts, settings, step = self.parts, self.parts.settings, self.parts.progress.step
        parts.loss.at(step, settings.steps)
        factor = self.schedule(step, settings.steps)
        for group, rate in zip(parts.optimizer.param_groups, parts.rates, strict=True):
            group["lr"] = rate * factor
        value = self._gradients()
        self.scaling.unscale()
        clip = math.inf if settings.clip is None else settings.clip
        norm = full(parts.accelerator.clip_grad_norm_(self.parameters, clip))
        skipped = bad(norm)
        # Accelerate's own step looks for a package of LOMO each time, half a millisecond, and adds nothing here
        guarded_step(parts.optimizer, parts.optimizer.step, skipped)
        self.scaling.update()
        parts.ema.update(settings.batch_size, (step + 1) * settings.batch_size, skipped)
        if parts.powers is not None:
            parts.powers.update(settings.batch_size, (step + 1) * settings.batch_size)
        parts.optimizer.zero_grad(set_to_none=True)
        parts.progress.step += 1
        return value, norm, skipped

    def _gradients(self) -> Tensor:
        r"""The gradients of the global batch, and this process's part of its loss."""
        accelerator, accumulate = self.parts.accelerator, self.parts.settings.micro_batches
        value = torch.zeros((), device=accelerator.device)
        for micro in range(accumulate):
            with nullcontext() if micro == accumulate - 1 else accelerator.no_sync(self.objective):
                part = self._micro_batch(next(self._batches()), micro)
                accelerator.backward(part)  # its own number of micro-batches is 1: the mean is taken above
            value += part.detach()
        return value

    def _batches(self) -> Iterator[Batch]:
        if self._read is None:  # processes that read data start with the first step
            parts = self.parts
            self._read = batches(parts.source.train, self.batches, parts.settings.workers, parts.accelerator.device)
        return self._read

    def _micro_batch(self, batch: Batch, micro: int) -> Tensor:
        r"""This process's part of the mean loss of the global batch."""
        parts, seed, step = self.parts, self.parts.seed, self.parts.progress.step
        places, size = self.batches.positions(micro), self.parts.settings.batch_size
        device = parts.accelerator.device
        x, label = batch
        x, label = moved(x, device), None if label is None else moved(label, device)
        x = parts.source.train.units(x)  # bytes until here
        if parts.source.augmentation is not None:
            x = parts.source.augmentation(x, Keys(seed, Stream.AUGMENTATION, step, places))
        offset = torch.rand((), generator=generator(seed, Stream.LEVELS, step), dtype=torch.float64)
        quantile = Quantiles(places, offset.item(), size)
        seed_all(seed, Stream.DROPOUT, step, 0, micro * world_size() + rank())
        losses: Tensor = self.objective(x, label, Keys(seed, Stream.NOISE, step, places), quantile)
        return losses.sum() * (world_size() / size)
