r"""Grids: the decreasing noise ratios s_0 > ... > s_n = 0 at which a sampler calls the denoiser."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from scoregen.sde.path import as_time
from scoregen.sde.process import SDE


class Grid(ABC):
    r"""A map from a process and a number of steps to noise ratios."""

    def __call__(self, sde: SDE, steps: int, start: float | None = None) -> Tensor:
        r"""The noise ratios of `steps` steps.

        Args:
            sde: gives the range, `s_max` to `s_min`.
            steps: number of steps, >= 1.
            start: noise ratio to start from instead of `s_max`.

        Returns:
            (steps + 1,) float64, the last entry 0.
        """
        s_max = sde.s_max if start is None else float(start)
        if not s_max > 0:
            raise ValueError(f"the noise ratio at the start must be > 0, got {s_max}; there is nothing to remove.")
        s_min = min(sde.s_min, s_max / 10)
        levels = self.levels(sde, s_max, s_min, steps)
        return torch.cat([levels, levels.new_zeros(1)])

    @abstractmethod
    def levels(self, sde: SDE, s_max: float, s_min: float, steps: int) -> Tensor:
        r"""The nonzero levels, (steps,), from s_max to s_min."""


def _fractions(steps: int) -> Tensor:
    return torch.linspace(0, 1, steps, dtype=torch.float64)


class Karras(Grid):
    r"""s^{1/rho} in equal steps.

    Args:
        rho: exponent, > 0; 7 is the usual one.

    Reference: Karras et al. (2022), arXiv 2206.00364, equation 5.
    """

    def __init__(self, rho: float = 7.0) -> None:
        if not rho > 0:
            raise ValueError(f"rho must be > 0, got rho={rho}.")
        self.rho = float(rho)

    def levels(self, sde: SDE, s_max: float, s_min: float, steps: int) -> Tensor:
        high, low = s_max ** (1 / self.rho), s_min ** (1 / self.rho)
        levels = (high + _fractions(steps) * (low - high)) ** self.rho
        levels[0] = s_max
        return levels


class LogLinear(Grid):
    r"""log s in equal steps."""

    def levels(self, sde: SDE, s_max: float, s_min: float, steps: int) -> Tensor:
        return s_max * (s_min / s_max) ** _fractions(steps)


class PowerTime(Grid):
    r"""t = tau^power with tau in equal steps; power 1 is uniform in t, 4 suits geometric Brownian motion.

    Args:
        power: exponent, > 0.
    """

    def __init__(self, power: float = 1.0) -> None:
        if not power > 0:
            raise ValueError(f"power must be > 0, got power={power}.")
        self.power = float(power)

    def levels(self, sde: SDE, s_max: float, s_min: float, steps: int) -> Tensor:
        high, low = (sde.time_of(max(s, sde.noise_ratio(0.0).item())) ** (1 / self.power) for s in (s_max, s_min))
        levels = sde.noise_ratio((high + _fractions(steps) * (low - high)) ** self.power)
        levels[0] = s_max
        return levels


class UniformTime(PowerTime):
    r"""t in equal steps."""

    def __init__(self) -> None:
        super().__init__(1.0)


class Levels(Grid):
    r"""Given noise ratios; a jump upward adds noise again (time travel).

    Args:
        values: positive noise ratios, the first the start; a final 0 is added. With a start given to the sampler, the values
            below it are used.
    """

    def __init__(self, values: Sequence[float]) -> None:
        if len(values) < 1 or not all(v > 0 for v in values):
            raise ValueError(f"levels must be positive noise ratios, got {list(values)}.")
        self.values = tuple(float(v) for v in values)

    def __call__(self, sde: SDE, steps: int, start: float | None = None) -> Tensor:
        values = self.values if start is None else (float(start), *(v for v in self.values if v < float(start)))
        return as_time([*values, 0.0])

    def levels(self, sde: SDE, s_max: float, s_min: float, steps: int) -> Tensor:
        return as_time(self.values)
