r"""What a run may watch as it trains: the held-out loss, to stop early; its samples, to keep the best."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from scoregen.commands.hooks import SAMPLE_STREAM, cycled_labels
from scoregen.data import ArrayDataset, Source
from scoregen.losses import Loss
from scoregen.metrics import FeatureExtractor, extract_features, frechet_distance, kernel_distance, reference_features
from scoregen.metrics.extraction import uint8_round_trip
from scoregen.parallel import gather, shard
from scoregen.rng import generators, randn
from scoregen.samplers import Sampler
from scoregen.sde import SDE
from scoregen.training import Hook, Moment
from scoregen.training.loggers import read_metrics

_FROZEN = 12  # stream of the held-out noise


def keyed_subset(size: int, count: int) -> Tensor:
    r"""At most `count` of `size` indices: all in order, or always the same random ones."""
    if count >= size:
        return torch.arange(size)
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))[:count]


class EarlyStopping(Hook):
    r"""Stops when the held-out denoising score-matching loss has not improved for `patience` evaluations.

        Noise and noise levels are frozen: every evaluation sees the same noisy images, so differences are those of the
        weights. The same number of training images is evaluated too; the excess of the held-out over the training loss
        in each quantile of the noise levels shows where the network has begun to memorise.

    Args:
        source: its `test` part is held out. loss: the training loss, called without gradients.
        every: steps between evaluations. patience: evaluations without improvement that end the run.
        n: noisy images of each part; a part with fewer images is gone through again, with other noise.
        bins: quantiles of the noise level that are logged.
        seed: of the frozen noise. batch_size: images at a time.

    Reference: arXiv 2401.15604 (early stopping of score matching).
    """

    def __init__(
        self,
        source: Source,
        loss: Loss,
        every: int,
        patience: int = 10,
        n: int = 1000,
        bins: int = 4,
        seed: int = 0,
        batch_size: int = 250,
    ) -> None:
        super().__init__(every)
        if min(patience, n, bins, batch_size) < 1 or n < bins:
            raise ValueError(
                f"patience, n, bins and batch_size must be >= 1 and n >= bins, "
                f"got patience={patience}, n={n}, bins={bins}, batch_size={batch_size}."
            )
        if not loss.comparable:
            raise ValueError(
                f"every must be null for {type(loss).__name__}, whose values at different steps or in other batches do "
                f"not compare; watch samples (quality, few_calls) or accuracy instead."
            )
        self.source, self.loss = source, loss
        self.patience, self.n, self.bins, self.seed, self.batch_size = patience, n, bins, seed, batch_size

    def begin(self, folder: Path, step: int) -> None:
        self.stop = self._exhausted(self._past(folder, step + 1))  # a run that stopped goes on with more patience only

    @torch.no_grad()
    def __call__(self, moment: Moment) -> None:
        held_out = self._losses(moment.model, self.source.test)
        training = self._losses(moment.model, self.source.train)
        values = {"heldout_loss": held_out.mean().item(), "heldout_excess": (held_out.mean() - training.mean()).item()}
        for k, (a, b) in enumerate(
            zip(held_out.tensor_split(self.bins), training.tensor_split(self.bins), strict=True)
        ):
            values[f"heldout_excess_bin{k}"] = (a.mean() - b.mean()).item()
        history = [*self._past(moment.folder, moment.step), values["heldout_loss"]]
        moment.log(values)
        if min(history) not in history[:-1]:
            moment.save("best_heldout")
        self.stop = self._exhausted(history)

    def _past(self, folder: Path, before: int) -> list[float]:
        r"""The held-out losses of a run up to a step, the first process's on all."""
        lines = [v for v in read_metrics(folder) if v["step"] < before]
        return gather([v["heldout_loss"] for v in lines if "heldout_loss" in v])[0]

    def _exhausted(self, history: list[float]) -> bool:
        return len(history) > 0 and len(history) - 1 - history.index(min(history)) >= self.patience

    def _losses(self, model: nn.Module, data: ArrayDataset) -> Tensor:
        r"""The loss of n noisy images in the order of their frozen noise levels, low to high, on every process."""
        n = self.n
        device = next(model.parameters()).device
        parts = {}
        for first in shard(range(0, n, self.batch_size)):
            places = range(first, min(first + self.batch_size, n))
            x, label = data[[place % len(data) for place in places]]
            # levels run through the law once, in the order of the images, which is itself without meaning
            quantile = (torch.tensor(list(places), dtype=torch.float64) + 0.5) / n
            draws = generators(self.seed, _FROZEN, 0, places)
            label = None if label is None else label.to(device)
            parts[first] = self.loss(model, x.to(device), label, draws, quantile).float().cpu()
        found = {first: value for part in gather(parts) for first, value in part.items()}
        return torch.cat([found[first] for first in sorted(found)])


class Quality(Hook):
    r"""Frechet and kernel distance of a fixed set of seeds, and the best checkpoint by the first.

    Args:
        source: its `train` part is the reference. sampler: makes the samples.
        features: what is compared; names the numbers.
        every: steps. n: samples. reference: real images at most. seed: of the samples. batch_size: images at a time.
    """

    def __init__(
        self,
        source: Source,
        sampler: Sampler,
        features: FeatureExtractor,
        every: int,
        n: int = 1000,
        reference: int = 10_000,
        seed: int = 0,
        batch_size: int = 100,
    ) -> None:
        super().__init__(every)
        if min(n, reference) < 2 or batch_size < 1:
            raise ValueError(f"n and reference must be >= 2, batch_size >= 1, got {n}, {reference} and {batch_size}.")
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
        values = {name: frechet, "KD": kernel}
        past = [v[name] for v in read_metrics(moment.folder) if name in v and v["step"] < moment.step]
        best = min(gather(past)[0], default=float("inf"))
        moment.log(values)
        if values[name] < best:
            moment.save("best")

    def distances(self, model: nn.Module, sampler: Sampler) -> tuple[float, float]:
        r"""Frechet and kernel distance of the samples of a sampler, on every process."""
        device = next(model.parameters()).device
        images = self._samples(model, sampler)
        if not bool(images.isfinite().all()):  # no number, and not the best, but no reason to end the training
            return float("nan"), float("nan")
        if len(self.source.shape) == 3:
            images = uint8_round_trip(images)
        generated = extract_features(self.features, images, device=device)
        real = self._real(device)
        return frechet_distance(generated, real), kernel_distance(generated, real).value

    def _real(self, device: torch.device) -> Tensor:
        if self._known is None:
            part = self.source.train
            chosen = keyed_subset(len(part), self.reference)  # data may be sorted by class
            images, uint8 = ArrayDataset(part[chosen][0]), len(self.source.shape) == 3
            self._known = reference_features(images, self.features, uint8=uint8, device=device)
        return self._known

    def _samples(self, model: nn.Module, sampler: Sampler) -> Tensor:
        label = cycled_labels(model, self.n)
        parts = {}
        for first in shard(range(0, self.n, self.batch_size)):
            places: Sequence[int] = range(first, min(first + self.batch_size, self.n))
            draws = generators(self.seed, SAMPLE_STREAM, 0, places)
            chosen = None if label is None else label[places.start : places.stop]
            parts[first] = sampler(model, (len(places), *self.source.shape), label=chosen, generator=draws).cpu()
        found = {first: value for part in gather(parts) for first, value in part.items()}
        return torch.cat([found[first] for first in sorted(found)])


class Accuracy(Hook):
    r"""The share of the held-out images that a classifier gets right, under the noise that it is trained for.

    Args:
        source: its `test` part is used. loss: its `noise_sigma`, if it has one, is the noise.
        every: steps. seed: of the noise. batch_size: images at a time.
        keep_best: keeps checkpoints/best; for data whose held-out part comes from the training part (data.validation).
    """

    def __init__(
        self, source: Source, loss: Loss, every: int, seed: int = 0, batch_size: int = 250, keep_best: bool = False
    ) -> None:
        super().__init__(every)
        if keep_best and not getattr(source, "validation", 0):
            raise ValueError(
                "keep_best needs a validation part, else it would select on test data; give data.validation."
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got batch_size={batch_size}.")
        self.keep_best = keep_best
        self.source, self.noise_sigma = source, float(getattr(loss, "noise_sigma", 0.0))
        self.seed, self.batch_size = seed, batch_size

    @torch.no_grad()
    def __call__(self, moment: Moment) -> None:
        test, device = self.source.test, next(moment.model.parameters()).device
        right = 0
        for first in shard(range(0, len(test), self.batch_size)):
            x, label = test[first : first + self.batch_size]
            if self.noise_sigma > 0:
                draws = generators(self.seed, _FROZEN, 0, range(first, first + len(x)))
                x = x + self.noise_sigma * randn(x.shape, draws)
            right += int((moment.model(x.to(device)).argmax(1).cpu() == label).sum())
        accuracy = sum(gather(right)) / len(test)
        if self.keep_best:
            past = [v["accuracy"] for v in read_metrics(moment.folder) if "accuracy" in v and v["step"] < moment.step]
            best = gather(max(past, default=-1.0))[0]  # the first one is kept, whatever it is
        moment.log({"accuracy": accuracy})
        if self.keep_best and accuracy > best:
            moment.save("best")
