r"""Denoising score matching.

    L = E_s E w(s) |D(y_0 + s eps, s) - y_0|^2 / dim

Its minimiser is D = E[y_0 | u] for every weighting w > 0 and every law of s with full support; both are separate
choices.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from scoregen.rng import Generators, rand, randn
from scoregen.sde.path import expand
from scoregen.sde.process import SDE


class Loss(nn.Module, ABC):
    r"""The contract of a loss: a value a sample, from data in its own units. A module, so it may have saved state.

    Attributes:
        comparable: whether values of different steps, and of parts of a batch, compare: what early stopping needs.
        needs_labels: whether there is no loss without them.
    """

    comparable: bool = True
    needs_labels: bool = False

    @abstractmethod
    def forward(
        self,
        model: nn.Module,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        r"""The loss of each sample.

        Args:
            model: the denoiser (or classifier).
            x_0: data (B, *S) in its own units; label: (B,) or None.
            generator: one, or a list with one a sample.
            quantile: (B,) in [0, 1): where the noise level of each sample lies in its law. The trainer gives values
                stratified over the global batch; without it they are stratified over this batch.

        Returns:
            (B,).
        """

    def begin(self, model: nn.Module) -> None:
        r"""Told the model once by the trainer, before a checkpoint is read: state beside it is made here."""

    def at(self, step: int, steps: int) -> None:
        r"""Told by the trainer before each of its `steps` steps: what a loss schedules is a function of them."""

    def metrics(self) -> dict[str, float]:
        r"""More numbers for the log, since the last call; on every process."""
        return {}


class NoiseLevels(ABC):
    r"""A law of the noise ratio s, by its quantile function."""

    @abstractmethod
    def __call__(self, sde: SDE, quantile: Tensor) -> Tensor:
        r"""s (B,) for quantiles (B,) in [0, 1), float64 on the CPU, inside the range of the process."""


class LogNormal(NoiseLevels):
    r"""log s ~ N(mean, std^2), clipped to the range of the process.

    Args:
        mean: of log s (P_mean). std: of log s (P_std), > 0.

    Reference: Karras et al. (2022), arXiv 2206.00364, table 1.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        if not 0 < std < math.inf or not math.isfinite(mean):
            raise ValueError(f"mean must be finite and std > 0 and finite, got mean={mean}, std={std}.")
        self.mean, self.std = mean, std

    def __call__(self, sde: SDE, quantile: Tensor) -> Tensor:
        tail = torch.finfo(torch.float32).eps
        s = (self.mean + self.std * torch.special.ndtri(quantile.double().clamp(tail, 1 - tail))).exp()
        return s.clamp(sde.s_min, sde.s_max)


class UniformTime(NoiseLevels):
    r"""t uniform between the times of s_min and s_max."""

    def __call__(self, sde: SDE, quantile: Tensor) -> Tensor:
        low, high = sde.time_of(sde.s_min), sde.time_of(sde.s_max)
        return sde.noise_ratio(low + quantile.double() * (high - low))


class LogUniform(NoiseLevels):
    r"""log s uniform over the range of the process."""

    def __call__(self, sde: SDE, quantile: Tensor) -> Tensor:
        return sde.s_min * (sde.s_max / sde.s_min) ** quantile.double()


class Weighting(ABC):
    r"""w(s), the weight of |D - y_0|^2."""

    @abstractmethod
    def __call__(self, s: Tensor, sigma_data: float) -> Tensor:
        r"""The weight (B,) at noise ratios s (B,)."""


class EDMWeighting(Weighting):
    r"""1/s^2 + 1/sigma_data^2: every level of an EDM-preconditioned network starts with loss 1."""

    def __call__(self, s: Tensor, sigma_data: float) -> Tensor:
        return (s**2 + sigma_data**2) / (s * sigma_data) ** 2


class NoiseWeighting(Weighting):
    r"""1/s^2: the squared error of eps (DDPM's simple loss; lambda = v of multiplicative score matching)."""

    def __call__(self, s: Tensor, sigma_data: float) -> Tensor:
        return s**-2


class DataWeighting(Weighting):
    r"""1: the squared error of y_0."""

    def __call__(self, s: Tensor, sigma_data: float) -> Tensor:
        return torch.ones_like(s)


class VelocityWeighting(Weighting):
    r"""1 + 1/s^2: the squared error of v (Salimans & Ho)."""

    def __call__(self, s: Tensor, sigma_data: float) -> Tensor:
        return 1 + s**-2


def stratified(batch: int, generator: Generators) -> Tensor:
    r"""(B,) uniform draws, one in each of B equal strata, float64."""
    return (torch.arange(batch, dtype=torch.float64) + rand((batch,), generator, torch.float64, "cpu")) / batch


def drop_labels(model: nn.Module, label: Tensor | None, probability: float, generator: Generators) -> Tensor | None:
    r"""Labels with a random part replaced by -1 ("no label"); None for an unconditional model."""
    if label is None or model.num_classes is None:
        return None
    drop = rand((len(label),), generator, torch.float32, label.device) < probability
    return torch.where(drop, -1, label.long())


class ScoreMatching(Loss):
    r"""w(s) times a squared error of D(y_0 + s eps, s), at noise ratios of a given law.

    Args:
        noise_levels: law of the noise ratio. weighting: w(s).
        label_dropout: probability of training a sample without its label.
    """

    def __init__(self, noise_levels: NoiseLevels, weighting: Weighting, label_dropout: float = 0.0) -> None:
        super().__init__()
        self.noise_levels, self.weighting, self.label_dropout = noise_levels, weighting, label_dropout

    @abstractmethod
    def squared_error(self, sde: SDE, denoised: Tensor, y: Tensor, u: Tensor, s: Tensor) -> Tensor:
        r"""The squared error of D(u, s) (B, *S), elementwise.

        Args:
            denoised: D(u, s). y: data in chart coordinates. u: y + s eps. s: (B,) float64 on the CPU.
        """

    def forward(
        self,
        model: nn.Module,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        y = model.sde.to_chart(x_0)
        if quantile is None:
            quantile = stratified(len(y), generator)
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
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout must lie in [0, 1], got label_dropout={label_dropout}.")
        super().__init__(noise_levels or LogNormal(), weighting or EDMWeighting(), label_dropout)

    def squared_error(self, sde: SDE, denoised: Tensor, y: Tensor, u: Tensor, s: Tensor) -> Tensor:
        return (denoised - y).square()


class WrappedLoss(Loss):
    r"""A loss around another one, which hears what the trainer says.

    Args:
        base_loss: any loss.

    Raises:
        TypeError: base_loss is no loss.
    """

    def __init__(self, base_loss: Loss) -> None:
        super().__init__()
        if not isinstance(base_loss, Loss):
            raise TypeError(f"base_loss must be a loss of scoregen.losses, got {type(base_loss).__name__}.")
        self.base_loss = base_loss
        self.comparable, self.needs_labels = base_loss.comparable, base_loss.needs_labels

    def begin(self, model: nn.Module) -> None:
        self.base_loss.begin(model)

    def at(self, step: int, steps: int) -> None:
        self.base_loss.at(step, steps)

    def metrics(self) -> dict[str, float]:
        return self.base_loss.metrics()
