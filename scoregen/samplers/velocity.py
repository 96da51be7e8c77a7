r"""Multistep methods on the straight path, where the probability-flow ODE is dx/dtau = V:

    x = (1 - tau) u = (1 - tau) y_0 + tau c eps,    tau = s/(c + s),    V = E[c eps - y_0 | u] = c (u - D)/s - D

tau runs over [0, 1] and V stays bounded at both ends, where D in log s does not: high orders hold with few calls, and
the last step to s = 0 is an ordinary one. c is the scale of the data.
"""

from torch import Tensor

from scoregen.samplers.grids import Grid
from scoregen.samplers.multistep import AdamsBashforthMoulton, History, polynomial_weights, weighted_sum


class VelocityABM(AdamsBashforthMoulton):
    r"""Adams-Bashforth-Moulton on the velocity of the straight path; predictor of order k, corrector of order k + 1.

    Args:
        steps: number of steps and of network calls.
        grid: noise ratios.
        order: k, 1 to 4; 1 with one step is DDIM.
        scale: c, about the standard deviation of the data in model coordinates.

    Raises:
        ValueError: an order outside 1..4, or scale <= 0.

    Reference: Liu et al. (2023), arXiv 2209.03003, for the path; Zhang & Chen (2023), arXiv 2204.13902, for multistep
    methods
        in changed coordinates.
    """

    highest_order = 4

    def __init__(self, steps: int = 18, grid: Grid | None = None, order: int = 3, scale: float = 0.5) -> None:
        super().__init__(steps, grid, order)
        if not scale > 0:
            raise ValueError(f"scale must be > 0, got scale={scale}; it is the standard deviation of the data.")
        self.scale = float(scale)

    def value(self, u: Tensor, denoised: Tensor, s: float) -> Tensor:
        return (u - denoised) * (self.scale / s) - denoised

    def advance(self, u: Tensor, s: float, n: float, history: History) -> Tensor:
        tau = s / (self.scale + s)
        step = n / (self.scale + n) - tau
        nodes = [level / (self.scale + level) - tau for level, _ in history]
        weights = polynomial_weights(nodes, [step ** (i + 1) / (i + 1) for i in range(len(nodes))])
        x = weighted_sum(u * (1 - tau), weights, [value for _, value in history])
        return x * (1 + n / self.scale)
