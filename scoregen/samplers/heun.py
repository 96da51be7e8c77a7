r"""Heun's method on du/ds = (u - D)/s, with churn.

Reference: Karras et al. (2022), arXiv 2206.00364, algorithms 1 and 2.
"""

import math
from typing import Any

from torch import Tensor

from scoregen.checks import at_least
from scoregen.samplers.base import Denoise, Noise, Sampler
from scoregen.samplers.grids import Grid


class Heun(Sampler):
    r"""EDM's sampler; order 2 without churn; 2 steps - 1 network calls.

    Args:
        steps: number of steps.
        grid: noise ratios.
        churn: S_churn, total noise added and removed again, in equal parts over `steps` (with `Levels`, give their
            number); 0 is deterministic. No level is raised above noise_ratio(1), where no network was trained.
        churn_min, churn_max: noise ratios between which it acts (S_tmin, S_tmax).
        churn_noise: factor of the added noise (S_noise).

    Raises:
        ValueError: negative churn or churn_noise, churn_min above churn_max.
    """

    def __init__(
        self,
        steps: int = 18,
        grid: Grid | None = None,
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float = math.inf,
        churn_noise: float = 1.0,
    ) -> None:
        super().__init__(steps, grid)
        at_least(0, churn=churn, churn_noise=churn_noise)
        if not 0 <= churn_min <= churn_max:
            raise ValueError(
                f"churn_min must satisfy 0 <= churn_min <= churn_max, got churn_min={churn_min}, churn_max={churn_max}."
            )
        self.churn, self.churn_min, self.churn_max, self.churn_noise = churn, churn_min, churn_max, churn_noise

    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        if self.churn > 0 and self.churn_min <= s <= self.churn_max:
            raised = s * (1 + min(self.churn / self.steps, math.sqrt(2) - 1))
            raised = min(raised, max(denoise.sde.noise_ratio(1.0).item(), s))
            u = u + self.churn_noise * math.sqrt(raised**2 - s**2) * noise(u)
            s = raised
        slope = (u - denoise(u, s)) / s
        euler = u + (n - s) * slope
        if n == 0:
            return euler, None
        slope_n = (euler - denoise(euler, n)) / n
        return u + (n - s) * (slope + slope_n) / 2, None
