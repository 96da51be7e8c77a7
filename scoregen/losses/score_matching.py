r"""Denoising score matching.

    L = E_s E w(s) |D(y_0 + s eps, s) - y_0|^2 / dim

Its minimiser is D = E[y_0 | u] for every weighting w > 0 and every law of s with full support; both are separate
choices.
"""

from abc import abstractmethod

from torch import Tensor

from scoregen import checks
from scoregen.losses.base import Loss, TrainableDenoiser, drop_labels
from scoregen.losses.noise_levels import LogNormal, NoiseLevels, stratified
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
        s = self.noise_levels(model.sde, quantile)
        label = drop_labels(model, label, self.label_dropout, generator)
        u = y + expand(s, y) * randn(y.shape, generator, y.dtype, y.device)
        error = self.squared_error(model.sde, model(u, s, label), y, u, s).flatten(1).mean(1)
        return self.weighting(s, model.sigma_data).to(error) * error


class DenoisingScoreMatching(ScoreMatching):
    r"""Denoising score matching in chart coordinates.

    Args:
        noise_levels: law of the noise ratio; EDM's log-normal unless given.
        weighting: w(s); EDM's unless given.
        label_dropout: probability of training a sample without its label, for classifier-free guidance.

    Raises:
        ValueError: label_dropout outside [0, 1].

    Reference: Vincent (2011); Karras et al. (2022), arXiv 2206.00364, equation 108.
    """

    def __init__(
        self,
        noise_levels: NoiseLevels | None = None,
        weighting: Weighting | None = None,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__(noise_levels or LogNormal(), weighting or EDMWeighting(), label_dropout)

    def squared_error(self, sde: SDE, denoised: Tensor, y: Tensor, u: Tensor, s: Tensor) -> Tensor:
        return (denoised - y).square()
