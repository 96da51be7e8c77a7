r"""Samplers of multiplicative processes, X = x + offset, with the Hyvarinen score h = (score of log X) - 1.

    reverse SDE, dt < 0:  dX = X [(mu - 2 vol^2) - vol^2 h] dt + vol X dW
                          d log X = [mu - 3/2 vol^2 - vol^2 h] dt + vol dW

Dale-Langevin steps multiply X by a positive factor and keep its sign; ambient (Euler-Maruyama) steps multiply it by
one that can be negative. Written with the exact increments dv = int vol^2 and dm = int (mu - vol^2/2) over a step,

    Dale-Langevin    X <- X exp(dv (1 + h) - dm + sqrt(dv) z)
    ambient          X <- X (1 + dv (3/2 + h) - dm + sqrt(dv) z)

The samplers work on M = X e^{-m}, the exponential of u, for which dm = 0: so the deterministic motion is exact, and
any path serves.

Reference: Shetty, Prasath, Seelamantula (2025), arXiv 2510.02730.
"""

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from scoregen.checks import inside, positive, whole
from scoregen.samplers.base import Denoise, Noise, Sampler
from scoregen.samplers.grids import Grid, PowerTime
from scoregen.sde.multiplicative import logarithm
from scoregen.sde.process import SDE


def dale_langevin_step(
    x: Tensor, hyvarinen_score: Tensor, volatility: float, drift: float, delta: float, z: Tensor
) -> Tensor:
    r"""One sign-preserving step X exp(delta vol^2 h - delta (mu - 3/2 vol^2) + sqrt(delta) vol z).

        The coefficients are held fixed over the step (`DaleLangevin` integrates them). Exponentiated gradient descent,
        asymmetric mirrored Langevin dynamics with the mirror map sum X log X - X. Outputs have the signs of x for any
        step size.

    Args:
        x: X (B, *S). hyvarinen_score: h at x. volatility, drift: vol and mu at the time of x. delta: step in t, > 0.
        z: standard normal (B, *S).
    """
    exponent = delta * volatility**2 * (hyvarinen_score + 1.5) - delta * drift + math.sqrt(delta) * volatility * z
    return x * exponent.exp()


class DaleLangevin(Sampler):
    r"""The reverse SDE of log X with exact increments: u' = u + (s^2 - n^2) score + sqrt(s^2 - n^2) z.

        Sign preserving: data of a log chart come out positive (above -offset). It runs on every process. Weak order 1.
        The last step, to s = 0, returns D, without noise.

    Args:
        steps: number of steps and of network calls.
        grid: noise ratios; t = tau^4 unless given, which for geometric Brownian motion is uniform in sqrt(s).

    Reference: Shetty, Prasath, Seelamantula (2025), arXiv 2510.02730, with int vol^2 in place of delta vol(t)^2.
    """

    def __init__(self, steps: int = 100, grid: Grid | None = None) -> None:
        super().__init__(steps, PowerTime(4.0) if grid is None else grid)

    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        denoised = denoise(u, s)
        if n == 0:
            return denoised, None
        dv = s**2 - n**2
        return u + dv / s**2 * (denoised - u) + math.sqrt(dv) * noise(u), None


class AmbientLangevin(Sampler):
    r"""Euler-Maruyama on the reverse SDE of X itself: X <- X (1 + dv (3/2 + h) + sqrt(dv) z).

        Sign agnostic, since a factor can be negative, most of all with few steps. The score is then evaluated at |X|,
        the magnitude is returned, and a warning tells how many values ended with a flipped sign. Keep dv <= 0.02 to
        make them negligible, or use `DaleLangevin`. Weak order 1.
        Needs a log chart. The last step, to s = 0, returns D, without noise.

    Args:
        steps: number of steps and of network calls.
        grid: noise ratios; t = tau^4 unless given.

    Raises:
        TypeError: on a call with an additive process.

    Reference: Shetty, Prasath, Seelamantula (2025), arXiv 2510.02730.
    """

    def __init__(self, steps: int = 100, grid: Grid | None = None) -> None:
        super().__init__(steps, PowerTime(4.0) if grid is None else grid)

    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        rate = logarithm(denoise.sde, "AmbientLangevin", "Use EulerMaruyama.").rate
        denoised = denoise(u, s)
        flipped = torch.zeros_like(u, dtype=torch.bool) if memory is None else memory
        if n == 0:
            _warn_of_flips(flipped)
            return denoised, None
        dv = (s**2 - n**2) / rate**2
        # 3/2 + h = 1/2 + rate (D - u)/s^2
        factor = 1 + dv / 2 + dv * rate / s**2 * (denoised - u) + dv**0.5 * noise(u)
        tiny = torch.finfo(u.dtype).tiny
        return u + rate * factor.abs().clamp_min(tiny).log(), flipped ^ (factor < 0)


class DalePaper(Sampler):
    r"""The loop that the authors of "Dale meets Langevin" released; for comparisons, not a consistent discretisation.

        X <- X exp(delta vol^2 (1 + h) + gamma^k sqrt(delta) vol z),   `repeats` times at the levels t_k = 1 - k/steps

        with mu = vol^2/2. A consistent sampler has delta = 1/(steps repeats) and gamma = 1. Here delta was found by
        search and the noise decays, so the result does not approach the data with more steps: with the exact score on
        log-normal data and the settings for MNIST it keeps .88, .74 and .64 of a standard deviation of log X of .5, .2
        and .1. `DaleLangevin` is the same step with exact increments.

    Args:
        steps: number of levels; each takes `repeats` network calls.
        grid: noise ratios; equal steps of t from 1 to 1/steps unless given.
        step_size: delta, in units of t, > 0; 6.16545e-4 is that for MNIST.
        repeats: steps at each level (L), >= 1.
        decay: gamma in (0, 1]: the factor of the noise from one level to the next.
        denoising: steps without noise at the last level, after all others, >= 0.

    Raises:
        ValueError: values out of range.

    Reference: Shetty, Prasath, Seelamantula (2025), arXiv 2510.02730, and the code released with it: the sampler
        called dls, with its settings by data set.
    """

    def __init__(
        self,
        steps: int = 1000,
        grid: Grid | None = None,
        step_size: float = 6.16545e-4,
        repeats: int = 1,
        decay: float = 0.995,
        denoising: int = 0,
    ) -> None:
        super().__init__(steps, EqualTimes() if grid is None else grid)
        positive(step_size=step_size)
        whole(1, repeats=repeats)
        whole(0, denoising=denoising)
        inside(0, 1, "(]", decay=decay)
        self.step_size, self.repeats = float(step_size), int(repeats)
        self.decay, self.denoising = float(decay), int(denoising)

    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        noise_factor = 1.0 if memory is None else memory
        dv = self.step_size * _variance_rate(denoise.sde, s)
        for _ in range(self.repeats):
            u = u + dv / s**2 * (denoise(u, s) - u) + noise_factor * dv**0.5 * noise(u)
        for _ in range(self.denoising if n == 0 else 0):
            u = u + dv / s**2 * (denoise(u, s) - u)
        return u, noise_factor * self.decay


class EqualTimes(Grid):
    r"""t in equal steps down to one step above 0, the levels of the released loop."""

    def levels(self, sde: SDE, s_max: float, s_min: float, steps: int) -> Tensor:
        t = sde.time_of(s_max)
        return sde.noise_ratio(t * torch.linspace(1, 1 / steps, steps, dtype=torch.float64, device="cpu"))


def _variance_rate(sde: SDE, s: float) -> float:
    r"""d(s^2)/dt = g^2/alpha^2 at a noise ratio: the vol^2 of geometric Brownian motion in units of the chart."""
    t = sde.time_of(s)
    return (sde.coefficients(t)[2] / sde.alpha(t) ** 2).item()


def _warn_of_flips(flipped: Tensor) -> None:
    count = int(flipped.sum())
    if count:
        warnings.warn(
            f"AmbientLangevin: {count} of {flipped.numel()} values ({count / flipped.numel():.2g}) crossed zero. "
            "Their magnitudes are returned. Use more steps (volatility^2 * step <= 0.02) or DaleLangevin.",
            stacklevel=2,
        )
