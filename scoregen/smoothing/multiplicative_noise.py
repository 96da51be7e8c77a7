r"""Multiplicative noises: log-normal, element by element or one factor for the whole input.

Gaussian smoothing in the logarithm. Let v = log(x + c) and f~(v) = f(exp(v) - c). Then y = (x + c) exp(m + sigma eps)
- c is Gaussian noise on v (m is a fixed shift, absorbed in f~), so Cohen's theorem holds with the distance ||log(x' +
c) - log(x + c)||_2.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from scoregen.checks import at_least, finite, positive
from scoregen.smoothing import draws
from scoregen.smoothing.bounds import safe
from scoregen.smoothing.noise import AbstractNoise, gaussian_probability, gaussian_radius


def _factor(factor: float) -> float:
    r"""A factor in few digits, never one that is further from 1."""
    return 1.0 + safe(factor - 1.0) if factor >= 1.0 else 1.0 - safe(1.0 - factor)


class LogNormal(AbstractNoise):
    r"""(x + offset) exp(drift + sigma eps) - offset, as geometric Brownian motion makes it. Norm log-l2.

        g(x') = g(x) for all x' with ||log(x' + offset) - log(x + offset)||_2 < R = sigma / 2 (Phi^{-1}(p_a) -
        Phi^{-1}(p_b)). It implies the plain l2 radius offset R for x, x' >= 0. One pixel alone may change by the
        factor e^R.

    A zero stays zero under multiplication, so that with offset 0 the theorem compares only inputs with the same zeros.
    An input with zeros is then refused, since its certificate would be void.

    Args:
        sigma: standard deviation of the logarithm, without unit.
        offset: c >= 0, in the input's units, added before the logarithm; with c = 0 inputs must be positive.
        drift: m, the mean of the logarithm of the factor; no certificate depends on it.
    """

    norm, order = "log-l2", 2

    def __init__(self, sigma: float, offset: float = 0.0, drift: float = 0.0) -> None:
        positive(sigma=sigma)
        at_least(0.0, offset=offset)
        finite(drift=drift)
        self.sigma, self.offset, self.drift = float(sigma), float(offset), float(drift)
        self.step, self.reach = self.sigma / 2, 2 * self.sigma

    @property
    def distance(self) -> str:
        return f"l2 of log(x + {self.offset:.12g})" if self.offset else "l2 of log x"

    def sample(self, x: Tensor, m: int, generator: torch.Generator, strict: bool = True) -> Tensor:
        eps = draws.normal((m, *x.shape), generator, strict)
        factor = eps.mul_(self.sigma).add_(self.drift).exp_()
        return factor.mul_(x.to(factor) + self.offset).sub_(self.offset)

    def radius(self, p_a: float, p_b: float) -> float:
        return gaussian_radius(self.sigma, p_a, p_b)

    def probability_for(self, radius: float) -> float:
        return gaussian_probability(self.sigma, radius)

    def displaced(self, x: Tensor, z: Tensor) -> Tensor:
        moved = (x + self.offset) * z.exp() - self.offset
        return (
            moved.clamp_min(0.0) if self.offset else moved
        )  # data are >= 0; x' = 0 is nearer to x than what it replaces

    def l2_radius(self, radius: float) -> float:
        r"""The plain l2 radius that a log-l2 radius implies among inputs x, x' >= 0: for
        |log(x' + c) - log(x + c)| <= |x' - x| / c."""
        return self.offset * radius

    def implies(self, radius: float) -> str:
        one = f"one pixel x {_factor(math.exp(radius)):.12g}"
        return f"l2 {safe(self.l2_radius(radius), 4):.12g} for x' >= 0, {one}" if self.offset else one

    def check(self, x: Tensor) -> None:
        smallest = float(x.min())
        if self.offset == 0.0 and smallest <= 0.0:
            raise ValueError(
                f"x must be > 0 everywhere under LogNormal noise without an offset (a zero stays zero, so that its "
                f"certificate would be void), got a smallest value of {smallest}. Use LogNormal(sigma, offset=c)."
            )
        if smallest < 0.0:
            raise ValueError(
                f"x must be >= 0 everywhere under LogNormal noise, got a smallest value of {smallest}. Give data in "
                f"their own non-negative units."
            )


class AbstractLogNormalFactor(AbstractNoise):
    r"""One factor a = exp(sigma eps), eps ~ N(0, 1), that acts on the whole input. Norm log-gain, log-gamma, ...

        Acting twice multiplies the factors, so smoothing over log a is one-dimensional Gaussian smoothing: the label
        is the same at act(x, a) for all a in (e^{-R}, e^R), R = sigma / 2 (Phi^{-1}(p_a) - Phi^{-1}(p_b)). No sqrt(d)
        is lost. Nothing else is certified: an image that was rounded, quantised or clipped after the gain is not
        act(x, a), and no radius holds for it. Use `LogNormal` where that matters.

    Args:
        sigma: standard deviation of log a.

    Attributes:
        action: what the factor does, one word.
    """

    action: str
    order = 2

    def __init__(self, sigma: float) -> None:
        positive(sigma=sigma)
        self.sigma = float(sigma)
        self.norm = f"log-{self.action}"
        self.step, self.reach = self.sigma / 2, 2 * self.sigma

    @staticmethod
    @abstractmethod
    def act(x: Tensor, a: Tensor) -> Tensor:
        r"""The input after a factor: act(act(x, a), b) = act(x, a b)."""

    def sample(self, x: Tensor, m: int, generator: torch.Generator, strict: bool = True) -> Tensor:
        eps = draws.normal((m,), generator, strict)
        factor = eps.mul_(self.sigma).exp_().view(m, *[1] * x.ndim)
        return self.act(x.to(factor), factor)

    def displacement(self, x: Tensor) -> Tensor:
        return x.new_zeros(())

    def displaced(self, x: Tensor, z: Tensor) -> Tensor:
        return self.act(x, z.exp())

    def radius(self, p_a: float, p_b: float) -> float:
        return gaussian_radius(self.sigma, p_a, p_b)

    def probability_for(self, radius: float) -> float:
        return gaussian_probability(self.sigma, radius)

    def interval(self, radius: float) -> tuple[float, float]:
        r"""The open interval of factors that a radius certifies, for exact act(x, a) alone."""
        return math.exp(-radius), math.exp(radius)

    def implies(self, radius: float) -> str:
        low, high = self.interval(radius)
        return f"{self.action} {_factor(low):.12g} to {_factor(high):.12g}"


class LogNormalGain(AbstractLogNormalFactor):
    r"""a x, exposure or volume, with one log-normal factor a. Norm log-gain.

    Args:
        sigma: standard deviation of log a.
    """

    action = "gain"

    @staticmethod
    def act(x: Tensor, a: Tensor) -> Tensor:
        return x * a


class LogNormalGamma(AbstractLogNormalFactor):
    r"""x^a for x >= 0, gamma correction, with one log-normal exponent a. Norm log-gamma.

    Args:
        sigma: standard deviation of log a.
    """

    action = "gamma"

    @staticmethod
    def act(x: Tensor, a: Tensor) -> Tensor:
        return x**a

    def check(self, x: Tensor) -> None:
        smallest = float(x.min())
        if smallest < 0.0:
            raise ValueError(f"x must be >= 0 everywhere under gamma noise, got a smallest value of {smallest}.")
