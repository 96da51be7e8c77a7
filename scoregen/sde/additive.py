r"""Additive processes: each is its alpha and its sigma; drift, diffusion and the rest are derived.

| process | alpha(t) | sigma(t) | s(t) |
|---|---|---|---|
| VP | e^{-B/2} | sqrt(1 - e^{-B}) | sqrt(e^B - 1) |
| sub-VP | e^{-B/2} | 1 - e^{-B} | 2 sinh(B/2) |
| VE | 1 | sigma_min (sigma_max/sigma_min)^t | sigma |
| EDM | 1 | (sigma_min^{1/rho} + t (sigma_max^{1/rho} - sigma_min^{1/rho}))^rho | sigma |
| cosine | cos(pi t/2) | sin(pi t/2) | tan(pi t/2) |
| rectified flow | 1 - t' | t' | shift t/(1 - t), t' = shift t/(1 + (shift - 1) t) |

with B(t) = int_0^t beta, for VP and SubVP beta_min t + (beta_max - beta_min) t^2/2. Another rate is a class on
`VariancePreserving` or `SubVariancePreserving` that gives B, another sigma one on `VarianceExploding`.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from scoregen.checks import at_least, increasing, positive
from scoregen.sde.chart import Chart
from scoregen.sde.path import as_time, inverse
from scoregen.sde.process import SDE


class _Decaying(SDE):
    r"""alpha = e^{-B/2} for the integral B of a rate beta(t) > 0.

    Args:
        chart: data to model coordinates.
    """

    @abstractmethod
    def integral(self, t: Tensor | float) -> Tensor:
        r"""B(t) = int_0^t beta, shaped as t."""

    def time_of_integral(self, value: Tensor) -> Tensor:
        r"""The inverse of `integral`, by bisection; a schedule that knows a formula overrides it."""
        return inverse(self.integral, value)

    def alpha(self, t: Tensor | float) -> Tensor:
        return (-self.integral(t) / 2).exp()


class VariancePreserving(_Decaying):
    r"""dy = -beta/2 y dt + sqrt(beta) dW for any rate beta: a final class gives `integral`.

    Args:
        chart: data to model coordinates.

    Reference: Song et al. (2021), arXiv 2011.13456, equation 11.
    """

    def variance(self, t: Tensor | float) -> Tensor:
        return -(-self.integral(t)).expm1()

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.variance(t).sqrt()

    def _time_of(self, s: Tensor) -> Tensor:
        return self.time_of_integral((s**2).log1p())


class SubVariancePreserving(_Decaying):
    r"""dy = -beta/2 y dt + sqrt(beta (1 - e^{-2B})) dW for any rate beta: a final class gives `integral`.

    Args:
        chart: data to model coordinates.

    Reference: Song et al. (2021), arXiv 2011.13456, equation 12.
    """

    def sigma(self, t: Tensor | float) -> Tensor:
        return -(-self.integral(t)).expm1()

    def _time_of(self, s: Tensor) -> Tensor:
        return self.time_of_integral(2 * (s / 2).asinh())


class _LinearBeta(_Decaying):
    r"""beta(t) = beta_min + t (beta_max - beta_min).

    Args:
        beta_min: rate at t = 0. beta_max: rate at t = 1.
        chart: data to model coordinates.

    Raises:
        ValueError: not 0 < beta_min <= beta_max.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, chart: Chart | None = None) -> None:
        super().__init__(chart)
        positive(beta_min=beta_min)
        at_least(beta_min, beta_max=beta_max)
        self.beta_min, self.beta_max = float(beta_min), float(beta_max)

    def integral(self, t: Tensor | float) -> Tensor:
        t = as_time(t)
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def time_of_integral(self, value: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        return 2 * value / (self.beta_min + (self.beta_min**2 + 2 * slope * value).sqrt())


class VP(_LinearBeta, VariancePreserving):
    r"""Variance preserving with a linear rate: dy = -beta/2 y dt + sqrt(beta) dW.

    Args:
        beta_min: rate at t = 0. beta_max: rate at t = 1.
        chart: data to model coordinates.

    Raises:
        ValueError: not 0 < beta_min <= beta_max.

    Reference: Song et al. (2021), arXiv 2011.13456, equation 11.
    """


class SubVP(_LinearBeta, SubVariancePreserving):
    r"""Sub-VP with a linear rate: dy = -beta/2 y dt + sqrt(beta (1 - e^{-2B})) dW.

    Args:
        beta_min: rate at t = 0. beta_max: rate at t = 1.
        chart: data to model coordinates.

    Raises:
        ValueError: not 0 < beta_min <= beta_max.

    Reference: Song et al. (2021), arXiv 2011.13456, equation 12.
    """


class VarianceExploding(SDE):
    r"""alpha = 1 and sigma from sigma_min to sigma_max, both in model coordinates: a final class gives `sigma`.

    Args:
        sigma_min: noise at t = 0. sigma_max: noise at t = 1.
        chart: data to model coordinates.

    Raises:
        ValueError: not 0 < sigma_min < sigma_max.
    """

    def __init__(self, sigma_min: float, sigma_max: float, chart: Chart | None = None) -> None:
        super().__init__(chart)
        increasing(0, sigma_min=sigma_min, sigma_max=sigma_max)
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(as_time(t))


def karras(fraction: Tensor, start: float, end: float, rho: float) -> Tensor:
    r"""The noise level whose power 1/rho is linear in a fraction of the way from one level to another.

    Args:
        fraction: 0 gives `start`, 1 gives `end`. rho: > 0.

    Reference: Karras et al. (2022), arXiv 2206.00364, equation 5.
    """
    first, last = math.pow(start, 1 / rho), math.pow(end, 1 / rho)
    return (first + fraction * (last - first)) ** rho


class VE(VarianceExploding):
    r"""Variance exploding, geometric in t.

    Args:
        sigma_min: noise at t = 0. sigma_max: noise at t = 1, in model coordinates.
        chart: data to model coordinates.

    Raises:
        ValueError: not 0 < sigma_min < sigma_max.

    Reference: Song et al. (2021), arXiv 2011.13456, equation 9.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0, chart: Chart | None = None) -> None:
        super().__init__(sigma_min, sigma_max, chart)

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.sigma_min * (math.log(self.sigma_max / self.sigma_min) * as_time(t)).exp()

    def _time_of(self, s: Tensor) -> Tensor:
        return (s / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)


class EDM(VarianceExploding):
    r"""The time warp of EDM: sigma^{1/rho} is linear in t, so uniform t is the Karras grid.

    Args:
        sigma_min: noise at t = 0. sigma_max: noise at t = 1, in model coordinates.
        rho: warp exponent, > 0.
        chart: data to model coordinates.

    Raises:
        ValueError: not 0 < sigma_min < sigma_max and rho > 0.

    Reference: Karras et al. (2022), arXiv 2206.00364, equation 5.
    """

    def __init__(
        self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0, chart: Chart | None = None
    ) -> None:
        super().__init__(sigma_min, sigma_max, chart)
        positive(rho=rho)
        self.rho = float(rho)

    def sigma(self, t: Tensor | float) -> Tensor:
        return karras(as_time(t), self.sigma_min, self.sigma_max, self.rho)

    def _time_of(self, s: Tensor) -> Tensor:
        low, high = math.pow(self.sigma_min, 1 / self.rho), math.pow(self.sigma_max, 1 / self.rho)
        return (s ** (1 / self.rho) - low) / (high - low)


class Cosine(SDE):
    r"""alpha = cos(pi t/2), sigma = sin(pi t/2): variance preserving with an angle linear in t.

    Args:
        chart: data to model coordinates.

    Reference: Nichol & Dhariwal (2021), arXiv 2102.09672, without their offset.
    """

    def alpha(self, t: Tensor | float) -> Tensor:
        # sin of the complement is exact at t = 1, where cos(pi/2) is 6e-17
        return (math.pi / 2 * (1 - as_time(t))).sin()

    def sigma(self, t: Tensor | float) -> Tensor:
        return (math.pi / 2 * as_time(t)).sin()

    def _time_of(self, s: Tensor) -> Tensor:
        return s.atan() * 2 / math.pi


class RectifiedFlow(SDE):
    r"""The straight path alpha = 1 - t', sigma = t' (data at t = 0), with t' = shift t/(1 + (shift - 1) t).

    Args:
        chart: data to model coordinates.
        shift: > 0; above 1 more of the times are noisy ones, as large images want. It multiplies s.

    Raises:
        ValueError: shift <= 0.

    Reference: Liu et al. (2023), arXiv 2209.03003; Lipman et al. (2023), arXiv 2210.02747; Esser et al. (2024), arXiv
        2403.03206, equation 23 (shift).
    """

    def __init__(self, chart: Chart | None = None, shift: float = 1.0) -> None:
        super().__init__(chart)
        positive(shift=shift)
        self.shift_factor = float(shift)

    argument_attributes: ClassVar[dict[str, str]] = {"shift": "shift_factor"}

    def alpha(self, t: Tensor | float) -> Tensor:
        t = as_time(t)
        return (1 - t) / (1 + (self.shift_factor - 1) * t)

    def sigma(self, t: Tensor | float) -> Tensor:
        t = as_time(t)
        return self.shift_factor * t / (1 + (self.shift_factor - 1) * t)

    def _time_of(self, s: Tensor) -> Tensor:
        return 1 / (1 + self.shift_factor / s)  # 1 at s = inf
