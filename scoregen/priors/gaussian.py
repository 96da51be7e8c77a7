r"""The denoiser of a normal law, in closed form: a baseline, a start for other priors, and an oracle of their tests.

D(u, s) = m + S (S + s^2 I)^{-1} (u - m)
"""

from typing import Self

import torch
from torch import Tensor

from scoregen.checks import at_least, whole
from scoregen.models import AbstractDenoiser, Observation
from scoregen.models.observation import conjugate_gradients
from scoregen.sde import SDE
from scoregen.sde.path import as_time


class GaussianDenoiser(AbstractDenoiser):
    r"""E[y_0 | u] for normal data: the best linear denoiser of any data with this mean and covariance.

    Args:
        mean: m (*S), in chart coordinates; its dtype is that of the computation.
        covariance: S (D, D) in chart coordinates, D the numbers of a sample.
        sde: the process, for its chart and its range of noise ratios.

    Raises:
        ValueError: shapes that do not match, a covariance that is not symmetric or has negative eigenvalues.
    """

    mean: Tensor
    vectors: Tensor
    values: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor, sde: SDE) -> None:
        super().__init__()
        size = mean.numel()
        if covariance.shape != (size, size):
            raise ValueError(
                f"covariance must be ({size}, {size}) for a mean of shape {tuple(mean.shape)}, got "
                f"{tuple(covariance.shape)}."
            )
        matrix = covariance.detach().double().cpu()
        scale = float(matrix.abs().max())
        if not bool((matrix - matrix.T).abs().max() <= 1e-5 * scale):
            raise ValueError("covariance must be symmetric and finite, got one that is not.")
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        if values[0] < -1e-5 * scale:
            raise ValueError(f"covariance must have no negative eigenvalues, got {float(values[0]):.3g}.")
        self.sde = sde
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("values", values.clamp_min(0).to(mean))
        self.register_buffer("vectors", vectors.to(mean))

    @classmethod
    def fit(cls, x: Tensor, sde: SDE, shrinkage: float = 0.0) -> Self:
        r"""The normal law of data: their mean and covariance in chart coordinates.

        Args:
            x: data (N, *S) in their own units, N >= 2. sde: the process.
            shrinkage: share in [0, 1] of the mean variance that the covariance is pulled to; with fewer samples than
                numbers it keeps the covariance from being singular.

        Raises:
            ValueError: fewer than two samples, values that are not finite, or a shrinkage outside [0, 1].
        """
        whole(2, **{"len(x)": len(x)})
        at_least(0, shrinkage=shrinkage, **{"1 - shrinkage": 1 - shrinkage})
        y = sde.to_chart(x)
        if not bool(y.isfinite().all()):
            raise ValueError("x must be finite in chart coordinates, got values that are not.")
        rows = y.double().flatten(1) if y.device.type != "mps" else y.cpu().double().flatten(1)
        covariance = torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])
        level = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=rows.dtype, device=rows.device)
        mean = rows.mean(0).reshape(y.shape[1:]).to(y)
        return cls(mean, torch.lerp(covariance, level, shrinkage), sde)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.mean.shape)

    @property
    def covariance(self) -> Tensor:
        r"""S, (D, D)."""
        return (self.vectors * self.values) @ self.vectors.T

    @property
    def sigma_data(self) -> float:
        r"""Root of the mean variance."""
        return float(self.values.mean().sqrt())

    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        s2 = as_time(s).to(u).reshape(-1, 1) ** 2
        values, vectors, mean = self.values.to(u), self.vectors.to(u), self.mean.to(u)
        part = (u - mean).flatten(1) @ vectors * (values / (values + s2))
        return mean + (part @ vectors.T).reshape(u.shape)

    def posterior_mean(self, observation: Observation, n: int, tolerance: float = 1e-6) -> Tensor:
        r"""E[x_0 | z] under the normal law (the Wiener filter, ridge regression with this covariance).

            Solved by conjugate gradients in y = m + S^{1/2} w. On a log chart the mean is taken of y, so that x is a
            geometric mean.

        Args:
            observation: z = A x + noise, with noise > 0. n: its samples. tolerance: relative residual.

        Returns:
            (n, *S), in data units.

        Raises:
            ValueError: an observation without noise.
        """
        whole(1, n=n)
        noise = getattr(observation, "noise", None)
        if noise == 0:
            raise ValueError("observation must have noise > 0, got noise=0. Give a small one, such as 1e-3.")
        mean = self.mean.expand(n, *self.shape)

        def root(w: Tensor) -> Tensor:
            part = w.flatten(1) @ self.vectors * self.values.sqrt()
            return (part @ self.vectors.T).reshape(w.shape)

        at_mean = observation.pull(mean, 0.0, self.sde)  # A' (z - A y) / noise^2, affine in y

        def operator(w: Tensor) -> Tensor:
            return w + root(at_mean - observation.pull(mean + root(w), 0.0, self.sde))

        w = conjugate_gradients(operator, root(at_mean), tolerance, iterations=10 * mean[0].numel())
        return self.sde.from_chart(mean + root(w))
