r"""Exponential multistep methods in l = -log s, where the probability-flow ODE is du/dl = D - u.

The linear part is solved exactly and D interpolated by a polynomial through its values D_j at q_j = l_j - l:

    u(l + h) = e^{-h} u + sum_j w_j D_j,     sum_j w_j q_j^i = I_i = int_0^h e^{tau - h} tau^i dtau,     h = log(s/n)

Adams-Bashforth takes the current and the last values; order 1 is DDIM, order 2 DPM-Solver++(2M), order 3
DPM-Solver++(3M) with the factor 2 that its published implementations lack. Adams-Bashforth-Moulton repeats the last
step with the value at its end.

Reference: Hochbruck & Ostermann (2010), Acta Numerica 19; Lu et al. (2022), arXiv 2211.01095; Zhao et al. (2023), arXiv
2302.04867.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from scoregen.samplers.base import Denoise, Noise, Sampler
from scoregen.samplers.grids import Grid
from scoregen.samplers.multistep import AdamsBashforthMoulton, History, check_order, polynomial_weights, weighted_sum

Rule = Callable[[Sequence[float], float], list[float]]


def exponential_integrals(h: float, count: int) -> list[float]:
    r"""I_0 ... I_{count-1}, I_i = int_0^h e^{tau - h} tau^i dtau.

    The recursion I_i = h^i - i I_{i-1} loses digits for small h; there it is run backward from 0, which gains them.
    """
    if h >= 1:
        integrals = [-math.expm1(-h)]
        for i in range(1, count):
            integrals.append(h**i - i * integrals[-1])
        return integrals
    integral, integrals = 0.0, [0.0] * count
    for i in range(count + 20, 0, -1):
        integral = (h**i - integral) / i
        if i <= count:
            integrals[i - 1] = integral
    return integrals


def exponential_weights(q: Sequence[float], h: float) -> list[float]:
    r"""The weights of values of D at the distinct offsets q in l for a step h, exact up to degree len(q) - 1."""
    return polynomial_weights(q, exponential_integrals(h, len(q)))


def damped_weights(q: Sequence[float], h: float) -> list[float]:
    r"""The weights of two values with h (1 - e^{-h})/2 for I_1: DPM-Solver++(2M) as published."""
    total = -math.expm1(-h)
    return polynomial_weights(q, [total, h * total / 2][: len(q)])


def _advance(u: Tensor, s: float, n: float, history: History, rule: Rule = exponential_weights) -> Tensor:
    if n == 0:  # h is infinite: all weight falls on the newest value
        return history[0][1]
    weights = rule([math.log(s / level) for level, _ in history], math.log(s / n))
    return weighted_sum(u * (n / s), weights, [value for _, value in history])


class ExponentialAB(Sampler):
    r"""Exponential Adams-Bashforth; one network call a step, order as given.

    Args:
        steps: number of steps and of network calls.
        grid: noise ratios.
        order: 1 (DDIM), 2 or 3.
        damped: for order 2, the weights of the published DPM-Solver++(2M): smaller errors below about 10 steps.

    Raises:
        ValueError: an order outside 1..3, or damped weights of an order other than 2.

    Reference: Lu et al. (2022), arXiv 2211.01095, algorithm 2.
    """

    def __init__(self, steps: int = 18, grid: Grid | None = None, order: int = 2, damped: bool = False) -> None:
        super().__init__(steps, grid)
        self.order = check_order(order, 3)
        if damped and order != 2:
            raise ValueError(f"damped weights exist for order 2 only, got order={order}. Leave damped at false.")
        self.damped = damped
        self._rule = damped_weights if damped else exponential_weights

    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        history = ((s, denoise(u, s)), *(memory or ()))[: self.order]
        return _advance(u, s, n, history, self._rule), history


class ExponentialABM(AdamsBashforthMoulton):
    r"""Exponential Adams-Bashforth-Moulton: D interpolated in l; predictor of order k, corrector of order k + 1.

    Args:
        steps: number of steps and of network calls.
        grid: noise ratios.
        order: k, 1 to 3; 2 and 3 pay from about 20 calls on.

    Raises:
        ValueError: an order outside 1..3.

    Reference: Zhao et al. (2023), arXiv 2302.04867 (UniPC), for the correction without a call; the weights here are
    exact.
    """

    def __init__(self, steps: int = 18, grid: Grid | None = None, order: int = 1) -> None:
        super().__init__(steps, grid, order)

    def value(self, u: Tensor, denoised: Tensor, s: float) -> Tensor:
        return denoised

    def advance(self, u: Tensor, s: float, n: float, history: History) -> Tensor:
        return _advance(u, s, n, history)
