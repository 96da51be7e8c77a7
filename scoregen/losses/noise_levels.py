r"""Laws of the noise ratio s at which a loss looks, by their quantile functions.

A law is a map of quantiles, so the levels of a batch can be stratified: one draw in each of B equal parts.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scoregen import checks
from scoregen.rng import Generators, rand
from scoregen.sde.path import as_time
from scoregen.sde.process import SDE


class NoiseLevels(ABC):
    r"""A law of the noise ratio s, by its quantile function."""

    @abstractmethod
    def __call__(self, sde: SDE, quantile: Tensor) -> Tensor:
        r"""s (B,) for quantiles (B,) in [0, 1), float64 where they are, inside the range of the process."""


class LogNormal(NoiseLevels):
    r"""log s ~ N(mean, std^2), clipped to the range of the process.

    Args:
        mean: mean of log s (P_mean). std: standard deviation of log s (P_std), > 0.

    Reference: Karras et al. (2022), arXiv 2206.00364, table 1.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        checks.finite(mean=mean)
        checks.positive(std=std)
        self.mean, self.std = mean, std

    def __call__(self, sde: SDE, quantile: Tensor) -> Tensor:
        tail = torch.finfo(torch.float32).eps
        normal = normal_quantile(as_time(quantile).clamp(tail, 1 - tail))
        return (self.mean + self.std * normal).exp().clamp(sde.s_min, sde.s_max)


def normal_quantile(p: Tensor) -> Tensor:
    r"""Phi^-1(p) of p in (0, 1), in their dtype: by erfinv, which every device has (MPS has no ndtri).

    Its Phi is within a rounding of 1 of p, so that tails of float32 below 1e-6 are coarse, as are draws of float32.
    """
    return math.sqrt(2.0) * torch.erfinv(2 * p - 1)


class UniformTime(NoiseLevels):
    r"""t uniform between the times of s_min and s_max."""

    def __call__(self, sde: SDE, quantile: Tensor) -> Tensor:
        low, high = sde.time_of(sde.s_min).item(), sde.time_of(sde.s_max).item()
        return sde.noise_ratio(low + as_time(quantile) * (high - low))


class LogUniform(NoiseLevels):
    r"""log s uniform over the range of the process."""

    def __call__(self, sde: SDE, quantile: Tensor) -> Tensor:
        ratios: Tensor = (sde.s_max / sde.s_min) ** as_time(quantile)
        return sde.s_min * ratios


class FlowTime(NoiseLevels):
    r"""t = s/(1 + s) uniform over the range of the process: the time of a straight path, whatever the process."""

    def __call__(self, sde: SDE, quantile: Tensor) -> Tensor:
        low, high = sde.s_min / (1 + sde.s_min), sde.s_max / (1 + sde.s_max)
        t = low + as_time(quantile) * (high - low)
        return (t / (1 - t)).clamp(sde.s_min, sde.s_max)


def stratified(batch: int, generator: Generators, device: torch.device) -> Tensor:
    r"""(B,) uniform draws on a device, one in each of B equal strata, float64."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return (torch.arange(batch, dtype=dtype, device=device) + rand((batch,), generator, dtype, device)) / batch
