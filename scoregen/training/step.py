r"""One optimizer step over the micro-batches of a global batch.

Everything random or scheduled is a function of (seed, step, place in the global batch), so resuming changes
nothing, and the number of blocks (micro-batches times processes) into which a batch is cut changes nothing but
rounding. What a network does with a block as a whole is of that block: dropout masks, batch statistics.
"""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from scoregen.errors import UserError
from scoregen.losses import Loss
from scoregen.parallel import rank, world_size
from scoregen.rng import Stream, generator, generators, seed_all
from scoregen.training.parts import Parts
from scoregen.training.precision import autocast, mixed_precision
from scoregen.training.schedule import Constant
from scoregen.training.sharding import full, is_sharded

Batch = tuple[Tensor, Tensor | None]


class Objective(nn.Module):
    r"""Model and loss as one module, so that distributed training sees all calls of the model in one forward pass.

    Args:
        model: what is trained. loss: its loss. precision: of autocast, "no", "bf16" or "fp16".
    """

    def __init__(self, model: nn.Module, loss: Loss, precision: str) -> None:
        super().__init__()
        self.model, self.loss, self.precision = model, loss, precision

    def forward(
        self, x: Tensor, label: Tensor | None, generator: list[torch.Generator], quantile: list[float]
    ) -> Tensor:
        # distributed training takes tensors to the device, numbers stay; noise levels are float64 on the CPU
        with autocast(x.device, self.precision):
            losses: Tensor = self.loss(self.model, x, label, generator, torch.tensor(quantile, dtype=torch.float64))
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
            self.optimizer = parts.accelerator.prepare(parts.optimizer, device_placement=[False])
        else:
            self.objective, self.optimizer = parts.accelerator.prepare(objective, parts.optimizer)
        self.batches = parts.settings.batches(len(parts.source.train), parts.seed, parts.progress.step)
        self.schedule = parts.settings.schedule or Constant()
        self.parameters = [p for p in parts.model.parameters() if p.requires_grad]
        self._read: Iterator[Batch] | None = None

    def __call__(self) -> tuple[Tensor, Tensor]:
        r"""Does a step and counts it; the loss of this process's part of the batch, and the gradient norm.

        Raises:
            UserError: the gradient was not finite `max_skipped` times in a row.
        """
        parts, settings, step = self.parts, self.parts.settings, self.parts.progress.step
        parts.loss.at(step, settings.steps)
        factor = self.schedule(step, settings.steps)
        for group, rate in zip(parts.optimizer.param_groups, parts.rates, strict=True):
            group["lr"] = rate * factor
        value = self._gradients()
        clip = math.inf if settings.clip is None else settings.clip
        norm = full(parts.accelerator.clip_grad_norm_(self.parameters, clip))
        if torch.isfinite(norm):  # one wait for the device a step: an optimizer must not see a bad gradient
            self.optimizer.step()
            parts.ema.update(settings.batch_size, (step + 1) * settings.batch_size)
            parts.progress.skipped_in_a_row = 0
        else:
            self._skip(value)
        parts.optimizer.zero_grad(set_to_none=True)
        parts.progress.step += 1
        return value, norm

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
            train = cast("Dataset[Batch]", self.parts.source.train)
            workers = self.parts.settings.workers
            self._read = iter(DataLoader(train, batch_sampler=self.batches, collate_fn=_as_is, num_workers=workers))
        return self._read

    def _micro_batch(self, batch: Batch, micro: int) -> Tensor:
        r"""This process's part of the mean loss of the global batch."""
        parts, seed, step = self.parts, self.parts.seed, self.parts.progress.step
        places, size = self.batches.positions(micro), self.parts.settings.batch_size
        device = parts.accelerator.device
        x, label = batch
        x, label = x.to(device, non_blocking=True), None if label is None else label.to(device, non_blocking=True)
        x = parts.source.train.units(x)  # bytes until here
        if parts.source.augmentation is not None:
            x = parts.source.augmentation(x, generators(seed, Stream.AUGMENTATION, step, places))
        offset = torch.rand((), generator=generator(seed, Stream.LEVELS, step), dtype=torch.float64)
        quantile = (torch.tensor(list(places), dtype=torch.float64) + offset) / size
        seed_all(seed, Stream.DROPOUT, step, 0, micro * world_size() + rank())
        losses: Tensor = self.objective(x, label, generators(seed, Stream.NOISE, step, places), quantile.tolist())
        return losses.sum() * (world_size() / size)

    def _skip(self, value: Tensor) -> None:
        progress, settings = self.parts.progress, self.parts.settings
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        if progress.skipped_in_a_row >= settings.max_skipped:
            raise UserError(
                f"the loss or its gradient was not finite {progress.skipped_in_a_row} times in a row (max_skipped="
                f"{settings.max_skipped}; step {progress.step + 1}, loss {value.item():.4g}, learning rate "
                f"{self.parts.optimizer.param_groups[0]['lr']:.3g})."
            )


def _as_is(batch: Any) -> Any:
    return batch
