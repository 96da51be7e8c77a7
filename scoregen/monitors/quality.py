r"""Quality of the samples during training."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from scoregen.checks import at_least
from scoregen.data import Source, Subset
from scoregen.metrics import FeatureExtractor, extract_features, frechet_distance, kernel_distance, reference_features
from scoregen.metrics.extraction import Measured
from scoregen.models import AbstractDenoiser
from scoregen.monitors.history import in_order, past_values
from scoregen.monitors.preview import cycled_labels
from scoregen.parallel import shard
from scoregen.rng import Stream, generator, generators
from scoregen.samplers import Sampler
from scoregen.sde import SDE
from scoregen.training import Hook, Moment


def keyed_subset(size: int, count: int) -> Tensor:
    r"""At most `count` of `size` indices: all in order, or always the same random ones."""
    if count >= size:
        return torch.arange(size)
    return torch.randperm(size, generator=generator(0, Stream.MONITOR))[:count]


class Quality(Hook):
    r"""Frechet and kernel distance of a fixed set of seeds, and the best checkpoint by the first.

    Args:
        source: its validation part is the reference, or its training part where it has none.
        sampler: makes the samples.
        features: what is compared; names the numbers.
        every: steps between evaluations.
        n: samples.
        reference: real images at most.
        seed: seed of the samples.
        batch_size: images at a time.

    Raises:
        ValueError: values out of range.
    """

    def __init__(
        self,
        source: Source,
        sampler: Sampler,
        features: FeatureExtractor,
        every: int,
        *,
        n: int = 1000,
        reference: int = 10_000,
        seed: int = 0,
        batch_size: int = 100,
    ) -> None:
        super().__init__(every)
        at_least(2, n=n, reference=reference)
        at_least(1, batch_size=batch_size)
        self.source, self.sampler, self.features = source, sampler, features
        self.n, self.reference, self.seed, self.batch_size = n, reference, seed, batch_size
        self._known: Tensor | None = None

    def samplers(self, sde: SDE) -> list[Sampler]:
        r"""What it samples with."""
        return [self.sampler]

    @torch.no_grad()
    def __call__(self, moment: Moment) -> None:
        name = self.features.frechet_name
        frechet, kernel = self.distances(moment.model, self.sampler)
        best = min(past_values(moment.folder, name, moment.step), default=math.inf)
        moment.log({name: frechet, "KD": kernel})
        if frechet < best:
            moment.save("best")

    def distances(self, model: nn.Module, sampler: Sampler) -> tuple[float, float]:
        r"""Frechet and kernel distance of the samples of a sampler, on every process."""
        device = next(model.parameters()).device
        images = self._samples(model, sampler)
        if not bool(images.isfinite().all()):  # no number, and not the best, but no reason to end the training
            return math.nan, math.nan
        generated = extract_features(self.features, Measured(images, self.source.range), device=device)
        real = self._real(device)
        return frechet_distance(generated, real), kernel_distance(generated, real).value

    def _real(self, device: torch.device) -> Tensor:
        if self._known is None:
            part = self.source.train if self.source.part("validation") is None else self.source.validation
            chosen = Subset(part, keyed_subset(len(part), self.reference))  # data may be sorted by class
            self._known = reference_features(chosen, self.features, data_range=self.source.range, device=device)
        return self._known

    def _samples(self, model: nn.Module, sampler: Sampler) -> Tensor:
        label, denoiser = cycled_labels(model, self.n), cast(AbstractDenoiser, model)
        parts = {}
        for first in shard(range(0, self.n, self.batch_size)):
            places = range(first, min(first + self.batch_size, self.n))
            draws = generators(self.seed, Stream.MONITOR, 0, places)
            chosen = None if label is None else label[places.start : places.stop]
            shape = (len(places), *self.source.shape)
            parts[first] = sampler(denoiser, shape, label=chosen, generator=draws).cpu()
        return in_order(parts)
