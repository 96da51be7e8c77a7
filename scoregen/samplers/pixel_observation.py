r"""What was recorded of every pixel, by its exact law: speckle, counts, rounded and clipped values, missing ones.

A split Gibbs sampler needs of an observation one draw for each pixel,

    z ~ p(observed | x(z)) N(z; y, rho^2),        z, y in chart coordinates,

which is a density of one dimension: x > 0 is drawn in v = log x with the chart's own Jacobian, so that logarithms with
and without an offset and affine charts are one formula. A missing pixel (NaN) is drawn from N(y, rho^2).

Reference: Wu, Sun, Chen, Zhang, Yue, Bouman (2024), arXiv 2405.18782, section 3.1 (the likelihood step).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from scoregen.checks import positive
from scoregen.samplers.inverse_cdf import REACH, inverse_cdf
from scoregen.samplers.pixel_axis import LogAxis

Uniform = Callable[[Tensor], Tensor]


class PixelObservation(ABC):
    r"""A law of what is recorded of a pixel, independently of the other pixels.

    Attributes:
        possible: a value that it can give, which stands in for missing ones.
    """

    possible: float = 1.0

    @abstractmethod
    def check(self, observed: Tensor) -> None:
        r"""Raises ValueError for values that this law cannot give; NaN is a missing pixel."""

    @abstractmethod
    def first(self, observed: Tensor) -> Tensor:
        r"""A rough scene x behind the values (B, *S), where the chain starts."""

    @abstractmethod
    def draw(self, observed: Tensor, z: Tensor, y: Tensor, rho: float, axis: LogAxis, uniform: Uniform) -> Tensor:
        r"""z ~ p(observed | z) N(z; y, rho^2), or draws that leave this law as it is.

        Args:
            observed: (B, *S), no NaN. z: the last draw, in chart coordinates. y: the scene. rho: the coupling.
            axis: the chart. uniform: gives draws in [0, 1) like its argument.
        """

    def confine(self, observed: Tensor, y: Tensor, rho: float, axis: LogAxis, uniform: Uniform) -> Tensor:
        r"""The last y, moved where the observation excludes it; as it is unless overridden."""
        return y


class GammaObservation(PixelObservation):
    r"""L-look speckle: x Gamma(L, 1/L), with its skewness.

    Args:
        looks: L > 0.

    Raises:
        ValueError: looks <= 0; in use, intensities that are not finite and > 0.
    """

    def __init__(self, looks: float) -> None:
        positive(looks=looks)
        self.looks = float(looks)

    def check(self, observed: Tensor) -> None:
        bad = ~((observed > 0) & observed.isfinite()) & ~observed.isnan()
        if bool(bad.any()):
            raise ValueError(
                f"intensities must be finite and > 0 (NaN where they are missing), got {int(bad.sum())} of "
                f"{observed.numel()} that are not (first: {observed[bad][0].item():.4g}). Use "
                "Quantised(step, low, high, looks) for values that were rounded to 0 or cut."
            )

    def first(self, observed: Tensor) -> Tensor:
        return observed

    def draw(self, observed: Tensor, z: Tensor, y: Tensor, rho: float, axis: LogAxis, uniform: Uniform) -> Tensor:
        return speckled(observed.log(), self.looks, y, rho, axis, uniform(y))


def speckled(log_intensity: Tensor, looks: float, y: Tensor, rho: float, axis: LogAxis, uniform: Tensor) -> Tensor:
    r"""z ~ Gamma(I; L, x/L) N(z; y, rho^2): log density -L (v + I e^{-v}) - (z(v) - y)^2 / 2 rho^2 + log dz/dv."""

    def log_density(d: Tensor, log_intensity: Tensor, y: Tensor) -> Tensor:
        v = log_intensity + d
        return -looks * (d + (-d).exp()) - ((axis.z(v) - y) / rho) ** 2 / 2 + axis.log_slope(v)

    z_i, far = axis.z(log_intensity), REACH * rho
    high = axis.v(torch.maximum(z_i, y) + far)
    low = axis.v(torch.minimum(z_i, y) - far)
    if axis.offset != 0:  # then the normal factor alone does not bound x from below
        darker = _darkest(log_intensity, looks, y, rho, axis) - math.log(2 + 60 / looks)
        low = torch.maximum(low, darker)
    d = inverse_cdf(log_density, (log_intensity, y), low - log_intensity, high - log_intensity, uniform)
    return axis.z(log_intensity + d)


def _darkest(log_intensity: Tensor, looks: float, y: Tensor, rho: float, axis: LogAxis) -> Tensor:
    r"""A v below which the density rises, since there L I/x is four times each term of the normal factor's slope."""
    steep, below = axis.steepest, (axis.start - y).clamp_min(torch.finfo(y.dtype).tiny)
    power = log_intensity + math.log(looks / 4)
    first = (power + 2 * math.log(rho) - math.log(steep) - below.log()) / 2
    second = (power + 2 * math.log(rho) - 2 * math.log(steep)) / 3
    return torch.minimum(torch.minimum(log_intensity - math.log(2), first), second)


class PoissonObservation(PixelObservation):
    r"""Photon counts: gain k with k ~ Poisson(x / gain), so that the mean is x.

    Args:
        gain: value of one count in data units, > 0.

    Raises:
        ValueError: gain <= 0; in use, values that are not whole multiples of the gain.
    """

    def __init__(self, gain: float) -> None:
        positive(gain=gain)
        self.gain = float(gain)

    def check(self, observed: Tensor) -> None:
        counts = observed[~observed.isnan()] / self.gain
        bad = ~((counts >= 0) & counts.isfinite()) | ((counts - counts.round()).abs() > 1e-3 + 1e-6 * counts)
        if bool(bad.any()):
            raise ValueError(
                f"observed values must be whole multiples >= 0 of gain={self.gain:g} (NaN where they are missing), got "
                f"{int(bad.sum())} of {observed.numel()} that are not (first: {counts[bad][0].item():.4g} times the "
                "gain). Give the value of one count."
            )

    def first(self, observed: Tensor) -> Tensor:
        return observed.clamp_min(self.gain / 2)

    def draw(self, observed: Tensor, z: Tensor, y: Tensor, rho: float, axis: LogAxis, uniform: Uniform) -> Tensor:
        r"""Log density k v - e^v/gain - (z(v) - y)^2 / 2 rho^2 + log dz/dv."""
        counts, gain = (observed / self.gain).round(), self.gain

        def log_density(v: Tensor, counts: Tensor, y: Tensor) -> Tensor:
            return counts * v - v.exp() / gain - ((axis.z(v) - y) / rho) ** 2 / 2 + axis.log_slope(v)

        far = REACH * rho
        z_k = axis.z((counts + 1).log() + math.log(gain))
        high = axis.v(torch.maximum(z_k, y) + far)
        if axis.offset == 0:  # the mode is at most log(1 + T) below y, T = x rho^2 / gain rate^2
            pulled = torch.log1p((axis.v(y).exp() * (rho / axis.rate) ** 2 / gain).clamp_max(1e30)) * axis.rate
            low = axis.v(torch.minimum(z_k, y) - pulled - far)
        else:
            low = self._darkest(y, rho, axis) - 45 / (counts + 0.9)
        return axis.z(inverse_cdf(log_density, (counts, y), low, high, uniform(y)))

    def confine(self, observed: Tensor, y: Tensor, rho: float, axis: LogAxis, uniform: Uniform) -> Tensor:
        r"""Not below x = 0, as a mean count: rho blurs y beyond what z can be."""
        return y.clamp_min(axis.start)

    def _darkest(self, y: Tensor, rho: float, axis: LogAxis) -> Tensor:
        r"""A v below which the log density rises with at least .9 + k, all that pulls down being below 1/40 each."""
        steep, below = axis.steepest, (axis.start - y).clamp_min(torch.finfo(y.dtype).tiny)
        first = 2 * math.log(rho) - math.log(40 * steep) - below.log()
        bounds = [self.gain / 40, rho / steep / 40**0.5, (axis.offset or math.inf) / 40]
        return first.clamp_max(math.log(min(bounds)))
