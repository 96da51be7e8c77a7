r"""Additive processes: each is its alpha and its sigma; drift, diffusion and the rest are derived.

| process | alpha(t) | sigma(t) | s(t) |
|---|---|---|---|
| VP | e^{-B/2} | sqrt(1 - e^{-B}) | sqrt(e^B - 1) |
| sub-VP | e^{-B/2} | 1 - e^{-B} | 2 sinh(B/2) |
| VE | 1 | sigma_min (sigma_max/sigma_min)^t | sigma |
| EDM | 1 | (sigma_min^{1/rho} + t (sigma_max^{1/rho} - sigma_min^{1/rho}))^rho | sigma |
| cosine | cos(pi t/2) | sin(pi t/2) | tan(pi t/2) |
| rectified flow | 1 - t | t | t/(1 - t) |

with B(t) = beta_min t + (beta_max - beta_min) t^2/2.
"""

import math

import torch
from torch import Tensor

from scoregen.sde.chart import Chart
from scoregen.sde.path import as_time
from scoregen.sde.process import SDE


class _LinearBeta(SDE):
    r"""The linear beta(t) = beta_min + t (beta_max - beta_min) that VP and sub-VP share.

    Args:
        beta_min: rate at t = 0. beta_max: rate at t = 1.
        chart: data to model coordinates.

    Raises:
        ValueError: unless 0 < beta_min <= beta_max.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, chart: Chart | None = None) -> None:
        super().__init__(chart)
        if not 0 < beta_min <= beta_max < math.inf:
            raise ValueError(
                f"beta_min must satisfy 0 < beta_min <= beta_max, got beta_min={beta_min}, beta_max={beta_max}."
            )
        self.beta_min, self.beta_max = float(beta_min), float(beta_max)

    def _integral(self, t: Tensor | float) -> Tensor:
        t = as_time(t)
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def _time_of_integral(self, integral: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * slope * integral).sqrt())

    def alpha(self, t: Tensor | float) -> Tensor:
        return (-self._integral(t) / 2).exp()


class VP(_LinearBeta):
    r"""Variance preserving: dy = -beta/2 y dt + sqrt(beta) dW.

    Args:
        beta_min: rate at t = 0. beta_max: rate at t = 1.
        chart: data to model coordinates.

    Raises:
        ValueError: unless 0 < beta_min <= beta_max.

    Reference: Song et al. (2021), arXiv 2011.13456, equation 11.
    """

    def variance(self, t: Tensor | float) -> Tensor:
        return -(-self._integral(t)).expm1()

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.variance(t).sqrt()

    def _time_of(self, s: Tensor) -> Tensor:
        return self._time_of_integral((s**2).log1p())


class SubVP(_LinearBeta):
    r"""Sub-VP: dy = -beta/2 y dt + sqrt(beta (1 - e^{-2B})) dW.

    Args:
        beta_min: rate at t = 0. beta_max: rate at t = 1.
        chart: data to model coordinates.

    Raises:
        ValueError: unless 0 < beta_min <= beta_max.

    Reference: Song et al. (2021), arXiv 2011.13456, equation 12.
    """

    def sigma(self, t: Tensor | float) -> Tensor:
        return -(-self._integral(t)).expm1()

    def _time_of(self, s: Tensor) -> Tensor:
        return self._time_of_integral(2 * (s / 2).asinh())


class _Exploding(SDE):
    r"""alpha = 1 and sigma from sigma_min to sigma_max.

    Args:
        sigma_min: noise at t = 0. sigma_max: noise at t = 1, in model coordinates.
        chart: data to model coordinates.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max.
    """

    def __init__(self, sigma_min: float, sigma_max: float, chart: Chart | None = None) -> None:
        super().__init__(chart)
        if not 0 < sigma_min < sigma_max < math.inf:
            raise ValueError(
                f"sigma_min must satisfy 0 < sigma_min < sigma_max, got sigma_min={sigma_min}, sigma_max={sigma_max}."
            )
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(as_time(t))


class VE(_Exploding):
    r"""Variance exploding, geometric in t.

    Args:
        sigma_min: noise at t = 0. sigma_max: noise at t = 1, in model coordinates.
        chart: data to model coordinates.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max.

    Reference: Song et al. (2021), arXiv 2011.13456, equation 9.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0, chart: Chart | None = None) -> None:
        super().__init__(sigma_min, sigma_max, chart)

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.sigma_min * (math.log(self.sigma_max / self.sigma_min) * as_time(t)).exp()

    def _time_of(self, s: Tensor) -> Tensor:
        return (s / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)


class EDM(_Exploding):
    r"""The time warp of EDM: sigma^{1/rho} is linear in t, so uniform t is the Karras grid.

    Args:
        sigma_min: noise at t = 0. sigma_max: noise at t = 1, in model coordinates.
        rho: warp exponent, > 0.
        chart: data to model coordinates.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max and rho > 0.

    Reference: Karras et al. (2022), arXiv 2206.00364, equation 5.
    """

    def __init__(
        self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0, chart: Chart | None = None
    ) -> None:
        super().__init__(sigma_min, sigma_max, chart)
        if not 0 < rho < math.inf:
            raise ValueError(f"rho must be > 0 and finite, got rho={rho}.")
        self.rho = float(rho)
        self._low, self._high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def sigma(self, t: Tensor | float) -> Tensor:
        return (self._low + as_time(t) * (self._high - self._low)) ** self.rho

    def _time_of(self, s: Tensor) -> Tensor:
        return (s ** (1 / self.rho) - self._low) / (self._high - self._low)


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
    r"""The straight path alpha = 1 - t, sigma = t (data at t = 0).

    Args:
        chart: data to model coordinates.

    Reference: Liu et al. (2023), arXiv 2209.03003; Lipman et al. (2023), arXiv 2210.02747.
    """

    def alpha(self, t: Tensor | float) -> Tensor:
        return 1 - as_time(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        return as_time(t)

    def _time_of(self, s: Tensor) -> Tensor:
        return 1 / (1 + 1 / s)  # 1 at s = inf
