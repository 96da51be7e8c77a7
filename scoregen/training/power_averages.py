r"""Power averages of the weights, which a training tracks so that averages of other lengths can be had after it.

    a <- a + (1 - (1 - n/t)^(g+1)) (w - a),     n images in a step, t seen until its end; g: `scoregen.averages`

The first step copies the weights. Over the steps the weight of w_k in the average is exactly the integral of the
profile over the k-th step, so that constant weights are kept.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from scoregen.average_lengths import decay
from scoregen.averages import LENGTHS, Moment, read, snapshots
from scoregen.errors import UserError
from scoregen.training.ema import EMA


class PowerAverages:
    r"""Averages of the weights and running statistics that an `EMA` follows.

    Args:
        ema: it knows what is followed.
        lengths: of the averages: standard deviation of the profile, as a share of the training.

    Reference: Karras et al. (2024), arXiv 2312.02696, equation 127.
    """

    def __init__(self, ema: EMA, lengths: Sequence[float] = LENGTHS) -> None:
        self.ema = ema
        self.values = {length: {name: w.clone() for name, w in ema.sources().items()} for length in lengths}

    @torch.no_grad()
    def update(self, batch: int, images: int) -> None:
        r"""One step of `batch` images after `images` images were seen (this batch included).

        A step that was skipped counts too: it has left the weights as they were.
        """
        sources = list(self.ema.sources().values())
        for length, values in self.values.items():
            torch._foreach_lerp_(list(values.values()), sources, 1 - decay(length, batch, images))

    def moment(self, step: int, images: int) -> Moment:
        r"""The averages now, without a copy."""
        return Moment(step, images, self.values)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        r"""Restores saved averages.

        Raises:
            UserError: they are missing, damaged, or of another model.
        """
        found = read(path).values
        for length, values in self.values.items():
            _refuse_others(path, values, found.get(length, {}))
            for name, value in values.items():
                value.copy_(found[length][name])


def _refuse_others(path: Path, own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, value in own.items():
        if name not in found or found[name].shape != value.shape:
            raise UserError(f"checkpoint: '{path}' does not fit the model: '{name}'. Use an earlier checkpoint.")


def begin_snapshots(run: Path, step: int) -> None:
    r"""Removes snapshots of later steps than the one that a run goes on from: it makes them again."""
    for at, path in snapshots(run).items():
        if at > step:
            path.unlink()
