r"""Adams-Bashforth-Moulton: predict with the last values, correct when the one at the end point is known.

The value of the denoiser at the end of a step is at hand when the next step starts, so the correction costs no network
call.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scoregen.checks import refuse
from scoregen.samplers.base import Denoise, Noise, Sampler
from scoregen.samplers.grids import Grid
from scoregen.sde.path import as_time

# (noise ratio, interpolated value), the newest first
History = Sequence[tuple[float, Tensor]]


class AdamsBashforthMoulton(Sampler):
    r"""The loop of a predictor of order k and a corrector of order k + 1, one network call a step.

    A final class says which quantity is interpolated and how the state follows from it.

    Args:
        steps: number of steps and of network calls.
        grid: noise ratios.
        order: k.

    Raises:
        ValueError: an order outside 1 to `highest_order`.
    """

    highest_order = 3

    def __init__(self, steps: int, grid: Grid | None, order: int) -> None:
        super().__init__(steps, grid)
        self.order = check_order(order, self.highest_order)

    @abstractmethod
    def value(self, u: Tensor, denoised: Tensor, s: float) -> Tensor:
        r"""The interpolated quantity at the state u."""

    @abstractmethod
    def advance(self, u: Tensor, s: float, n: float, history: History) -> Tensor:
        r"""The state at n from the exact state u at s and the polynomial through the history."""

    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        denoised = denoise(u, s)
        before, history = memory or (None, ())
        history = ((s, self.value(u, denoised, s)), *history)
        if before is not None:
            u = self.advance(before, history[1][0], s, history)
        history = history[: self.order]
        return self.advance(u, s, n, history), (u, history)


def polynomial_weights(q: Sequence[float], integrals: Sequence[float]) -> list[float]:
    r"""The weights w of values at the distinct nodes q with sum_j w_j q_j^i = integrals_i."""
    powers = as_time([[node**i for node in q] for i in range(len(q))])
    weights: list[float] = torch.linalg.solve(powers, as_time(integrals)).tolist()
    return weights


def weighted_sum(u: Tensor, weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    r"""u + sum_j w_j values_j, in the dtype of u."""
    for weight, value in zip(weights, values, strict=True):
        u = torch.add(u, value, alpha=weight)
    return u


def check_order(order: int, highest: int) -> int:
    r"""The order, if it is a whole number from 1 to the highest one."""
    if isinstance(order, bool) or order not in range(1, highest + 1):
        refuse("order", f"be a whole number from 1 to {highest}", order)
    return int(order)
