r"""Exact answers: denoisers of laws in closed form, independent of the package's formulas.

They take (u, s, label) like a denoiser and carry an `sde`, so that samplers, likelihoods and losses run on them.
"""

import math

import torch
from torch import Tensor

from scoregen.sde import EDM, SDE


class Mixture:
    r"""A Gaussian mixture in chart coordinates: D = sum_k r_k [m_k + S_k (S_k + s^2)^{-1} (u - m_k)].

    Args:
        weights (K,), means (K, D), covariances (K, D, D): float64.
        sde: the process of the data.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor, sde: SDE | None = None) -> None:
        self.weights, self.means, self.covariances = weights, means, covariances
        self.sde = EDM() if sde is None else sde
        self.eigenvalues, self.eigenvectors = torch.linalg.eigh(covariances)

    def parameters(self):
        r"""So that samplers draw their noise in float64."""
        return iter((self.means,))

    def _parts(self, u: Tensor, s: Tensor | float) -> tuple[Tensor, Tensor]:
        s2 = torch.as_tensor(s, dtype=u.dtype).reshape(-1, 1, 1) ** 2
        centred = torch.einsum("kij,bki->bkj", self.eigenvectors, u[:, None] - self.means)
        total = self.eigenvalues + s2
        log_density = -((centred**2 / total).sum(-1) + total.log().sum(-1) + u.shape[1] * math.log(2 * math.pi)) / 2
        component = self.means + torch.einsum("kij,bkj->bki", self.eigenvectors, centred * self.eigenvalues / total)
        return self.weights.log() + log_density, component

    def __call__(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        log_weights, component = self._parts(u, s)
        return (log_weights.softmax(1)[..., None] * component).sum(1)

    def log_prob(self, u: Tensor, s: Tensor | float = 0.0) -> Tensor:
        r"""log density of u = y_0 + s eps, (B,)."""
        return self._parts(u, s)[0].logsumexp(1)

    def sample(self, n: int, generator: torch.Generator, s: float = 0.0) -> Tensor:
        r"""n draws of y_0 + s eps, (n, D)."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        eps = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        root = self.eigenvectors * (self.eigenvalues + s**2).sqrt()[:, None, :]
        return self.means[component] + torch.einsum("bij,bj->bi", root[component], eps)


class Independent:
    r"""Independent normal elements of any shape in chart coordinates: D = m + v/(v + s^2) (u - m).

    Args:
        mean, var: scalars, or tensors of the shape of one sample. sde: the process of the data.
    """

    def __init__(self, mean: float | Tensor, var: float | Tensor, sde: SDE | None = None) -> None:
        self.mean, self.var = (torch.as_tensor(a, dtype=torch.float64) for a in (mean, var))
        self.sde = EDM() if sde is None else sde

    def parameters(self):
        r"""So that samplers draw their noise in float64."""
        return iter((self.mean,))

    def __call__(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        s2 = torch.as_tensor(s, dtype=u.dtype).reshape(-1, *[1] * (u.ndim - 1)) ** 2
        return self.mean + self.var / (self.var + s2) * (u - self.mean)


class NormalFlowMap(Independent):
    r"""The exact flow map of independent normal elements.

    u_r = m + sqrt((v + r^2)/(v + s^2)) (u - m) is the end of a jump, and D(u, s, r) = (u_r - (r/s) u)/(1 - r/s), here
    without the division that r = s would need.
    """

    takes_next = True
    sigma_data, num_classes = 0.5, None

    def __call__(self, u, s, label=None, *, next_s=None):
        if next_s is None:
            return super().__call__(u, s, label)
        s, r = (torch.as_tensor(a, dtype=u.dtype).reshape(-1, *[1] * (u.ndim - 1)) for a in (s, next_s))
        high, low = (self.var + s**2).sqrt(), (self.var + r**2).sqrt()
        # (low/high - r/s)/(1 - r/s) = v (s + r)/(high (s low + r high))
        return self.mean + self.var * (s + r) / (high * (s * low + r * high)) * (u - self.mean)


def gaussian(mean: Tensor, covariance: Tensor, sde: SDE | None = None) -> Mixture:
    r"""The normal law N(mean (D,), covariance (D, D))."""
    return Mixture(torch.ones(1, dtype=mean.dtype), mean[None], covariance[None], sde)


def gaussian_flow(mean: Tensor, covariance: Tensor, u: Tensor, s: float, r: float) -> Tensor:
    r"""The exact probability-flow map of a normal law from noise ratio s to r, (B, D)."""
    values, vectors = torch.linalg.eigh(covariance)
    return mean + ((u - mean) @ vectors * ((values + r**2) / (values + s**2)).sqrt()) @ vectors.T


def standard_mixture(sde: SDE | None = None) -> Mixture:
    r"""The three-component mixture in two dimensions of the reference numbers of the sampler tests."""

    def rotated(angle: float, variances: tuple[float, float]) -> Tensor:
        c, s = math.cos(angle), math.sin(angle)
        rotation = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        return rotation @ torch.diag(torch.tensor(variances, dtype=torch.float64)) @ rotation.T

    covariances = torch.stack([rotated(0.5, (0.16, 0.01)), rotated(0.0, (0.04, 0.04)), rotated(-0.5, (0.09, 0.0225))])
    means = torch.tensor([[-0.8, -0.3], [0.7, 0.6], [0.5, -0.9]], dtype=torch.float64)
    return Mixture(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), means, covariances, sde)


def energy_distance(x: Tensor, y: Tensor) -> float:
    r"""The unbiased energy distance 2 E|x - y| - E|x - x'| - E|y - y'|."""
    n, m = len(x), len(y)
    within = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return (2 * torch.cdist(x, y).mean() - within).item()


def log_normal_mixture(sde: SDE) -> Mixture:
    r"""The positive one-dimensional data, a mixture in log x, of the reference numbers of geometric Brownian motion."""
    deviations = torch.tensor([0.08, 0.05], dtype=torch.float64)
    means = torch.tensor([[0.05], [0.55]], dtype=torch.float64)
    weights = torch.tensor([0.6, 0.4], dtype=torch.float64)
    return Mixture(weights, means, (deviations**2)[:, None, None], sde)


def affine_law(sampler, oracle: Independent, grid: Tensor, start_mean: float, start_var: float) -> tuple[float, float]:
    r"""Mean and variance of a sampler's output in one dimension, exactly, without random numbers.

    On normal data every step is affine in the state and its noise. A batch with zero noise, a unit change of the start
    and unit impulses at each draw of noise gives all the coefficients.
    """
    draws = 0

    def count(u: Tensor) -> Tensor:
        nonlocal draws
        draws += 1
        return torch.zeros_like(u)

    sampler.integrate(oracle, torch.zeros(1, 1, dtype=torch.float64), grid, count)
    u = torch.full((2 + draws, 1), start_mean, dtype=torch.float64)
    u[1] += 1
    impulses = iter(torch.eye(2 + draws, dtype=torch.float64)[2:, :, None])
    out = sampler.integrate(oracle, u, grid, lambda u: next(impulses)).squeeze(1)
    response = out[1:] - out[0]
    return out[0].item(), (start_var * response[0] ** 2 + (response[1:] ** 2).sum()).item()
