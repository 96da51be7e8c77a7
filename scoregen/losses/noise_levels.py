r"""Laws of the noise ratio s at which a loss looks, by their quantile functions.

A law is a map of quantiles, so the levels of a batch can be stratified: one draw in each of B equal parts.
"""

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
        mean: of log s (P_mean). std: of log s (P_std), > 0.

    Reference: Karras et al. (2022), arXiv 2206.00364, table 1.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        checks.finite(mean=mean)
        checks.positive(std=std)
        self.mean, self.std = mean, std

    def __call__(self, sde: SDE, quantile: Tensor) -> Tensor:
        tail = torch.finfo(torch.float32).eps
        normal: Tensor = torch.special.ndtri(as_time(quantile).clamp(tail, 1 - tail))
        return (self.mean + self.std * normal).exp().clamp(sde.s_min, sde.s_max)


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


def stratified(batch: int, generator: Generators, device: torch.device) -> Tensor:
    r"""(B,) uniform draws on a device, one in each of B equal strata, float64."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return (torch.arange(batch, dtype=dtype, device=device) + rand((batch,), generator, dtype, device)) / batch
