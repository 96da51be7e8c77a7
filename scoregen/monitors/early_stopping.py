r"""Early stopping on the held-out loss."""

from pathlib import Path

import torch
from torch import Tensor, nn

from scoregen.checks import at_least
from scoregen.data import Dataset, Source
from scoregen.losses import Loss
from scoregen.monitors.history import in_order, past_values, validation_part
from scoregen.parallel import shard
from scoregen.rng import Stream, generators
from scoregen.training import Hook, Moment


class EarlyStopping(Hook):
    r"""Stops when the held-out denoising score-matching loss has not improved for `patience` evaluations.

        Noise and noise levels are frozen: every evaluation sees the same noisy images, so differences are those of the
        weights. The same number of training images is evaluated too; the excess of the held-out over the training loss
        in each quantile of the noise levels shows where the network has begun to memorise.

    Args:
        source: its validation part is held out.
        loss: the training loss, called without gradients.
        every: steps between evaluations.
        patience: evaluations without improvement that end the run.
        n: noisy images of each part; a part with fewer images is repeated, with other noise.
        bins: quantiles of the noise level that are logged.
        seed: seed of the frozen noise.
        batch_size: images at a time.

    Raises:
        ValueError: values out of range, or a loss whose values at different steps do not compare.
        UserError: no validation part.

    Reference: arXiv 2401.15604 (early stopping of score matching).
    """

    def __init__(
        self,
        source: Source,
        loss: Loss,
        every: int,
        *,
        patience: int = 10,
        n: int = 1000,
        bins: int = 4,
        seed: int = 0,
        batch_size: int = 250,
    ) -> None:
        super().__init__(every)
        at_least(1, patience=patience, n=n, bins=bins, batch_size=batch_size)
        at_least(bins, n=n)
        if not loss.comparable:
            raise ValueError(
                f"every must be null for {type(loss).__name__}: its values at different steps do not compare. Watch "
                f"samples (quality, few_calls) or accuracy instead."
            )
        self.held_out = validation_part(source, "early_stopping.every")
        self.source, self.loss = source, loss
        self.patience, self.n, self.bins, self.seed, self.batch_size = patience, n, bins, seed, batch_size

    def begin(self, folder: Path, step: int) -> None:
        # a run that stopped continues only with more patience
        self.stop = self._exhausted(past_values(folder, "heldout_loss", step + 1))

    @torch.no_grad()
    def __call__(self, moment: Moment) -> None:
        held_out = self._losses(moment.model, self.held_out)
        values = self._numbers(held_out, self._losses(moment.model, self.source.train))
        history = [*past_values(moment.folder, "heldout_loss", moment.step), values["heldout_loss"]]
        moment.log(values)
        if min(history) not in history[:-1]:
            moment.save("best_heldout")
        self.stop = self._exhausted(history)

    def _numbers(self, held_out: Tensor, training: Tensor) -> dict[str, float]:
        excess = held_out.mean() - training.mean()
        values = {"heldout_loss": held_out.mean().item(), "heldout_excess": excess.item()}
        pairs = zip(held_out.tensor_split(self.bins), training.tensor_split(self.bins), strict=True)
        return values | {f"heldout_excess_bin{k}": (a.mean() - b.mean()).item() for k, (a, b) in enumerate(pairs)}

    def _exhausted(self, history: list[float]) -> bool:
        return len(history) > 0 and len(history) - 1 - history.index(min(history)) >= self.patience

    def _losses(self, model: nn.Module, data: Dataset) -> Tensor:
        r"""The loss of n noisy images in the order of their frozen noise levels, low to high, on every process."""
        device = next(model.parameters()).device
        parts = {}
        for first in shard(range(0, self.n, self.batch_size)):
            places = range(first, min(first + self.batch_size, self.n))
            x, label = data.in_units([place % len(data) for place in places])
            # levels run through the law once, in the order of the images, which is itself without meaning
            quantile = (torch.tensor(list(places), dtype=torch.float64) + 0.5) / self.n
            draws = generators(self.seed, Stream.FROZEN, 0, places)
            label = None if label is None else label.to(device)
            parts[first] = self.loss(model, x.to(device), label, draws, quantile).float().cpu()
        return in_order(parts)
