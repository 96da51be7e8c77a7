r"""Weightings w(s) of the squared error |D - y_0|^2.

D = E[y_0 | u] minimises the loss under every weighting w > 0; a weighting says at which noise levels a network of
finite size makes its errors. Each one here is the plain squared error of another quantity that D stands for.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Weighting(ABC):
    r"""w(s), the weight of |D - y_0|^2."""

    @abstractmethod
    def __call__(self, s: Tensor, sigma_data: float) -> Tensor:
        r"""The weight (B,) at noise ratios s (B,).

        Args:
            sigma_data: standard deviation of the data in model coordinates.
        """


class EDMWeighting(Weighting):
    r"""1/s^2 + 1/sigma_data^2: every level of an EDM-preconditioned network starts with loss 1."""

    def __call__(self, s: Tensor, sigma_data: float) -> Tensor:
        return (s**2 + sigma_data**2) / (s * sigma_data) ** 2


class NoiseWeighting(Weighting):
    r"""1/s^2: the squared error of eps (DDPM's simple loss; lambda = v of multiplicative score matching)."""

    def __call__(self, s: Tensor, sigma_data: float) -> Tensor:
        return s**-2


class DataWeighting(Weighting):
    r"""The weight 1: the squared error of y_0."""

    def __call__(self, s: Tensor, sigma_data: float) -> Tensor:
        return torch.ones_like(s)


class VelocityWeighting(Weighting):
    r"""1 + 1/s^2: the squared error of v (Salimans & Ho)."""

    def __call__(self, s: Tensor, sigma_data: float) -> Tensor:
        return 1 + s**-2


class FlowWeighting(Weighting):
    r"""(1 + 1/s)^2: the squared error of the velocity eps - y_0 on a straight path, with `FlowTime` levels."""

    def __call__(self, s: Tensor, sigma_data: float) -> Tensor:
        return (1 + 1 / s) ** 2
