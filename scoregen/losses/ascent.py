r"""Inner attacks of a training: steps that make the label of the soft smoothed classifier F = mean_j p_j less probable.

    x <- P(x + step g/|g|),   g = grad_x [log(1 - F(x)_label) - log F(x)_label]

g points where the gradient of the usual loss -log F_label points, because both are monotone in F_label. It is large
where F_label is near 1 and that of the usual loss vanishes in the rounding. P keeps to the range of the data and to a
ball around the input.

Reference: Salman et al. (2019), arXiv 1906.04584, section 2.2, where the attack is called SmoothAdv_PGD.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoregen import checks
from scoregen.losses.noisy_copies import Classifier, log_probabilities, one_hot
from scoregen.sde.path import expand

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Ascent:
    r"""Normalised gradient steps away from the label, with noise that is fixed.

        The classifier is called in evaluation mode: running statistics of batch norm, no dropout. So the attack on an
        input depends on no other input and leaves the statistics as they were. Parameters get no gradient.

    Args:
        steps: number of steps T; 0 gives the input back.
        length: l2 length of a step, in units of x.
        radius: of the l2 ball around the input, in units of x; None: no bound but that of the steps.
        data_range: least and largest value of a point, or None. An input outside is not moved to it: only steps that
            lead away from the range are cut.
    """

    steps: int
    length: float
    radius: float | None
    data_range: tuple[float, float] | None

    def __call__(self, model: Classifier, x: Tensor, label: Tensor, noise: Tensor) -> Tensor:
        r"""The point (B, *S) after the last step, without a graph.

        Args:
            model: the classifier. x: inputs (B, *S). label: (B,). noise: (m, B, *S).
        """
        x = point = x.detach()
        with evaluating(model), torch.enable_grad():
            for _ in range(self.steps):
                point = self.projected(point + self.length * direction(model, point, label, noise), x)
        return point

    def projected(self, point: Tensor, x: Tensor) -> Tensor:
        r"""The point in the range of the data, then drawn to x until it lies in the ball: within both."""
        if self.data_range is not None:
            low, high = self.data_range
            point = point.clamp(x.clamp_max(low), x.clamp_min(high))
        if self.radius is not None:
            delta = point - x
            size = torch.linalg.vector_norm(delta.flatten(1), dim=1)
            point = x + delta * expand(self.radius / size.clamp_min(max(self.radius, _TINY)), delta)
        return point


def direction(model: Classifier, x: Tensor, label: Tensor, noise: Tensor) -> Tensor:
    r"""g/|g| of each input (B, *S); 0 where the gradient is 0."""
    x = x.detach().requires_grad_()
    log_p = log_probabilities(model, x, noise)
    own = one_hot(label, log_p)
    odds = log_p.masked_fill(own, -math.inf).logsumexp((0, 2)) - log_p.masked_fill(~own, -math.inf).logsumexp((0, 2))
    (gradient,) = torch.autograd.grad(odds.sum(), x)
    length = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return gradient / expand(length.clamp_min(_TINY), gradient)


@contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    r"""Evaluation mode for the parts of a model that train; afterwards they train again, and no others."""
    parts = [part for part in model.modules() if part.training] if isinstance(model, nn.Module) else []
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part in parts:
            part.training = True


def warmed(step: tuple[int, int] | None, share: float) -> float:
    r"""How far a strength has grown: linearly from the first step to 1 after a share of the training; 1 without a step.

    Args:
        step: (number of the step, steps of the training), or None where there is no training.
        share: in [0, 1].
    """
    if step is None or share == 0:
        return 1.0
    return min(1.0, (step[0] + 1) / (share * step[1]))


def checked_range(data_range: Sequence[float] | None) -> tuple[float, float] | None:
    r"""(least, largest) as floats, or None.

    Raises:
        ValueError: not two finite numbers in increasing order.
    """
    if data_range is None:
        return None
    if len(data_range) != 2 or not data_range[0] < data_range[1]:
        raise ValueError(
            f"data_range must be [least, largest] of the data, or null for no bound, got data_range={list(data_range)}."
        )
    low, high = (float(value) for value in data_range)
    checks.finite(data_range=low)
    checks.finite(data_range=high)
    return low, high
