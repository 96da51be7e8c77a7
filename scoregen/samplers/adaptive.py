r"""The probability-flow ODE in l = log s, du/dl = u - D, solved to a tolerance, which decides the number of calls."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from scoregen.checks import positive
from scoregen.samplers.base import Callback, Denoise, Noise, Sampler
from scoregen.samplers.grids import Grid
from scoregen.samplers.ode import RK45, ODESolver


class AdaptiveFlow(Sampler):
    r"""An embedded Runge-Kutta pair on the probability-flow ODE, from the first to the last level of a grid.

        The last jump, to s = 0, returns D. Levels between the ends do not matter, but for jumps upward (time travel).
        All of the batch shares its steps, so a sample depends on its batch within the tolerance. Networks are rough at
        the level of their precision: in float32 a tolerance below 1e-4 buys calls, not accuracy.

    Args:
        tolerance: relative and absolute error of a step, > 0.
        grid: noise ratios, for the ends.
        solver: replaces RK45 with this tolerance.

    Raises:
        ValueError: tolerance <= 0.

    Reference: Song et al. (2021), arXiv 2011.13456, section 4.3.
    """

    def __init__(self, tolerance: float = 1e-3, grid: Grid | None = None, solver: ODESolver | None = None) -> None:
        super().__init__(2, grid)
        positive(tolerance=tolerance)
        self.tolerance = float(tolerance)
        self.solver = RK45(tolerance) if solver is None else solver
        self.couples_batch = isinstance(self.solver, RK45)

    def integrate(
        self,
        denoise: Denoise,
        u: Tensor,
        grid: Tensor,
        noise: Noise,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> Tensor:
        return super().integrate(denoise, u, torch.stack(list(_turns(grid))), noise, progress, callback)

    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        if n == 0:
            return denoise(u, s), None
        return self.solver(lambda tau, y: y - denoise(y, math.exp(tau)), u, math.log(s), math.log(n)), None


def _turns(grid: Tensor) -> Iterator[Tensor]:
    r"""The ends of the stretches of a grid that decrease to a level > 0, and the final 0."""
    for i, level in enumerate(grid):
        inner = 0 < i < len(grid) - 1
        if not (inner and grid[i - 1] > level > grid[i + 1] > 0):
            yield level
