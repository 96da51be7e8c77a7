r"""A denoiser as a term of somebody's objective: regularisation by denoising, and score distillation.

    g(x) = w(s) (y - D(y, s))                     RED, no noise; w = 1/s^2 gives -grad log p_s(y)
    g(x) = E_{s, eps} w(s) (y - D(y + s eps, s))  SDS, with noise and one or several levels

y is x in chart coordinates, so p_s is a density of y. For normal data N(m, S) the field at one level is that of
N(m, S + s^2 I): exact data need s -> 0. The Jacobian of a network is not symmetric, so g is a field and has no value:
`log_likelihood` gives log p, at its price.

Reference: Romano, Elad, Milanfar (2017), arXiv 1611.02862 (RED); Poole et al. (2022), arXiv 2209.14988 (SDS); Pierson
et al. (2025), arXiv 2507.23715 (DiffuMatch: masks, and priors of functional maps).
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from scoregen import checks
from scoregen.losses.noise_levels import NoiseLevels
from scoregen.losses.weightings import NoiseWeighting, Weighting
from scoregen.models import DenoiserLike
from scoregen.models.protocol import check_mean
from scoregen.priors.levels import Annealed, ratios
from scoregen.rng import Generators, rand, randn
from scoregen.samplers.grids import check_ratios
from scoregen.samplers.start import check_label
from scoregen.sde.path import expand


class ScorePrior:
    r"""The field of a denoiser, for your own optimisation problem; no gradient passes through the network.

        It finds one probable point, and no sample: use `PiGDM` with a stochastic sampler for the posterior. With
        gradient descent and w = 1/s^2 a step must be below s^2; `fixed_point` has no such bound.

    Args:
        denoiser: D(u, s) of a process.
        levels: a noise ratio; several, whose fields are averaged; `Annealed(high, low)`; or a law of levels.
        weighting: w(s), the weight of |D - y_0|^2 whose half-gradient this is: `NoiseWeighting` is the score.
        draws: noisy copies of x whose fields are averaged (SDS), at each level; 0: D at x itself (RED).
        label: (B,) integers for class-conditional denoisers.
        transform: a differentiable map of x that the denoiser is asked about, such as torch.abs.

    Raises:
        ValueError: levels outside the range of the process, a law of levels with draws=0, or a consistency function.
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        levels: float | Sequence[float] | Annealed | NoiseLevels,
        *,
        weighting: Weighting | None = None,
        draws: int = 0,
        label: Tensor | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        checks.whole(0, draws=draws)
        check_mean(denoiser)
        if isinstance(levels, NoiseLevels):
            if draws == 0:
                raise ValueError("draws must be >= 1 for a law of levels, which are drawn, got draws=0.")
        else:
            check_ratios(denoiser.sde, ratios(levels), "levels")
        self.denoiser, self.levels, self.draws = denoiser, levels, int(draws)
        self.weighting = NoiseWeighting() if weighting is None else weighting
        self.label, self.transform = label, transform

    def at(self, step: int, steps: int) -> "ScorePrior":
        r"""This prior at one of `steps` steps, counted from 0: itself unless its levels are `Annealed`."""
        if not isinstance(self.levels, Annealed):
            return self
        return ScorePrior(
            self.denoiser,
            self.levels.at(step, steps),
            weighting=self.weighting,
            draws=self.draws,
            label=self.label,
            transform=self.transform,
        )

    def gradient(self, x: Tensor, generator: Generators = None) -> Tensor:
        r"""The field at x (B, *S), like x and in its units: that of y, pulled back by the chart and the transform."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            y = self.in_chart(leaf)
            target, weight = self.target(y.detach(), generator)
            pulled: Tensor
            (pulled,) = torch.autograd.grad(y, leaf, weight * (y.detach() - target))
        return pulled

    def loss(self, x: Tensor, generator: Generators = None) -> Tensor:
        r"""A scalar whose backward pass gives `gradient(x)`; its value is half the squared length of the field."""
        field = self.gradient(x, generator)
        inner = (field * x).sum()
        return inner - inner.detach() + field.square().sum() / 2

    def proximal_target(self, x: Tensor, generator: Generators = None) -> Tensor:
        r"""D in data units, (B, *S), averaged by w over levels and draws: for fixed points and ADMM of your own.

        Raises:
            ValueError: a prior with a transform, whose D is not of x.
        """
        self.refuse_transform()
        return self.denoiser.sde.from_chart(self.target(self.denoiser.sde.to_chart(x), generator)[0])

    def residual(self, x: Tensor, s: float, draws: int = 200, generator: Generators = None) -> Tensor:
        r"""E|u - D(u, s)|/s of each value, u = y + s eps, (B, *S): large where the prior is tight.

            It is at most about sqrt(2/pi) = .80 where x is what the prior expects.

        Args:
            x: (B, *S) in data units. s: noise ratio. draws: number of draws of eps, averaged.
        """
        checks.whole(1, draws=draws)
        check_ratios(self.denoiser.sde, [s], "s")
        with torch.no_grad():
            y = self.in_chart(x)
            found = torch.zeros_like(y)
            for _ in range(draws):
                u = y + s * randn(y.shape, generator, y.dtype, y.device)
                found += (u - self._denoised(u, s)).abs() / (s * draws)
        return found

    def target(self, y: Tensor, generator: Generators = None) -> tuple[Tensor, Tensor]:
        r"""T and the mean weight, () or (B, 1, ...), of the field weight * (y - T), in chart coordinates.

        Args:
            y: (B, *S) in chart coordinates.

        Raises:
            ValueError: annealed levels without a step, or a weight that is not finite.
        """
        check_label(self.denoiser, self.label, len(y))
        total, count = torch.zeros_like(y), 0
        weighted = torch.zeros((), dtype=y.dtype)  # of numbers, which stay on the CPU
        with torch.no_grad():
            for s, noise in self._looks(y, generator):
                weight = expand(self._weight(s), y)
                u = y if noise is None else y + expand(s, y) * noise
                total, weighted = total + weight * self._denoised(u, s), weighted + weight
                count += 1
        return total / weighted, weighted / count

    def in_chart(self, x: Tensor) -> Tensor:
        r"""What the denoiser is asked about, (B, *S): x or its transform, in chart coordinates."""
        return self.denoiser.sde.to_chart(x if self.transform is None else self.transform(x))

    def refuse_transform(self) -> None:
        r"""Raises ValueError for a prior that asks the denoiser about something else than x."""
        if self.transform is not None:
            raise ValueError("transform must be None here: D is then not of x. Use `gradient` or `loss`.")

    def _looks(self, y: Tensor, generator: Generators) -> Iterator[tuple[Tensor, Tensor | None]]:
        r"""The levels, () or (B,), and noises that are averaged."""
        if isinstance(self.levels, Annealed):
            raise ValueError("levels are annealed: name the step, prior.at(step, steps).gradient(x).")
        if isinstance(self.levels, NoiseLevels):
            for k in range(self.draws):
                quantile = (k + rand((len(y),), generator, torch.float32, "cpu").double()) / self.draws
                yield self.levels(self.denoiser.sde, quantile), randn(y.shape, generator, y.dtype, y.device)
            return
        for s in ratios(self.levels):
            level = torch.tensor(s, dtype=torch.float64)
            for _ in range(max(1, self.draws)):
                yield level, randn(y.shape, generator, y.dtype, y.device) if self.draws else None

    def _weight(self, s: Tensor) -> Tensor:
        weight = self.weighting(s, getattr(self.denoiser, "sigma_data", math.nan))
        if not bool((weight.isfinite() & (weight > 0)).all()):
            raise ValueError(
                f"weighting must be > 0 and finite, got {weight.tolist()} of {type(self.weighting).__name__}. Choose "
                "one that needs no sigma_data, which this denoiser lacks, or larger levels."
            )
        return weight

    def _denoised(self, u: Tensor, s: Tensor | float) -> Tensor:
        return self.denoiser(u, s, self.label)
