r"""Noises and the radii that they certify.

A smoothed classifier g(x) = argmax_c P(f(noisy x) = c) does not change within a radius R of x that depends only on
the noise and on two probabilities: p_a, a lower bound of the winner's, and p_b, an upper bound of every other class's
(1 - p_a if nothing better is known). The noise acts on the input in the input's own units, before any normalisation,
and is exact: clipping belongs to f.

Draws and sums are float64 and rounded once to the classifier's type. In float32 the sum's rounding pattern tells a
classifier where x was, and certificates become false (Voracek, Hein 2023, arXiv 2207.07209); `strict=False` trades
that guarantee for speed.
"""

import inspect
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scoregen.checks import positive
from scoregen.smoothing import draws


def gaussian_radius(sigma: float, p_a: float, p_b: float) -> float:
    r"""sigma / 2 (Phi^{-1}(p_a) - Phi^{-1}(p_b)), 0 unless p_a > p_b."""
    from scipy.special import ndtri

    return max(0.0, 0.5 * sigma * float(ndtri(p_a) - ndtri(p_b))) if p_a > p_b else 0.0


def gaussian_probability(sigma: float, radius: float) -> float:
    r"""The p_a whose radius this is when p_b = 1 - p_a."""
    from scipy.special import ndtr

    return float(ndtr(radius / sigma))


class AbstractNoise(ABC):
    r"""How an input is made noisy, and the radius that the class probabilities under that noise prove.

        Records of certificates hold its `repr`, so keep every argument as an attribute of the same name.

    Attributes:
        norm: the distance that radii are measured in.
        step: distance of the rungs of the radius grid.
        reach: largest radius of interest unless one is given.
        order: p of the l_p norm that the distance is in the coordinates of `displaced`, 1 or 2; None: an attack does
            not serve it.
    """

    norm: str
    step: float
    reach: float
    order: int | None = None

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in inspect.signature(type(self)).parameters)
        return f"{type(self).__name__}({arguments})"

    @property
    def distance(self) -> str:
        r"""The norm with what it depends on: radii under one name can be compared."""
        return self.norm

    @abstractmethod
    def sample(self, x: Tensor, m: int, generator: torch.Generator, strict: bool = True) -> Tensor:
        r"""m noisy copies of one input.

        Args:
            x: one input (*S), floating, in its own units.
            m: number of copies.
            generator: where the draws come from, on the device where they are made.
            strict: draw and add in float64 (the certificate's proof needs it); False: in float32.

        Returns:
            (m, *S), float64 or float32, on the generator's device.
        """

    @abstractmethod
    def radius(self, p_a: float, p_b: float) -> float:
        r"""The certified radius, 0 unless p_a > p_b: the label is constant on the open ball.

        Args:
            p_a: lower bound of the winner's probability.
            p_b: upper bound of every other class's probability.
        """

    @abstractmethod
    def probability_for(self, radius: float) -> float:
        r"""The p_a that certifies this radius when p_b = 1 - p_a."""

    def implies(self, radius: float) -> str:
        r"""A radius in the input's own units, rounded to the safe side; empty where the radius itself is in them."""
        return ""

    def displacement(self, x: Tensor) -> Tensor:
        r"""The z that leaves an input (*S) where it is; its shape is that of all z."""
        return torch.zeros_like(x)

    def displaced(self, x: Tensor, z: Tensor) -> Tensor:
        r"""The input (*S) whose distance to x is at most the norm of z, and of which z is free; differentiable in z."""
        return x + z

    def check(self, x: Tensor) -> None:  # noqa: B027
        r"""Checks that the theorem holds for this input; noises with such limits override it.

        Raises:
            ValueError: the theorem does not hold for x.
        """


class Gaussian(AbstractNoise):
    r"""x + sigma eps, eps ~ N(0, I). Norm l2.

        R = sigma / 2 (Phi^{-1}(p_a) - Phi^{-1}(p_b)), and R / sqrt(d) in l-infinity. Tight (a half-space attains it).

    Args:
        sigma: standard deviation, in the input's units.

    Reference: Cohen, Rosenfeld, Kolter (2019), arXiv 1902.02918, theorem 1.
    """

    norm, order = "l2", 2

    def __init__(self, sigma: float) -> None:
        positive(sigma=sigma)
        self.sigma = float(sigma)
        self.step, self.reach = self.sigma / 2, 2 * self.sigma

    def sample(self, x: Tensor, m: int, generator: torch.Generator, strict: bool = True) -> Tensor:
        eps = draws.normal((m, *x.shape), generator, strict)
        return eps.mul_(self.sigma).add_(x.to(generator.device))

    def radius(self, p_a: float, p_b: float) -> float:
        return gaussian_radius(self.sigma, p_a, p_b)

    def probability_for(self, radius: float) -> float:
        return gaussian_probability(self.sigma, radius)


class Uniform(AbstractNoise):
    r"""x + u, u uniform on [-width, width]^d. Norm l1.

        A shift by delta moves at most ||delta||_1 / (2 width) of the mass, so R = width (p_a - p_b).

    Args:
        width: half-width of the interval, in the input's units.

    Reference: Yang et al. (2020), arXiv 2002.08118.
    """

    norm, order = "l1", 1

    def __init__(self, width: float) -> None:
        positive(width=width)
        self.width = float(width)
        self.step, self.reach = self.width / 8, 0.75 * self.width

    def sample(self, x: Tensor, m: int, generator: torch.Generator, strict: bool = True) -> Tensor:
        u = draws.uniform((m, *x.shape), generator, strict)
        return u.mul_(2 * self.width).sub_(self.width).add_(x.to(generator.device))

    def radius(self, p_a: float, p_b: float) -> float:
        return max(0.0, self.width * (p_a - p_b))

    def probability_for(self, radius: float) -> float:
        return (1.0 + radius / self.width) / 2


class Laplace(AbstractNoise):
    r"""x + Laplace noise of the given scale on every coordinate. Norm l1.

        Densities at l1-distance r differ by a factor of at most e^{r / scale}, so
        R = scale max(ln(p_a / p_b) / 2, -ln(1 - p_a + p_b)); with p_b = 1 - p_a the second, -scale ln(2 (1 - p_a)).

    Args:
        scale: mean absolute deviation, in the input's units.

    Reference: Teng, Lee, Yuan (2020), "l1 adversarial robustness certificates: a randomized smoothing approach".
    """

    norm, order = "l1", 1

    def __init__(self, scale: float) -> None:
        positive(scale=scale)
        self.scale = float(scale)
        self.step, self.reach = self.scale / 2, 2 * self.scale

    def sample(self, x: Tensor, m: int, generator: torch.Generator, strict: bool = True) -> Tensor:
        v = draws.uniform((m, *x.shape), generator, strict).mul_(2).sub_(1)
        largest = 1 - torch.finfo(v.dtype).eps / 2  # v = -1 would give an infinite draw
        size = v.abs().clamp_(max=largest).neg_().log1p_().neg_()
        return size.copysign_(v).mul_(self.scale).add_(x.to(generator.device))

    def radius(self, p_a: float, p_b: float) -> float:
        if p_a <= p_b:
            return 0.0
        if p_a >= 1.0 or (p_b <= 0.0 and p_a - p_b >= 1.0):
            return math.inf
        ratio = 0.5 * math.log(p_a / p_b) if p_b > 0.0 else 0.0
        return self.scale * max(ratio, -math.log(1.0 - p_a + p_b))

    def probability_for(self, radius: float) -> float:
        return 1.0 - 0.5 * math.exp(-radius / self.scale)
