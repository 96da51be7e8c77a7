r"""The DDIM family: u' = D + n (sqrt(1 - k) (u - D)/s + sqrt(k) z) from noise ratio s to n, z ~ N(0, I).

k = 0 is DDIM (Euler on the probability-flow ODE), k = eta^2 (1 - (n/s)^2) is DDIM with eta (1: ancestral sampling of
DDPM), k = 1 is multistep consistency sampling.

A step leads to the level n sqrt(1 - k) along the flow and adds noise. A flow map D(u, s, r) is told that level, with
which the step is exact: of DDIM in any number of steps, of the others in law.

Reference: Song, Meng, Ermon (2021), arXiv 2010.02502, equations 12 and 16; Song et al. (2023), arXiv 2303.01469,
algorithm 1.
"""

import math
from typing import Any

from torch import Tensor

from scoregen.checks import inside
from scoregen.samplers.base import Denoise, Noise, Sampler, towards
from scoregen.samplers.grids import Grid, Karras, OpenEnd


class DDIM(Sampler):
    r"""Denoising diffusion implicit models; order 1.

    Args:
        steps: number of steps and of network calls.
        grid: noise ratios.
        eta: 0 deterministic, 1 ancestral.

    Raises:
        ValueError: eta outside [0, 1].
    """

    def __init__(self, steps: int = 50, grid: Grid | None = None, eta: float = 0.0) -> None:
        super().__init__(steps, grid)
        inside(0, 1, eta=eta)
        self.eta = float(eta)

    def fresh_fraction(self, s: float, n: float) -> float:
        r"""k: the fraction of the variance n^2 that is fresh noise."""
        return self.eta**2 * (1 - (n / s) ** 2)

    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        k = self.fresh_fraction(s, n)
        level = n * math.sqrt(1 - k)
        denoised = towards(denoise, u, s, level)
        u = denoised + level / s * (u - denoised)
        if n > 0 and k > 0:
            u = u + n * math.sqrt(k) * noise(u)
        return u, None


class Ancestral(DDIM):
    r"""Ancestral sampling, DDIM with eta = 1: the posterior of DDPM; weak order 1.

    Args:
        steps: number of steps and of network calls.
        grid: noise ratios.

    Reference: Ho, Jain, Abbeel (2020), arXiv 2006.11239, algorithm 2.
    """

    def __init__(self, steps: int = 100, grid: Grid | None = None) -> None:
        super().__init__(steps, grid, eta=1.0)


class Consistency(DDIM):
    r"""Consistency sampling: denoise, add fresh noise of the next level, repeat; no noise after the last call.

    One step is one-shot denoising. With a consistency model, or a flow map, any number of steps samples the data.

    Args:
        steps: number of network calls.
        grid: noise ratios; OpenEnd(Karras()) unless given, so that no call is at the smallest level.
    """

    takes_consistency = True

    def __init__(self, steps: int = 1, grid: Grid | None = None) -> None:
        super().__init__(steps, OpenEnd(Karras()) if grid is None else grid)

    def fresh_fraction(self, s: float, n: float) -> float:
        return 1.0
