r"""Samplers of the reverse SDE in u, where the forward process is du = sqrt(2 s) dW (s as time):

    du = (1 + lambda^2) (u - D)/s ds + lambda sqrt(2 s) dW,   ds < 0

(lambda = 0 the probability-flow ODE, 1 the reverse SDE) and Langevin dynamics at a fixed level, du = score/2 d eta +
dW, score = (D - u)/s^2.

Reference: Song et al. (2021), arXiv 2011.13456, section 4 and appendix G.
"""

import copy
import math
from typing import Any

from torch import Tensor

from scoregen.checks import at_least, inside, whole
from scoregen.samplers.base import Denoise, Noise, Sampler
from scoregen.samplers.ddim import Ancestral
from scoregen.samplers.grids import Grid


class EulerMaruyama(Sampler):
    r"""Euler-Maruyama on the reverse SDE: u' = u + (1 + lambda^2) (s - n)/s (D - u) + lambda sqrt(2 s (s - n)) z.

        Weak order 1. The last step, to s = 0, returns D: the plain step would end with noise of the size of the last
        level.

    Args:
        steps: number of steps and of network calls.
        grid: noise ratios.
        stochasticity: lambda >= 0; 0 is DDIM.

    Raises:
        ValueError: stochasticity < 0.
    """

    def __init__(self, steps: int = 100, grid: Grid | None = None, stochasticity: float = 1.0) -> None:
        super().__init__(steps, grid)
        at_least(0, stochasticity=stochasticity)
        self.stochasticity = float(stochasticity)

    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        denoised = denoise(u, s)
        if n == 0:
            return denoised, None
        u = u + (1 + self.stochasticity**2) * (s - n) / s * (denoised - u)
        if self.stochasticity > 0:
            u = u + self.stochasticity * math.sqrt(2 * s * (s - n)) * noise(u)
        return u, None


class PredictorCorrector(Sampler):
    r"""Langevin steps D + (1 - r^2/2)(u - D) + r s z at each level, then a step of a predictor.

        A Langevin step of size r^2 s^2 leaves the law of u at this level alone, up to O(r^4); it repairs errors of the
        predictor.

    Args:
        steps: number of steps; each takes `corrections` network calls and those of the predictor.
        grid: noise ratios.
        predictor: the sampler whose step goes down; `Ancestral` unless given. It takes over the number of steps;
            its grid is not used, and it keeps no memory: a multistep method is of first order here, and
            `AmbientLangevin` counts no flips.
        corrections: Langevin steps at each level, >= 1.
        step_size: r in (0, 1]; r^2 = 4 snr^2 in the notation of the reference for a score of its expected size.

    Raises:
        ValueError: corrections < 1 or a step size outside (0, 1]. TypeError: a predictor that is no sampler.

    Reference: Song et al. (2021), arXiv 2011.13456, algorithms 2 to 5.
    """

    def __init__(
        self,
        steps: int = 50,
        grid: Grid | None = None,
        predictor: Sampler | None = None,
        corrections: int = 1,
        step_size: float = 0.5,
    ) -> None:
        super().__init__(steps, grid)
        whole(1, corrections=corrections)
        inside(0, 1, "(]", step_size=step_size)
        if predictor is not None and not isinstance(predictor, Sampler):
            raise TypeError(f"predictor must be a sampler, such as Ancestral(), got {predictor!r}.")
        self.predictor = Ancestral() if predictor is None else copy.copy(predictor)
        self.couples_batch = self.predictor.couples_batch
        self.corrections, self.step_size = int(corrections), float(step_size)

    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        r, self.predictor.steps = self.step_size, self.steps  # which may have been changed since the construction
        for _ in range(self.corrections):
            u = u + r**2 / 2 * (denoise(u, s) - u) + r * s * noise(u)
        # a fresh state has no history: the correction has left the trajectory of the predictor
        return self.predictor.step(denoise, u, s, n, noise, None)[0], None
