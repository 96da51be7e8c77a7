r"""Denoising score matching.

    L = E_s E w(s) |D(y_0 + s eps, s) - y_0|^2 / dim

Its minimiser is D = E[y_0 | u] for every weighting w > 0 and every law of s with full support; both are separate
choices.
"""

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from scoregen import checks
from scoregen.losses.adaptive_levels import AdaptiveLevels
from scoregen.losses.base import Loss, TrainableDenoiser, drop_labels
from scoregen.losses.noise_levels import LogNormal, NoiseLevels, stratified
from scoregen.losses.uncertainty import Uncertainty
from scoregen.losses.weightings import EDMWeighting, Weighting
from scoregen.rng import Generators, randn
from scoregen.sde.path import expand
from scoregen.sde.process import SDE


class ScoreMatching(Loss):
    r"""w(s) times a squared error of D(y_0 + s eps, s), at noise ratios of a given law.

    Args:
        noise_levels: law of the noise ratio. weighting: w(s).
        label_dropout: probability of training a sample without its label.

    Raises:
        ValueError: label_dropout outside [0, 1].
    """

    sharded = True

    def __init__(self, noise_levels: NoiseLevels, weighting: Weighting, label_dropout: float = 0.0) -> None:
        super().__init__()
        checks.inside(0, 1, label_dropout=label_dropout)
        self.noise_levels, self.weighting, self.label_dropout = noise_levels, weighting, label_dropout
        self.learned: Uncertainty | None = None
        self.adaptive: AdaptiveLevels | None = None

    @abstractmethod
    def squared_error(self, sde: SDE, denoised: Tensor, y: Tensor, u: Tensor, s: Tensor) -> Tensor:
        r"""The squared error of D(u, s) (B, *S), elementwise.

        Args:
            denoised: D(u, s). y: data in chart coordinates. u: y + s eps. s: (B,) float64.
        """

    def forward(
        self,
        model: TrainableDenoiser,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        y = model.sde.to_chart(x_0)
        if quantile is None:
            quantile = stratified(len(y), generator, y.device)
        adaptive = self.adaptive if torch.is_grad_enabled() else None  # held-out losses of all steps compare
        share: Tensor | None = None
        if adaptive is not None:
            quantile, share = adaptive(quantile)
        s = self.noise_levels(model.sde, quantile)
        label = drop_labels(model, label, self.label_dropout, generator)
        u = y + expand(s, y) * randn(y.shape, generator, y.dtype, y.device)
        error = self.squared_error(model.sde, model(u, s, label), y, u, s).flatten(1).mean(1)
        weight = self.weighting(s, model.sigma_data).to(error)
        value = weight * error
        if self.learned is not None and torch.is_grad_enabled():
            uncertainty = self.learned(s)
            value = value * (-uncertainty).exp() + uncertainty
            weight = weight * (-uncertainty.detach()).exp()
        if adaptive is None or share is None:
            return value
        scale = EDMWeighting()(s, model.sigma_data).to(error)  # of the network's output in D, squared: 1/scale
        adaptive.record(quantile, weight.square() * error.detach() / scale)
        return share.to(value) * value

    def at(self, step: int, steps: int) -> None:
        if self.adaptive is not None:
            self.adaptive.at(step)

    def trained(self) -> list[nn.Parameter]:
        return [] if self.learned is None else list(self.learned.parameters())


class DenoisingScoreMatching(ScoreMatching):
    r"""Denoising score matching in chart coordinates.

    Args:
        noise_levels: law of the noise ratio; EDM's log-normal unless given.
        weighting: w(s); EDM's unless given.
        label_dropout: probability of training a sample without its label, for classifier-free guidance.
        uncertainty: whether the weight of each level is learned, L e^{-u} + u; then every weighting gives the same
            loss up to a constant. Without gradients (held-out evaluation) the value is that of the weighting alone.
        levels: "fixed", or "adaptive": levels with large gradients are drawn more often and count less, which changes
            the variance of the gradient and not its mean.

    Raises:
        ValueError: label_dropout outside [0, 1], or an unknown name of levels.

    Reference: Vincent (2011); Karras et al. (2022), arXiv 2206.00364, equation 108; Karras et al. (2024), arXiv
        2312.02696, equations 14 to 16 and 21 (uncertainty).
    """

    def __init__(
        self,
        noise_levels: NoiseLevels | None = None,
        weighting: Weighting | None = None,
        label_dropout: float = 0.1,
        uncertainty: bool = False,
        levels: Literal["fixed", "adaptive"] = "fixed",
    ) -> None:
        super().__init__(noise_levels or LogNormal(), weighting or EDMWeighting(), label_dropout)
        checks.one_of(("fixed", "adaptive"), levels=levels)
        self.uncertainty, self.levels = uncertainty, levels
        self.learned = Uncertainty() if uncertainty else None
        self.adaptive = AdaptiveLevels() if levels == "adaptive" else None
        self.sharded = not uncertainty  # its parameters are not of the model that is cut

    def squared_error(self, sde: SDE, denoised: Tensor, y: Tensor, u: Tensor, s: Tensor) -> Tensor:
        return (denoised - y).square()
