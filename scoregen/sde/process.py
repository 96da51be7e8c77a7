r"""A process: a Gaussian path in the coordinates of a chart, and its SDEs in data space.

With x = psi(y) elementwise and dy = b dt + g dW, Ito's formula gives

    forward   dx = (psi' b + psi'' g^2 / 2) dt + psi' g dW,      b = f y + h
    reverse   dx = (psi' b~ - psi'' g^2 / 2) dt + psi' g dW,     b~ = f y + h - g^2 score,      dt < 0
    ODE       dx = psi' (f y + h - g^2 score / 2) dt
"""

from typing import Self

import torch
from torch import Tensor

from scoregen.rng import Generators, randn
from scoregen.sde.chart import Affine, Chart
from scoregen.sde.path import Path, Table, as_time, checked_time, expand, normal_log_prob, readable


class SDE(Path):
    r"""A path and a chart, with the law of the data at t = 1.

        y_1 ~ N(alpha_1 mean + shift_1, alpha_1^2 var + sigma_1^2), with the moments of the data in chart coordinates.
        They are 0 until `with_moments` sets them, per pixel or scalar.

    Args:
        chart: data to model coordinates; the identity unless given.
    """

    def __init__(self, chart: Chart | None = None) -> None:
        self.chart = Affine() if chart is None else chart
        self._mean, self._var = Table(0.0), Table(0.0)

    @property
    def data_mean(self) -> Tensor:
        r"""Mean of the data in chart coordinates, () or (*S), float64 on the CPU."""
        return self._mean.values

    @property
    def data_var(self) -> Tensor:
        r"""Their variance, shaped alike."""
        return self._var.values

    def moments(self, device: torch.device) -> tuple[Tensor, Tensor]:
        r"""Mean and variance on a device; single numbers stay on the CPU, see `expand`."""
        return self._mean.on(device), self._var.on(device)

    def with_moments(self, mean: Tensor | float, var: Tensor | float) -> Self:
        r"""Sets the moments of the data in chart coordinates, which the prior uses; returns self.

        Args:
            mean, var: scalars or tensors of the shape of one sample (*S), which broadcast to one shape.

        Raises:
            ValueError: when a variance is negative, a moment is not finite, or their shapes do not fit.
        """
        mean, var = as_time(mean).cpu(), as_time(var).cpu()
        if not bool(mean.isfinite().all() and var.isfinite().all() and (var >= 0).all()):
            raise ValueError(f"moments must be finite with var >= 0, got var from {var.min():.4g} to {var.max():.4g}.")
        try:
            self._mean, self._var = Table(mean + torch.zeros_like(var)), Table(var + torch.zeros_like(mean))
        except RuntimeError as error:
            raise ValueError(
                f"mean and var must have the shape of one sample, got {tuple(mean.shape)} and {tuple(var.shape)}."
            ) from error
        return self

    def to_chart(self, x: Tensor) -> Tensor:
        r"""Data x (B, *S) to model coordinates y."""
        return self.chart.forward(x)

    def from_chart(self, y: Tensor) -> Tensor:
        r"""Model coordinates y (B, *S) to data x."""
        return self.chart.inverse(y)

    def log_det(self, x: Tensor) -> Tensor:
        r"""log |dy/dx| of the chart, (B,)."""
        return self.chart.log_det(x)

    def to_u(self, x_t: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        r"""EDM coordinates (u, s) of the noisy data x_t (B, *S) at time t, () or (B,).

        Raises:
            ValueError: t outside [0, 1], or where nothing of the data is left (alpha = 0).
        """
        t = checked_time(t)
        y, alpha = self.to_chart(x_t), self.alpha(t)
        if readable(alpha) and not bool((alpha > 0).all()):
            raise ValueError(
                f"t must be below 1 for {type(self).__name__}: pure noise (alpha = 0) has no u, got t = 1."
            )
        return (y - expand(self.shift(t), y)) / expand(alpha, y), self.noise_ratio(t)

    def from_u(self, u: Tensor, t: Tensor | float) -> Tensor:
        r"""Noisy data x_t of EDM coordinates u (B, *S) at time t, () or (B,)."""
        t = checked_time(t)
        return self.from_chart(expand(self.alpha(t), u) * u + expand(self.shift(t), u))

    def perturb(self, x_0: Tensor, t: Tensor | float, eps: Tensor) -> Tensor:
        r"""The exact marginal x_t given x_0.

        Args:
            x_0: data (B, *S); t: () or (B,); eps: standard normal (B, *S).

        Raises:
            ValueError: t outside [0, 1].
        """
        y = self.to_chart(x_0)
        t = checked_time(t)
        return self.from_chart(expand(self.alpha(t), y) * y + expand(self.shift(t), y) + expand(self.sigma(t), y) * eps)

    def drift(self, x: Tensor, t: Tensor | float) -> Tensor:
        r"""The Ito drift in data space, (B, *S)."""
        y = self.to_chart(x)
        f, h, g2 = (expand(c, y) for c in self._finite_coefficients(t))
        slope, bend = self.chart.inverse_derivatives(y)
        return slope * (f * y + h) + bend * g2 / 2

    def diffusion(self, x: Tensor, t: Tensor | float) -> Tensor:
        r"""The diffusion coefficient in data space, (B, *S)."""
        y = self.to_chart(x)
        _, _, g2 = self._finite_coefficients(t)
        return self.chart.inverse_derivatives(y)[0] * expand(g2.clamp_min(0).sqrt(), y)

    def reverse_drift(self, x: Tensor, t: Tensor | float, score: Tensor, stochastic: bool = True) -> Tensor:
        r"""The drift, in data space and for dt < 0, of the reverse SDE or of the probability-flow ODE.

        Args:
            x: noisy data (B, *S); t: () or (B,).
            score: grad_y log q_t(y_t), in chart coordinates (B, *S), as `Denoiser.score` gives it.
            stochastic: the reverse SDE; else the probability-flow ODE.

        Reference: Song et al. (2021), arXiv 2011.13456, equations 6 and 13, with Ito's formula for the chart.
        """
        y = self.to_chart(x)
        f, h, g2 = (expand(c, y) for c in self._finite_coefficients(t))
        slope, bend = self.chart.inverse_derivatives(y)
        if stochastic:
            return slope * (f * y + h - g2 * score) - bend * g2 / 2
        return slope * (f * y + h - g2 * score / 2)

    def _finite_coefficients(self, t: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        found = self.coefficients(checked_time(t))
        if not all(bool(c.isfinite().all()) for c in found if readable(c)):
            raise ValueError(
                f"t must be inside (0, 1) for {type(self).__name__}, whose drift has no limit at the end, got t={t}."
            )
        return found

    def prior_sample(
        self,
        shape: tuple[int, ...],
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        r"""Draws of x_1, (B, *S)."""
        eps = randn(shape, generator, dtype, device)
        mean, std = self._prior(eps)
        return self.from_chart(mean + std * eps)

    def prior_log_prob(self, x_T: Tensor) -> Tensor:
        r"""The log-density of the prior in data space, in nats, (B,)."""
        y = self.to_chart(x_T)
        mean, std = self._prior(y)
        return normal_log_prob(y, mean, std) + self.log_det(x_T)

    def _prior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        one = as_time(1.0)
        mean, var = self.moments(like.device)
        mean = self.alpha(one) * mean + self.shift(one)
        std = (self.alpha(one) ** 2 * var + self.sigma(one) ** 2).sqrt()
        return mean.to(like.dtype), std.to(like.dtype)
