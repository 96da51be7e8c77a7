r"""Accuracy of a classifier during its training."""

import torch
from torch import nn

from scoregen.checks import at_least
from scoregen.data import Source
from scoregen.losses import Loss
from scoregen.monitors.history import past_values, validation_part
from scoregen.parallel import gather, shard
from scoregen.rng import Stream, generators, randn
from scoregen.training import Hook, Moment


class Accuracy(Hook):
    r"""The share of the held-out images that a classifier gets right, under the noise that it is trained for.

    Args:
        source: its validation part is used, or its test part where it has none.
        loss: its `noise_sigma`, if it has one, is the noise.
        every: steps between evaluations.
        seed: seed of the noise.
        batch_size: images at a time.
        keep_best: keeps checkpoints/best; needs a validation part.

    Raises:
        ValueError: values out of range.
        UserError: `keep_best` without a validation part.
    """

    def __init__(
        self,
        source: Source,
        loss: Loss | None,
        every: int,
        *,
        seed: int = 0,
        batch_size: int = 250,
        keep_best: bool = False,
    ) -> None:
        super().__init__(every)
        at_least(1, batch_size=batch_size)
        if keep_best:
            validation_part(source, "accuracy.keep_best")
        self.source, self.loss, self.seed = source, loss, seed
        self.batch_size, self.keep_best = batch_size, keep_best

    @torch.no_grad()
    def __call__(self, moment: Moment) -> None:
        accuracy = self._measure(moment.model)
        past = past_values(moment.folder, "accuracy", moment.step) if self.keep_best else []
        moment.log({"accuracy": accuracy})
        if self.keep_best and accuracy > max(past, default=-1.0):  # the first one is kept, whatever it is
            moment.save("best")

    def _measure(self, model: nn.Module) -> float:
        part = self.source.test if self.source.part("validation") is None else self.source.validation
        device = next(model.parameters()).device
        sigma = float(getattr(self.loss, "noise_sigma", 0.0))
        right = 0
        for first in shard(range(0, len(part), self.batch_size)):
            x, label = part.in_units(slice(first, first + self.batch_size))
            if sigma > 0:
                places = range(first, first + len(x))
                x = x + sigma * randn(x.shape, generators(self.seed, Stream.FROZEN, 0, places))
            right += int((model(x.to(device)).argmax(1).cpu() == label).sum())
        return sum(gather(right)) / len(part)
