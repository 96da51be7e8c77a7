r"""Generative training on noisy data alone, above their noise level (ambient Tweedie).

The data are y = y_0 + s_n e. At s > s_n take u = y + sqrt(s^2 - s_n^2) z, of noise ratio s: then

    E[y | u] = ((s^2 - s_n^2) E[y_0 | u] + s_n^2 u) / s^2

so D = E[y_0 | u] minimises w(s) |((s^2 - s_n^2) D + s_n^2 u)/s^2 - y|^2 / dim.

Reference: Daras, Dimakis, Daskalakis (2024), arXiv 2404.10177, theorem 3.2.
"""

from typing import Any

from torch import Tensor

from scoregen import checks
from scoregen.losses.base import Loss, TrainableDenoiser, drop_labels
from scoregen.losses.gaussian_split import noise_ratio_of
from scoregen.losses.noise_levels import LogNormal, NoiseLevels, stratified
from scoregen.losses.splitting import check_levels
from scoregen.losses.weightings import EDMWeighting, Weighting
from scoregen.rng import Generators, randn
from scoregen.sde.path import expand
from scoregen.sde.process import SDE

_LEAST = 1.01  # of the noise of the data: there the loss says nothing of D


class AmbientScoreMatching(Loss):
    r"""Denoising score matching above the noise of the data, from noisy data (B, *S) alone.

        Levels of the law below 1.01 times the noise of the data are raised to that. It is the `s_min` of
        the model's process: a sampler ends with the denoised image there.

    Args:
        sigma: standard deviation of the noise, in units of the data, > 0.
        noise_levels: law of the noise ratio; EDM's log-normal unless given. weighting: w(s); EDM's unless given.
        label_dropout: probability of training a sample without its label.

    Raises:
        ValueError: values out of range; in `begin`, noise beyond the process. TypeError: a model whose chart is not
            affine.
    """

    sharded = True

    def __init__(
        self,
        sigma: float,
        noise_levels: NoiseLevels | None = None,
        weighting: Weighting | None = None,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        checks.positive(sigma=sigma)
        checks.inside(0, 1, label_dropout=label_dropout)
        self.sigma, self.label_dropout = float(sigma), label_dropout
        self.noise_levels, self.weighting = noise_levels or LogNormal(), weighting or EDMWeighting()

    def least_s(self, sde: SDE) -> float:
        return _LEAST * noise_ratio_of(sde, self.sigma, type(self).__name__)

    def begin(self, model: Any) -> None:
        least = self.least_s(model.sde)
        check_levels(model.sde, least, least, "Give a process whose noise reaches beyond that of the data.")

    def forward(
        self,
        model: TrainableDenoiser,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        least, y = noise_ratio_of(model.sde, self.sigma, type(self).__name__), model.sde.to_chart(x_0)
        if quantile is None:
            quantile = stratified(len(y), generator, y.device)
        s = self.noise_levels(model.sde, quantile).clamp_min(_LEAST * least)
        label = drop_labels(model, label, self.label_dropout, generator)
        u = y + expand((s.square() - least**2).sqrt(), y) * randn(y.shape, generator, y.dtype, y.device)
        share = expand(1 - (least / s).square(), y)
        error = (share * model(u, s, label) + (1 - share) * u - y).square().flatten(1).mean(1)
        return self.weighting(s, model.sigma_data).to(error) * error
