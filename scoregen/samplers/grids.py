r"""Grids: the decreasing noise ratios s_0 > ... > s_n = 0 at which a sampler calls the denoiser."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from scoregen.checks import positive, whole
from scoregen.sde.additive import karras
from scoregen.sde.path import as_time
from scoregen.sde.process import SDE

_SAME = 1e-9  # relative difference of two noise ratios that are one


class Grid(ABC):
    r"""A map from a process and a number of steps to noise ratios."""

    def __call__(self, sde: SDE, steps: int, start: float | None = None) -> Tensor:
        r"""The noise ratios of `steps` steps.

        Args:
            sde: gives the range, `s_max` to `s_min`.
            steps: number of steps, >= 1.
            start: noise ratio to start from instead of `s_max`.

        Returns:
            (steps + 1,) float64, strictly decreasing, the last entry 0.

        Raises:
            ValueError: steps < 1, a start without noise, or levels that do not decrease.
        """
        check_steps(steps)
        s_max = sde.s_max if start is None else float(start)
        if not s_max > 0:
            raise ValueError(f"the noise ratio at the start must be > 0, got {s_max}. There is nothing to remove.")
        levels = torch.cat([as_time(self.levels(sde, s_max, least_ratio(sde, s_max), steps)), as_time([0.0])])
        if not bool((levels.diff() < 0).all()):
            i = int((levels.diff() < 0).logical_not().nonzero()[0])
            raise ValueError(
                f"the noise ratios of {type(self).__name__} must decrease to 0, got {levels[i].item():.6g} and then "
                f"{levels[i + 1].item():.6g} (step {i + 1} of {steps}). Use fewer steps, or Levels for time travel."
            )
        return levels

    @abstractmethod
    def levels(self, sde: SDE, s_max: float, s_min: float, steps: int) -> Tensor:
        r"""The nonzero levels, (steps,), from s_max to s_min."""


def least_ratio(sde: SDE, s_max: float) -> float:
    r"""The last noise ratio above 0 of a grid from s_max: the least of the process, at most a tenth of s_max."""
    return max(sde.noise_ratio(0.0).item(), min(sde.s_min, s_max / 10))


def check_steps(steps: int) -> int:
    r"""The number of steps, if it is a whole number >= 1."""
    whole(1, steps=steps)
    return int(steps)


def check_grid(grid: Grid) -> Grid:
    r"""The grid, if it is one."""
    if not isinstance(grid, Grid):
        raise TypeError(f"grid must be a grid of scoregen.samplers, such as Karras(), got {grid!r}.")
    return grid


def check_ratios(sde: SDE, values: Sequence[float], name: str = "noise ratios") -> None:
    r"""Refuses noise ratios outside the range of a process, where no network was trained."""
    low, high = sde.noise_ratio(0.0).item(), sde.noise_ratio(1.0).item()
    if min(values) < low * (1 - _SAME) or max(values) > high * (1 + _SAME):
        raise ValueError(
            f"{name} must lie between noise_ratio(0)={low:.6g} and noise_ratio(1)={high:.6g} of "
            f"{type(sde).__name__}, got {min(values):.6g} to {max(values):.6g}."
        )


def _fractions(steps: int) -> Tensor:
    return torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu")


class Karras(Grid):
    r"""s^{1/rho} in equal steps.

    Args:
        rho: exponent, > 0; 7 is the usual one.

    Reference: Karras et al. (2022), arXiv 2206.00364, equation 5.
    """

    def __init__(self, rho: float = 7.0) -> None:
        positive(rho=rho)
        self.rho = float(rho)

    def levels(self, sde: SDE, s_max: float, s_min: float, steps: int) -> Tensor:
        levels = karras(_fractions(steps), s_max, s_min, self.rho)
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
        positive(power=power)
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


class OpenEnd(Grid):
    r"""A grid of one more step without its smallest level: few steps are spread over the range.

    Args:
        grid: that grid.

    Raises:
        TypeError: grid is no grid.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = check_grid(grid)

    def levels(self, sde: SDE, s_max: float, s_min: float, steps: int) -> Tensor:
        return self.grid.levels(sde, s_max, s_min, steps + 1)[:-1]


class Levels(Grid):
    r"""Given noise ratios; a jump upward adds noise again (time travel).

    Args:
        values: positive noise ratios from the start on, no two neighbours equal; a final 0 is added. With a start
            given to the sampler, the values below it are used. The steps of the sampler are not used.

    Raises:
        ValueError: values that are not positive and finite, or repeat; on a call when one is outside the range of the
            process.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.values = tuple(float(v) for v in values)
        repeats = any(a == b for a, b in pairwise(self.values))
        if not self.values or not all(0 < v < math.inf for v in self.values) or repeats:
            raise ValueError(
                f"values must be positive finite noise ratios, no two neighbours equal, got {list(values)}. "
                "The final 0 is added."
            )

    def __call__(self, sde: SDE, steps: int, start: float | None = None) -> Tensor:
        values = self.values if start is None else (float(start), *self._below(float(start)))
        check_ratios(sde, values)
        return as_time([*values, 0.0])

    def _below(self, start: float) -> list[float]:
        r"""The levels below the start, which is one of them up to rounding, perhaps; no two alike in a row."""
        below = [v for v in self.values if v < start * (1 - _SAME)]
        return [v for v, last in zip(below, [None, *below], strict=False) if v != last]

    def levels(self, sde: SDE, s_max: float, s_min: float, steps: int) -> Tensor:
        return as_time(self.values)


class TimeTravel(Grid):
    r"""A grid walked with jumps back: each stretch of `length` levels is repeated before the next.

        A jump back adds noise, which lets a guided or inpainted sample become consistent with itself.

    Args:
        grid: that grid.
        length: levels in a jump, >= 1.
        repeats: how often each stretch is repeated, >= 0.

    Raises:
        ValueError: length < 1 or repeats < 0; on a call when the grid jumps itself. TypeError: grid is no grid.

    Reference: Lugmayr et al. (2022), arXiv 2201.09865, section 4.2.
    """

    def __init__(self, grid: Grid, length: int = 5, repeats: int = 1) -> None:
        whole(1, length=length)
        whole(0, repeats=repeats)
        self.grid, self.length, self.repeats = check_grid(grid), int(length), int(repeats)

    def __call__(self, sde: SDE, steps: int, start: float | None = None) -> Tensor:
        levels = self.grid(sde, steps, start)
        if bool((levels.diff() >= 0).any()):
            raise ValueError(
                f"grid must decrease, got {type(self.grid).__name__} with jumps upward. Give TimeTravel a grid without."
            )
        steps = len(levels) - 1  # of given levels, their number
        order = list(range(len(levels)))
        walk = order[:1]
        for first in range(0, steps, self.length):
            # no jump leads back from the final 0, which ends the walk
            last = min(first + self.length, steps - 1)
            for _ in range(self.repeats if last > first else 0):
                walk += order[first + 1 : last + 1] + order[first : first + 1]
            walk += order[first + 1 : last + 1]
        return levels[[*walk, len(levels) - 1]]

    def levels(self, sde: SDE, s_max: float, s_min: float, steps: int) -> Tensor:
        return self.grid.levels(sde, s_max, s_min, steps)
