r"""Denoising score matching with its squared errors counted in data units.

On a chart x = psi(y), to first order |psi(D) - psi(y_0)|^2 = psi'(D)^2 |D - y_0|^2, so

    L = E_s E w(s) sum_p psi'(D_p)^{2 power} (D_p - y_{0,p})^2 / dim,      the factor without gradient

D is a function of the noisy u, and so is the factor: at every u the minimiser is still E[y_0 | u], by any power. What
changes is where a network of finite size makes its errors. On a log chart psi' grows with the intensity: plain score
matching spends most of the network on the darkest pixels, whose logarithms differ the most.
"""

import torch
from torch import Tensor

from scoregen import checks
from scoregen.losses.noise_levels import NoiseLevels
from scoregen.losses.score_matching import DenoisingScoreMatching
from scoregen.losses.weightings import Weighting
from scoregen.sde.process import SDE


class DataUnitMatching(DenoisingScoreMatching):
    r"""Denoising score matching whose squared errors count as they do in data units, for despeckling.

    Args:
        noise_levels: law of the noise ratio; EDM's log-normal unless given.
        weighting: w(s); EDM's unless given.
        label_dropout: probability of training a sample without its label, for classifier-free guidance.
        power: 0 counts errors in chart coordinates (plain score matching), 1 in data units.
        high: largest chart coordinate of the data, 1 for a standardised chart. Above it, where only an untrained
            network goes, psi' is that of `high`.

    Raises:
        ValueError: power or label_dropout outside [0, 1], high not finite.
    """

    def __init__(
        self,
        noise_levels: NoiseLevels | None = None,
        weighting: Weighting | None = None,
        label_dropout: float = 0.1,
        power: float = 1.0,
        high: float = 1.0,
    ) -> None:
        super().__init__(noise_levels, weighting, label_dropout)
        checks.inside(0, 1, power=power)
        checks.finite(high=high)
        self.power, self.high = power, high

    def squared_error(self, sde: SDE, denoised: Tensor, y: Tensor, u: Tensor, s: Tensor) -> Tensor:
        return squared_in_data_units(sde, denoised, y, self.power, self.high)


def squared_in_data_units(sde: SDE, denoised: Tensor, y: Tensor, power: float, high: float) -> Tensor:
    r"""psi'(D)^{2 power} (D - y)^2 (B, *S), psi' being that of `high` above it.

    Args:
        denoised: D. y: what it estimates, in chart coordinates. power, high: as in `DataUnitMatching`.
    """
    with torch.no_grad():  # a function of u alone, so that E[y_0 | u] stays the minimiser
        slope = sde.chart.inverse_derivatives(denoised.clamp(max=high))[0] ** (2 * power)
    return slope * (denoised - y).square()
