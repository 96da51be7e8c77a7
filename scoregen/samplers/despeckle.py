r"""Despeckling: from an intensity image with multiplicative speckle to the intensity behind it.

L looks of fully developed speckle multiply an intensity X by independent Gamma(L, 1/L) noise of mean 1, I = X n:

    E log n = psi(L) - ln L,     Var log n = psi_1(L)             (digamma, trigamma)
    y = log I - (psi(L) - ln L) = log X + sqrt(psi_1(L)) eps      (eps of mean 0 and variance 1)

and that is the state of a process on log X at the variance psi_1(L), taken to its coordinates by its chart. Its
denoiser gives E[log X | I] in one call; samplers started there draw from p(X | I).

Two things are approximate. eps is normal for the process, while that of L looks has skewness
psi_2(L)/psi_1(L)^{3/2} (-1.14, -0.53, -0.25 for 1, 4, 16 looks). And the process is on log(x + offset), so it is the
intensity X = x + offset that speckle multiplies: scenes are taken as nowhere darker than the offset of the training.

Reference: Goodman (1976), J. Opt. Soc. Am. 66, 1145, for speckle; Xie, Pierce, Ulaby (2002), IEEE TGRS 40, 721, for
the statistics of its logarithm.
"""

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from scoregen.checks import positive, whole
from scoregen.models.protocol import DenoiserLike, check_mean
from scoregen.models.wrapper import DenoiserWrapper
from scoregen.rng import Generators, rand, random_signs
from scoregen.samplers.base import Sampler
from scoregen.samplers.dale_langevin import DaleLangevin
from scoregen.samplers.grids import Karras
from scoregen.samplers.start import check_learned
from scoregen.sde.chart import Affine, Compose, Log
from scoregen.sde.multiplicative import logarithm
from scoregen.sde.path import as_time
from scoregen.sde.process import SDE

_REMEDY = "Train with sde=multiplicative and a small sde.offset (+experiment=despeckle is an example)."


def log_moments(looks: float) -> tuple[float, float]:
    r"""Mean psi(L) - ln L and variance psi_1(L) of the logarithm of Gamma(L, 1/L) speckle.

    Args:
        looks: L > 0; not necessarily a whole number (the equivalent number of looks of correlated ones).

    Raises:
        ValueError: looks <= 0 or not finite.
    """
    positive(looks=looks)
    shape = as_time(looks)
    return (torch.digamma(shape) - shape.log()).item(), torch.polygamma(1, shape).item()


def speckle(x: Tensor, looks: float, generator: Generators = None) -> Tensor:
    r"""Intensities with simulated speckle, x n with n ~ Gamma(L, 1/L), E n = 1.

    Args:
        x: intensities (B, *S), >= 0; integers give floating-point intensities. looks: L > 0.
        generator: one, or a list with one an image.

    Raises:
        ValueError: looks <= 0, negative intensities.
    """
    log_moments(looks)
    if not bool((x >= 0).all()):
        raise ValueError(f"intensities must be >= 0, got values down to {x.min().item():.4g}.")
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    seeds = rand((len(x),), generator, torch.float64, "cpu") * 2**53
    rows = [np.random.Generator(np.random.PCG64(int(k))).gamma(looks, 1 / looks, tuple(x.shape[1:])) for k in seeds]
    return x * torch.from_numpy(np.stack(rows)).to(x)


class OnIntensity(DenoiserWrapper):
    r"""The same denoiser, with data X = x + offset > 0 in place of x: samplers then take and give intensities.

    Args:
        denoiser: of a multiplicative process.

    Raises:
        TypeError: the denoiser of an additive process.
    """

    def __init__(self, denoiser: DenoiserLike) -> None:
        super().__init__(denoiser)
        self.sde = copy.copy(denoiser.sde)
        chart = logarithm(denoiser.sde, "despeckling", _REMEDY)
        self.affine = Affine(chart.rate, chart.shift)
        self.sde.chart = Compose(Log(0.0), self.affine)

    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        return self.denoiser(u, s, label)


class Despeckler:
    r"""Intensities behind L-look speckle: one-call posterior means, posterior samples, and their mean and spread.

    Args:
        denoiser: of a multiplicative process with a small offset; `Tiled` for images of any size.
        looks: L > 0.
        sampler: a stochastic one, which draws from p(X | I); DaleLangevin(16) on equal steps of s unless given, whose
            deviation is at most 5 % too large on log-normal intensities at 4 looks (that of Ancestral(16) is 15 to 22 %
            too small: its steps leave out what E[log X | I] does not know).

    Raises:
        TypeError: the denoiser of an additive process. ValueError: looks <= 0, or a noise beyond the process.
    """

    def __init__(self, denoiser: DenoiserLike, looks: float, sampler: Sampler | None = None) -> None:
        self.bias, variance = log_moments(looks)
        self.looks, self.denoiser = float(looks), OnIntensity(denoiser)
        self.sampler = DaleLangevin(16, Karras(rho=1.0)) if sampler is None else sampler
        self.scale = self.denoiser.affine.scale
        self.s = as_time(self.scale * math.sqrt(variance))
        low, high = (self.denoiser.sde.noise_ratio(t).item() for t in (0.0, 1.0))
        if not low < self.s.item() <= high:
            raise ValueError(
                f"looks must give a noise ratio s = {self.scale:.4g} sqrt(psi_1(L)) between {low:.4g} and {high:.4g}, "
                f"the range of the process, got looks={looks} with s={self.s.item():.4g}. "
                f"{'There is nothing to remove' if self.s.item() <= low else 'Train with a larger sigma_max'}."
            )
        self.t = self.denoiser.sde.time_of(self.s)

    def observe(self, intensity: Tensor) -> Tensor:
        r"""The state u = y_0 + s eps that an intensity image (B, *S) is, on the denoiser's device and in its dtype.

        Raises:
            ValueError: intensities that are not finite or not > 0: the logarithm of a zero says nothing of how dark.
        """
        bad = ~((intensity > 0) & intensity.isfinite())
        if bool(bad.any()):
            values = ", ".join(f"{v:.4g}" for v in intensity[bad][:3].tolist())
            raise ValueError(
                f"intensities must be finite and > 0, got {int(bad.sum())} of {intensity.numel()} that are not "
                f"(first: {values}). Raise zeros to a floor, about half a step of the recording (floor=0.002 for 8 "
                f"bits)."
            )
        first = next(iter(self.denoiser.parameters()), None)
        intensity = intensity if first is None else intensity.to(first)
        return self.denoiser.affine.forward(intensity.log() - self.bias)

    @torch.no_grad()
    def log_mean(self, intensity: Tensor) -> Tensor:
        r"""exp E[log X | I], the posterior geometric mean, (B, *S): one call; it lies below E[X | I].

        Raises:
            ValueError: a consistency function, whose one call is a plausible image and not the mean.
        """
        check_mean(self.denoiser)
        return self.denoiser.sde.from_chart(self.denoiser(self.observe(intensity), self.s))

    @torch.no_grad()
    def mean(
        self, intensity: Tensor, probes: int = 4, generator: Generators | Callable[[Tensor], Tensor] = None
    ) -> tuple[Tensor, Tensor]:
        r"""E[X | I] and the standard deviation of X given I in 1 + 2 probes calls, without sampling.

            Var[y_0 | u] = s^2 dD/du, its diagonal from z (D(u + h z) - D(u - h z)) / 2h with random signs z;
            with v that of log X, E X = exp(E log X + v/2) and std = E X sqrt(e^v - 1), as if X given I were
            log-normal. dD/du is kept in [0, 1], which holds where the law of the data is log-concave.

        Args:
            intensity: (B, *S), > 0. probes: >= 1; the diagonal is exact for independent pixels, else its error falls
                as 1/sqrt(probes). generator: one, or a list with one an image, or a function that is given a state
                (B, *S) and makes its next random signs.

        Raises:
            ValueError: probes < 1, or a consistency function.

        Reference: Efron (2011), Tweedie's formula of second order; Bekas, Kokiopoulou, Saad (2007), the estimator.
        """
        whole(1, probes=probes)
        check_mean(self.denoiser)
        u = self.observe(intensity)
        h, slope = (0.1 * self.s).to(u), torch.zeros_like(u)
        for _ in range(int(probes)):
            z = generator(u) if callable(generator) else random_signs(u.shape, generator, u.dtype, u.device)
            slope += z * (self.denoiser(u + h * z, self.s) - self.denoiser(u - h * z, self.s)) / (2 * h * probes)
        v = (self.s / self.scale).to(u) ** 2 * slope.clamp(0, 1)
        mean = self.denoiser.sde.from_chart(self.denoiser(u, self.s)) * (v / 2).exp()
        return mean, mean * v.expm1().sqrt()

    def sample(self, intensity: Tensor, generator: Generators = None, progress: bool = False) -> Tensor:
        r"""One draw from p(X | I), (B, *S), by the sampler; a deterministic one gives one plausible image instead.

        Raises:
            ValueError: a denoiser that did not learn the lower noise levels, which a draw passes.
        """
        self.check_levels()
        start = (self.denoiser.sde.from_u(self.observe(intensity), self.t), self.t)
        return self.sampler(self.denoiser, start=start, generator=generator, progress=progress)

    def sample_mean(self, intensity: Tensor, samples: int = 16, generator: Generators = None) -> tuple[Tensor, Tensor]:
        r"""Mean and standard deviation of draws from p(X | I), each (B, *S): E[X | I] and its uncertainty a pixel.

        Args:
            intensity: (B, *S), > 0. samples: >= 2.
            generator: one, or a list with one an image; the draws of an image follow one another.

        Raises:
            ValueError: samples < 2, or a sampler that draws no noise, whose draws would all be the same.
        """
        whole(2, samples=samples)
        self.check_stochastic()
        mean = self.sample(intensity, generator)
        squares = torch.zeros_like(mean)
        for k in range(1, int(samples)):
            x = self.sample(intensity, generator)
            step = x - mean
            mean = mean + step / (k + 1)
            squares += step * (x - mean)
        return mean, (squares / (samples - 1)).sqrt()

    def check_levels(self) -> None:
        r"""Refuses draws by a denoiser that learned some levels alone, as those trained on speckled images did."""
        check_learned(self.denoiser, 0.0)

    def check_stochastic(self) -> None:
        r"""Refuses a sampler without noise, by two draws of one pixel through a denoiser that costs nothing."""
        pixel = _Shrink(self.denoiser.sde)
        start = (self.denoiser.sde.from_u(torch.zeros(1, 1), self.t), self.t)
        first, second = (self.sampler(pixel, start=start, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
        if torch.equal(first, second):
            raise ValueError(
                f"the sampler must be stochastic for several samples, got {type(self.sampler).__name__}, which draws "
                f"no noise from a given start. Use DaleLangevin (sampler=despeckle)."
            )


class _Shrink:
    r"""D = u/2: it keeps what the sampler draws, unlike a denoiser of zeros."""

    def __init__(self, sde: SDE) -> None:
        self.sde = sde

    def __call__(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        return u / 2
