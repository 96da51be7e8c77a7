r"""Denoisers from noisy data alone: each image is split into two independent ones, and one is predicted from the other.

    y1, y2 independent given the clean image, E[t(y2)] = y_0:    E |D(u(y1), s1) - t(y2)|^2 = E |D - y_0|^2 + const

so the minimiser is E[y_0 | y1], that of training on clean images; the noise of the target adds variance alone. A random
fraction a of the information goes to the target and 1 - a to the input, so that one network learns many noise levels.
The noise of the data themselves, a = 0, is a little less than the least of them, at the smallest a. There a network
would extrapolate what it is told, and gets the scale wrong by some percent; so it is told the least (`least_s`).

The weight of a pixel is 1 / (1/w(s1) + s2^2): where w(s) is the inverse of what a denoiser leaves open, as EDM's is for
normal data, this is the inverse variance of the residual, target noise included.

Reference: Monroy, Bacca, Tachella (2025), arXiv 2412.04648 (generalised recorrupted-to-recorrupted); Pang et al.
(2021), CVPR, for the normal law.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from scoregen import checks
from scoregen.losses.base import Loss, TrainableDenoiser, drop_labels
from scoregen.losses.noise_levels import stratified
from scoregen.losses.weightings import EDMWeighting, Weighting
from scoregen.rng import Generators
from scoregen.sde.process import SDE


class Halves(NamedTuple):
    r"""An image, split.

    Attributes:
        u: (B, *S) the input. s: (B,) its noise ratio. target: (B, *S), of mean y_0. noise: (B,) its deviation.
    """

    u: Tensor
    s: Tensor
    target: Tensor
    noise: Tensor


class Splitting(Loss):
    r"""The squared error of D(u(y1), s1) against an independent part of the same noisy image.

    Args:
        split: smallest and largest fraction a that goes to the target, 0 < low <= high < 1; a is uniform between them.
        label_dropout: probability of training a sample without its label.
        weighting: w(s); EDM's unless given.

    Raises:
        ValueError: split or label_dropout out of range.
    """

    sharded = True

    def __init__(
        self, split: Sequence[float] = (0.1, 0.9), label_dropout: float = 0.1, weighting: Weighting | None = None
    ) -> None:
        super().__init__()
        if len(split) != 2 or not 0 < split[0] <= split[1] < 1:
            raise ValueError(
                f"split must be the smallest and the largest fraction, 0 < low <= high < 1, got split={list(split)}."
            )
        checks.inside(0, 1, label_dropout=label_dropout)
        self.split, self.label_dropout, self.weighting = tuple(split), label_dropout, weighting or EDMWeighting()

    @abstractmethod
    def halves(self, sde: SDE, x: Tensor, fraction: Tensor, generator: Generators) -> Halves:
        r"""Noisy data x (B, *S) split at fractions (B,)."""

    @abstractmethod
    def squared_error(self, sde: SDE, denoised: Tensor, target: Tensor) -> Tensor:
        r"""The squared error of D (B, *S), elementwise."""

    def prepared(self, x: Tensor, generator: Generators) -> Tensor:
        r"""What of the noisy data is split: all of them."""
        return x

    def forward(
        self,
        model: TrainableDenoiser,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        if quantile is None:
            quantile = stratified(len(x_0), generator, x_0.device)
        label = drop_labels(model, label, self.label_dropout, generator)
        low, high = self.split
        x = self.prepared(x_0, generator)
        u, s, target, noise = self.halves(model.sde, x, low + (high - low) * quantile, generator)
        error = self.squared_error(model.sde, model(u, s, label), target).flatten(1).mean(1)
        left = 1 / self.weighting(s, model.sigma_data)
        return error / (left + noise.square()).to(error)


def check_levels(sde: SDE, low: float, high: float, remedy: str) -> None:
    r"""Refuses noise ratios that a process does not have.

    Args:
        low, high: the least and the largest noise ratio of the inputs. remedy: the message's last sentence.

    Raises:
        ValueError: they lie outside the range of the process.
    """
    if not sde.s_min <= low <= high <= sde.s_max:
        raise ValueError(
            f"the noise ratios of the inputs, {low:.3g} to {high:.3g}, must lie within those of the process, "
            f"{sde.s_min:.3g} to {sde.s_max:.3g}. {remedy}"
        )
