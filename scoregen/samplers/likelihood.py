r"""Densities by the probability-flow ODE, integrated jointly with its divergence in tau = log s.

    du/dtau = u - D(u, s),   log p_a(u_a) = log p_b(u_b) + int_a^b (d - tr dD/du) dtau,   a = log s_min, b = log s_max
    log p_X(x) = log p_a(phi(x)) + log |phi'(x)|

p_a is the density of the data with the noise s_min in chart coordinates: what lies below s_min is left smoothed,
nothing is extrapolated. p_b is the normal law N(mean, var + s_max^2) of the process, with the moments that it knows (0
unless set).

Reference: Song et al. (2021), arXiv 2011.13456, appendix D.2; Grathwohl et al. (2019), arXiv 1810.01367 (Hutchinson's
estimate).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoregen.checks import at_least, increasing, whole
from scoregen.models.protocol import DenoiserLike, check_mean
from scoregen.rng import Generators, random_signs
from scoregen.samplers.grids import check_ratios
from scoregen.samplers.ode import RK4, ODESolver
from scoregen.samplers.start import check_label, prior_moments
from scoregen.sde.path import normal_log_prob
from scoregen.sde.process import SDE

# up to this many numbers a sample the exact divergence is the default
EXACT_DIMENSIONS = 64

Divergence = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Likelihood:
    r"""Log-densities of a batch.

    Attributes:
        log_prob: log p(x) in nats and data units, (B,).
        standard_error: of log_prob over the random probes, (B,); 0 for the exact divergence, nan for one probe.
        bits_per_dim: -log2 p(x) / d, plus log2(levels) for discrete data, (B,).
        dimension: of the data around each point at the scale s_min (`local_dimension`), (B,); free. Below d, bits/dim
            is a statement about s_min: it falls by 1 - dimension/d for each halving. A value near d proves nothing,
            since a network that is not exact gives it too.
        calls: denoiser calls.
    """

    log_prob: Tensor
    standard_error: Tensor
    bits_per_dim: Tensor
    dimension: Tensor
    calls: int


def log_likelihood(
    denoiser: DenoiserLike,
    x: Tensor,
    *,
    label: Tensor | None = None,
    solver: ODESolver | None = None,
    probes: int | None = None,
    generator: Generators = None,
    levels: int | None = None,
    s_min: float | None = None,
    s_max: float | None = None,
) -> Likelihood:
    r"""The log-density of data under the probability-flow ODE of a denoiser.

    Args:
        denoiser: D(u, s) of a process.
        x: data (B, *S) in its own units and in the dtype of the denoiser. Discrete data are dequantised by the caller
            (`scoregen.metrics.dequantise`).
        label: (B,) integers, for log p(x | label).
        solver: RK4 with 64 steps unless given; it needs the divergence once a step, other solvers at every call.
        probes: 0 for the exact divergence (d backward passes a call), or the number of Hutchinson probes (Rademacher,
            fixed along the path). Exact up to 64 numbers a sample unless given, two probes above.
        generator: for the probes.
        levels: number of levels of discrete data that were dequantised onto [0, 1] (256 for 8 bits): bits_per_dim is
            then that of the discrete data, an upper bound; None: of the density.
        s_min, s_max: noise ratios of the integral; those of the process unless given.

    Returns:
        Likelihood.

    Raises:
        ValueError: negative probes, levels < 2, or not 0 < s_min < s_max in the range of the process.
    """
    sde, d = denoiser.sde, x[0].numel()
    if levels is not None:
        at_least(2, levels=levels)
    check_label(denoiser, label, len(x))
    check_mean(denoiser)
    low, high = noise_range(sde, s_min, s_max)
    with torch.no_grad():
        y, log_det = sde.to_chart(x), sde.log_det(x)
        divergence, count = divergence_of(y, probes, generator)
        flow, rule = _Flow(denoiser, label, y.shape, divergence), RK4() if solver is None else solver
        state = y.flatten(1), y.new_zeros(len(y), max(count, 1))
        end, integrals = rule.with_integral(flow, flow.with_rate, state, math.log(low), math.log(high))
        u = end.reshape(y.shape)
        log_prob = normal_log_prob(u, *prior_moments(sde, high, u)) + integrals.mean(1) + log_det
        bits = -log_prob / (math.log(2) * d) + (0.0 if levels is None else math.log2(levels))
        assert flow.dimension is not None
    return Likelihood(log_prob, _error(integrals, count), bits, flow.dimension, flow.calls)


def _error(integrals: Tensor, probes: int) -> Tensor:
    r"""Standard error of the mean over probes (B, probes): 0 for the exact divergence, nan for a single probe."""
    if probes > 1:
        return integrals.std(1) / math.sqrt(probes)
    return integrals.new_full((len(integrals),), math.nan if probes else 0.0)


def divergence_of(y: Tensor, probes: int | None, generator: Generators) -> tuple[Divergence, int]:
    r"""How tr dD/du is computed for states like y (B, *S), and with how many probes; 0: exactly.

    Args:
        probes: None: 0 up to 64 numbers a sample, else 2.

    Raises:
        ValueError: negative probes.
    """
    count = (0 if y[0].numel() <= EXACT_DIMENSIONS else 2) if probes is None else probes
    whole(0, probes=count)
    return (exact_divergence if count == 0 else Hutchinson(y, int(count), generator)), int(count)


def with_trace(
    denoiser: DenoiserLike, u: Tensor, s: float, label: Tensor | None, divergence: Divergence
) -> tuple[Tensor, Tensor]:
    r"""D(u, s) (B, *S) and tr dD/du (B, 1) or, of probes, (B, K); one call."""
    with torch.inference_mode(False), torch.enable_grad():
        u = u.clone().detach().requires_grad_()
        denoised = denoiser(u, s, label)
        trace = divergence(denoised, u)
    return denoised.detach(), trace.detach()


def noise_range(sde: SDE, s_min: float | None, s_max: float | None) -> tuple[float, float]:
    r"""The noise ratios between which the ODE is solved, those of the process unless given and within its range."""
    low = sde.s_min if s_min is None else float(s_min)
    high = sde.s_max if s_max is None else float(s_max)
    increasing(0, s_min=low, s_max=high)
    check_ratios(sde, (low, high), "s_min and s_max")
    return low, high


def exact_divergence(denoised: Tensor, u: Tensor) -> Tensor:
    r"""tr dD/du by one backward pass for each dimension, (B, 1)."""
    flat, trace = denoised.flatten(1), u.new_zeros(len(u))
    for i in range(flat.shape[1]):
        # the samples do not interact, so the gradient of the sum over the batch is the row i of every Jacobian
        (row,) = torch.autograd.grad(flat[:, i].sum(), u, retain_graph=True)
        trace = trace + row.flatten(1)[:, i]
    return trace[:, None]


class Hutchinson:
    r"""tr dD/du = E[z' (dD/du) z] for independent signs z, one column a probe.

    Args:
        like: state (B, *S).
        probes: number K.
        generator: one, or a list with one a sample.
    """

    def __init__(self, like: Tensor, probes: int, generator: Generators) -> None:
        self.signs = random_signs((like.shape[0], probes, *like.shape[1:]), generator, like.dtype, like.device)

    def __call__(self, denoised: Tensor, u: Tensor) -> Tensor:
        columns = []
        for z in self.signs.unbind(1):
            (pulled,) = torch.autograd.grad(denoised, u, z, retain_graph=True)
            columns.append((pulled * z).flatten(1).sum(1))
        return torch.stack(columns, 1)


class _Flow:
    r"""The field of u in tau = log s, alone or with the rate of the log-density; counts its calls."""

    def __init__(self, denoiser: DenoiserLike, label: Tensor | None, shape: torch.Size, divergence: Divergence) -> None:
        self.denoiser, self.label, self.shape, self.divergence, self.calls = denoiser, label, shape, divergence, 0
        self.dimension: Tensor | None = None  # of the first point, (B,)

    def __call__(self, tau: float, u: Tensor) -> Tensor:
        self.calls += 1
        return u - self.denoiser(u.reshape(self.shape), math.exp(tau), self.label).flatten(1)

    def with_rate(self, tau: float, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""The field, and d - tr dD/du by the exact divergence (B, 1) or by each probe (B, K)."""
        self.calls += 1
        d, s = self.shape[1:].numel(), math.exp(tau)
        denoised, trace = with_trace(self.denoiser, u.reshape(self.shape), s, self.label, self.divergence)
        velocity = u - denoised.flatten(1)
        if self.dimension is None:
            self.dimension = trace.mean(1) + velocity.square().sum(1) / s**2
        return velocity, d - trace
