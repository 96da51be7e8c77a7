r"""Multistep methods on the straight path, where the probability-flow ODE is dx/dtau = V:

    x = (1 - tau) u = (1 - tau) y_0 + tau c eps,    tau = s/(c + s),    V = E[c eps - y_0 | u] = c (u - D)/s - D

tau runs over [0, 1] and V stays bounded at both ends, where D in log s does not: high orders hold with few calls, and
the last step to s = 0 is an ordinary one. c is the scale of the data.

Grids of few steps have tau-steps that grow several times from one to the next. A polynomial through the old values
then has large weights of both signs, which multiply the errors of a network; the oldest values are left out until

    sum_j |w_j| <= limit |sum_j w_j|.

Guidance of a large scale and known values make V steep, so that old values mislead (docs/samplers.md, "Under
guidance"). Then the limit is small, unless one is given.
"""

from typing import Any, ClassVar

from torch import Tensor

from scoregen.checks import at_least, positive
from scoregen.samplers.base import Denoise, Noise
from scoregen.samplers.grids import Grid
from scoregen.samplers.multistep import AdamsBashforthMoulton, History, polynomial_weights, weighted_sum


class VelocityABM(AdamsBashforthMoulton):
    r"""Adams-Bashforth-Moulton on the velocity of the straight path; predictor of order k, corrector of order k + 1.

    Args:
        steps: number of steps and of network calls.
        grid: noise ratios.
        order: k, 1 to 4, where the limit allows it.
        scale: c, about the standard deviation of the data in model coordinates.
        limit: largest amplification of errors in V by the weights of a step, >= 1; 20 is better with an exact denoiser.
            None: 10, or 2 for a denoiser that is steep: guided by a scale above 2, or given known values.

    Raises:
        ValueError: an order outside 1..4, scale <= 0 or limit < 1.

    Reference: Liu et al. (2023), arXiv 2209.03003, for the path; Zhang & Chen (2023), arXiv 2204.13902, for multistep
        methods in changed coordinates.
    """

    highest_order = 4
    usual_limit: ClassVar[float] = 10.0
    steep_limit: ClassVar[float] = 2.0

    def __init__(
        self, steps: int = 18, grid: Grid | None = None, order: int = 4, scale: float = 0.5, limit: float | None = None
    ) -> None:
        super().__init__(steps, grid, order)
        positive(scale=scale)
        if limit is not None:
            at_least(1, limit=limit)
        self.scale, self.limit = float(scale), None if limit is None else float(limit)

    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        if self.limit is not None:
            return super().step(denoise, u, s, n, noise, memory)
        limit = self.steep_limit if getattr(denoise, "is_steep", False) else self.usual_limit
        chosen = type(self)(self.steps, self.grid, self.order, self.scale, limit)
        return chosen.step(denoise, u, s, n, noise, memory)

    def value(self, u: Tensor, denoised: Tensor, s: float) -> Tensor:
        return (u - denoised) * (self.scale / s) - denoised

    def advance(self, u: Tensor, s: float, n: float, history: History) -> Tensor:
        tau = s / (self.scale + s)
        weights = self._weights(
            [level / (self.scale + level) - tau for level, _ in history], n / (self.scale + n) - tau
        )
        values = [value for _, value in history[: len(weights)]]
        return weighted_sum(u * (1 - tau), weights, values) * (1 + n / self.scale)

    def _weights(self, nodes: list[float], step: float) -> list[float]:
        limit = self.usual_limit if self.limit is None else self.limit
        for count in range(len(nodes), 1, -1):
            weights = polynomial_weights(nodes[:count], [step ** (i + 1) / (i + 1) for i in range(count)])
            if sum(map(abs, weights)) <= limit * abs(step):
                return weights
        return [step]
