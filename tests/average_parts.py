r"""Weights that walk at random, for the tests of averages."""

import torch

from scoregen import averages
from scoregen.averages import LENGTHS, Moment
from scoregen.training.ema import EMA
from scoregen.training.power_averages import PowerAverages


class Walk(torch.nn.Module):
    r"""Weights, a running statistic and a count, moved from outside; float64."""

    def __init__(self, size=3):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(size, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(()).long())


def tracked(path, lengths, batch=64):
    r"""The averages of a path of weights (steps, size), and snapshots of the two that a training tracks."""
    model = Walk(path.shape[1])
    powers, steps = PowerAverages(EMA(model), lengths), len(path)
    kept, moments = averages.snapshot_steps(steps, 32), []
    for step, value in enumerate(path, 1):
        with torch.no_grad():
            model.w.copy_(value)
            model.mean.copy_(2 * value)
        powers.update(batch, step * batch)
        if step in kept:
            values = {one: {n: v.clone() for n, v in powers.values[one].items()} for one in LENGTHS}
            moments.append(Moment(step, step * batch, values))
    return powers, moments
