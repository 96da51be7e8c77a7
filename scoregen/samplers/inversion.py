r"""Data to latents and back by the probability-flow ODE: encoding, decoding, interpolation and editing.

    encode   u at s_min (the data) -> u at s          decode   u at s -> u at s_min (the data)

Both solve du/dtau = u - D in tau = log s, with the same solver on the same steps, so that decode(encode(x)) misses x
only by the error of the solver. A flow map jumps instead, in a few calls (`Jumps`). Latents are in EDM coordinates
u = y_0 + s eps: data space itself overflows for a log chart at large s.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scoregen.checks import whole
from scoregen.models.protocol import DenoiserLike, check_mean
from scoregen.samplers.jumps import Jumps
from scoregen.samplers.likelihood import noise_range
from scoregen.samplers.ode import RK4, ODESolver
from scoregen.samplers.start import check_label, prior_moments
from scoregen.sde.path import checked_time

Blend = Callable[[Tensor, Tensor, float], Tensor]
Solver = ODESolver | Jumps


def encode(
    denoiser: DenoiserLike,
    x: Tensor,
    *,
    s: float | None = None,
    label: Tensor | None = None,
    solver: Solver | None = None,
) -> Tensor:
    r"""The latent of data: the state u at the noise ratio s from which the probability flow leads to x.

    Args:
        denoiser: D(u, s) of a process.
        x: data (B, *S) in its own units and in the dtype of the denoiser.
        s: noise ratio, s_max of the process unless given.
        label: (B,) integers.
        solver: RK4 with 32 steps (128 denoiser calls) unless given; `Jumps` for a flow map.

    Returns:
        u (B, *S). At s_max it is normal with the moments of the prior, as far as the denoiser is right.

    Raises:
        ValueError: s not above s_min of the process.
    """
    low, high = noise_range(denoiser.sde, None, s)
    return _flow(denoiser, denoiser.sde.to_chart(x), low, high, label, solver)


def decode(
    denoiser: DenoiserLike,
    u: Tensor,
    *,
    s: float | None = None,
    label: Tensor | None = None,
    solver: Solver | None = None,
) -> Tensor:
    r"""The data of a latent; the inverse of `encode` with the same s, label and solver.

    Args:
        denoiser: D(u, s) of a process.
        u: latent (B, *S) at the noise ratio s, s_max of the process unless given.
        label: (B,) integers; a label other than that of `encode` edits.
        solver: RK4 with 32 steps (128 denoiser calls) unless given; `Jumps` for a flow map.

    Returns:
        Data (B, *S) with what noise s_min leaves.
    """
    low, high = noise_range(denoiser.sde, None, s)
    return denoiser.sde.from_chart(_flow(denoiser, u, high, low, label, solver))


def _flow(
    denoiser: DenoiserLike, u: Tensor, start: float, end: float, label: Tensor | None, solver: Solver | None
) -> Tensor:
    check_label(denoiser, label, len(u))
    check_mean(denoiser)
    if isinstance(solver, Jumps):
        with torch.no_grad():
            return solver(denoiser, u, start, end, label)

    def field(tau: float, state: Tensor) -> Tensor:
        v = state.reshape(u.shape)
        return (v - denoiser(v, math.exp(tau), label)).flatten(1)

    with torch.no_grad():
        solver = RK4(32) if solver is None else solver
        return solver(field, u.flatten(1), math.log(start), math.log(end)).reshape(u.shape)


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    r"""Spherical interpolation: the directions along the great circle, the norms linearly.

    Args:
        a, b: (B, *S), not of opposite directions. weight: 0 gives a, 1 gives b.
    """
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    norm_a, norm_b = flat_a.norm(dim=1, keepdim=True), flat_b.norm(dim=1, keepdim=True)
    unit_a, unit_b = flat_a / norm_a, flat_b / norm_b
    # atan2 of the half angle keeps its digits for nearly parallel and nearly opposite directions, arccos does not
    angle = 2 * torch.atan2((unit_a - unit_b).norm(dim=1, keepdim=True), (unit_a + unit_b).norm(dim=1, keepdim=True))
    parallel = angle < 1e-6
    sine = torch.where(parallel, 1.0, angle.sin())
    left = torch.where(parallel, 1 - weight, ((1 - weight) * angle).sin() / sine)
    right = torch.where(parallel, weight, (weight * angle).sin() / sine)
    blended: Tensor = ((1 - weight) * norm_a + weight * norm_b) * (left * unit_a + right * unit_b)
    return blended.reshape(a.shape)


def variance_preserving(a: Tensor, b: Tensor, weight: float) -> Tensor:
    r"""((1 - w) a + w b)/sqrt((1 - w)^2 + w^2): standard normal for independent standard normal a and b.

    Args:
        a, b: (B, *S). weight: w; 0 gives a, 1 gives b.
    """
    return ((1 - weight) * a + weight * b) / math.hypot(1 - weight, weight)


def interpolate(
    denoiser: DenoiserLike,
    a: Tensor,
    b: Tensor,
    *,
    steps: int = 9,
    s: float | None = None,
    label: Tensor | None = None,
    solver: Solver | None = None,
    blend: Blend = slerp,
) -> Tensor:
    r"""Data between a and b: both are encoded, their standardised latents blended, and the blends decoded.

    Args:
        denoiser: D(u, s) of a process.
        a, b: data (B, *S).
        steps: number of weights from 0 to 1, ends included, >= 2.
        s: noise ratio of the blend, s_max of the process unless given; a smaller one keeps more of both.
        label: (B,) integers, for both.
        solver: as for `encode`.
        blend: `slerp`, `variance_preserving` or any map (a, b, weight) of latents.

    Returns:
        Data (steps, B, *S).

    Raises:
        ValueError: steps < 2, or a and b of different shapes.

    Reference: Song, Meng, Ermon (2021), arXiv 2010.02502, section 5.3 (slerp of latents).
    """
    whole(2, steps=steps)
    if a.shape != b.shape:
        raise ValueError(f"a and b must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}.")
    _, high = noise_range(denoiser.sde, None, s)
    both = None if label is None else torch.cat([label, label])
    u = encode(denoiser, torch.cat([a, b]), s=high, label=both, solver=solver)
    mean, std = prior_moments(denoiser.sde, high, u)
    z_a, z_b = ((u - mean) / std).chunk(2)
    blends = [blend(z_a, z_b, i / (steps - 1)) for i in range(int(steps))]
    return torch.stack([decode(denoiser, mean + std * z, s=high, label=label, solver=solver) for z in blends])


def edit(
    denoiser: DenoiserLike,
    x: Tensor,
    t: float,
    *,
    source: Tensor | None = None,
    target: Tensor | None = None,
    solver: Solver | None = None,
) -> Tensor:
    r"""Data encoded to an intermediate time under one label and decoded under another.

        Deterministic, and the identity (up to the solver) for source = target. Editing with fresh noise is
        `sampler(denoiser, start=(sde.perturb(x, t, eps), t), label=target)`.

    Args:
        denoiser: D(u, s) of a process.
        x: data (B, *S).
        t: time in (0, 1]; the larger, the less of x is kept.
        source, target: labels (B,) of x and of the result.
        solver: as for `encode`.

    Raises:
        ValueError: t outside [0, 1], or whose noise ratio is not above s_min or is infinite.

    Reference: Meng et al. (2022), arXiv 2108.01073 (with fresh noise); Su et al. (2023), arXiv 2203.08382 (two
        encodings).
    """
    s = denoiser.sde.noise_ratio(checked_time(t)).item()
    u = encode(denoiser, x, s=s, label=source, solver=solver)
    return decode(denoiser, u, s=s, label=target, solver=solver)
