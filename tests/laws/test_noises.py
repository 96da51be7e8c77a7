r"""The law of noises of certification: inside the radius the worst classifier keeps its label, outside it need not.

Among all sets A with P_0(A) = p, the law of the noise at x, the one that loses most at x' holds the points where the
likelihood ratio of x' to x is smallest (Neyman, Pearson). The label of x' is the same while P(A) > 1/2 there.
Each noise is additive in coordinates z that a row of NOISES states; x and x' are then z = 0 and z = delta.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from laws.discovery import uncovered
from scipy import stats
from torch import Tensor

from scoregen.smoothing import (
    AbstractNoise,
    AnisotropicGaussian,
    Gaussian,
    Laplace,
    LogNormal,
    LogNormalGain,
    LogNormalGamma,
    Uniform,
)

X = torch.tensor([0.2, 0.7, 1.5], dtype=torch.float64)
ONE = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
DRAWS = 500_000
SIGMA = torch.tensor([0.8, 0.2, 0.5], dtype=torch.float64)
MEAN = 0.08 ** (1 / 3)  # of SIGMA, geometric


class Line(NamedTuple):
    r"""A noise in coordinates in which it is additive.

    Args:
        noise: whose distance is a norm of z. z: of noisy copies (m, 3) of X, (m, 3). move: X at z = delta (3,).
        law: of each number in z. tight: whether no larger radius could be proved.
    """

    noise: AbstractNoise
    z: Callable[[Tensor], Tensor]
    move: Callable[[Tensor], Tensor]
    law: Any
    tight: bool = True


NOISES = {
    "gaussian": Line(Gaussian(0.5), lambda y: y - X, lambda d: X + d, stats.norm(0, 0.5)),
    "anisotropic": Line(
        AnisotropicGaussian(SIGMA.tolist()),
        lambda y: MEAN * (y - X) / SIGMA,
        lambda d: X + d * SIGMA / MEAN,
        stats.norm(0, MEAN),
    ),
    "uniform": Line(Uniform(0.8), lambda y: y - X, lambda d: X + d, stats.uniform(-0.8, 1.6)),
    "laplace": Line(Laplace(0.3), lambda y: y - X, lambda d: X + d, stats.laplace(0, 0.3)),
    "log_normal": Line(LogNormal(0.4), lambda y: (y / X).log(), lambda d: X * d.exp(), stats.norm(0, 0.4)),
    "log_normal_offset": Line(
        LogNormal(0.4, 0.5, 0.2),
        lambda y: ((y + 0.5) / (X + 0.5)).log(),
        lambda d: (X + 0.5) * d.exp() - 0.5,
        stats.norm(0.2, 0.4),
    ),
    # one factor for the whole input: d[0] is its logarithm
    "gain": Line(LogNormalGain(0.4), lambda y: (y / X).log(), lambda d: X * d[0].exp(), stats.norm(0, 0.4)),
    "gamma": Line(
        LogNormalGamma(0.4), lambda y: (y.log() / X.log()).log(), lambda d: X ** d[0].exp(), stats.norm(0, 0.4)
    ),
}
each = pytest.mark.parametrize("name", NOISES)


def least(law: Any, p: float, r: float) -> float:
    r"""The least P(A) after a move by r along one number of z, over sets with P(A) = p before it; by 200,000 cells."""
    low, high = law.ppf(1e-13), law.ppf(1 - 1e-13)
    edges = np.unique(np.concatenate([np.linspace(low, high + r, 200_001), law.ppf([1e-13, 1 - 1e-13]) + r]))
    before, after = np.diff(law.cdf(edges)), np.diff(law.cdf(edges - r))
    order = np.argsort(np.divide(after, before, out=np.full_like(after, np.inf), where=before > 0))
    total = np.cumsum(before[order])
    last = min(int(np.searchsorted(total, p)), len(order) - 1)
    rest = (p - (total[last - 1] if last else 0.0)) / max(before[order][last], 1e-300)
    return float(after[order][:last].sum() + rest * after[order][last])


def drawn(line: Line, p: float, delta: Tensor, m: int) -> float:
    r"""The least P(A) at z = delta over sets with P(A) = p at X, by draws of the noise at both inputs."""
    moved = delta != 0
    z = [line.z(line.noise.sample(x, m, torch.Generator().manual_seed(k))) for k, x in enumerate((X, line.move(delta)))]
    with np.errstate(divide="ignore"):
        here, there = ((line.law.logpdf(a[:, moved] - delta[moved]) - line.law.logpdf(a[:, moved])).sum(1) for a in z)
    edge = np.quantile(here, p, method="inverted_cdf")
    share = (p - (here < edge).mean()) / (here == edge).mean()  # of the points on the edge
    return (there < edge).mean() + share * (there == edge).mean()


def check_radius(line: Line) -> None:
    r"""The worst set along one number keeps its label at .99 R and, where R is tight, loses it at 1.01 R."""
    for p in (0.51, 0.8, 0.99):
        radius = line.noise.radius(p, 1 - p)
        assert least(line.law, p, 0.99 * radius) > 0.5, "the radius is too large"
        assert not line.tight or least(line.law, p, 1.01 * radius) < 0.5, "the radius is smaller than it could be"
        assert line.noise.probability_for(radius) == pytest.approx(p, abs=1e-12)


def check_runner_up(line: Line) -> None:
    r"""With a bound on the runner-up too, the winner's worst set has no less than the runner-up's best one at .99 R."""
    for p_a, p_b in ((0.45, 0.2), (0.7, 0.1), (0.9, 0.02), (0.5, 0.499)):
        radius = line.noise.radius(p_a, p_b)
        assert radius >= line.noise.radius(p_a, 1 - p_a)
        r = 0.99 * radius
        assert least(line.law, p_a, r) > 1 - least(line.law, 1 - p_b, r) - 1e-6, "the radius is too large"


def check_draws(line: Line) -> None:
    r"""The same by draws, which bind the stated law to the noise; and along the diagonal, which binds its norm."""
    p = 0.95
    radius = line.noise.radius(p, 1 - p)
    # distance from 1/2 .0045 (uniform, standard error .0008) to .0066 (normal, .0014): false-alarm rate below 2e-6
    assert drawn(line, p, 0.99 * radius * ONE, DRAWS) > 0.5
    assert not line.tight or drawn(line, p, 1.01 * radius * ONE, DRAWS) < 0.5
    order = {"l1": 1, "l2": 2, "linf": math.inf}.get(line.noise.norm.rpartition("-")[2])
    if order is not None:  # one number, else
        diagonal = torch.ones_like(ONE) / torch.linalg.vector_norm(torch.ones_like(ONE), order)
        assert drawn(line, p, 0.9 * radius * diagonal, DRAWS // 5) > 0.5, "the radius is not of this norm"


@each
def test_the_worst_classifier_keeps_its_label_inside_the_radius_only(name):
    check_radius(NOISES[name])


@each
def test_the_radius_with_a_runner_up_is_sound(name):
    check_runner_up(NOISES[name])


@each
def test_the_worst_classifier_meets_noisy_copies(name):
    check_draws(NOISES[name])


@each
@pytest.mark.parametrize("strict", [True, False])
def test_draws_follow_their_law(name, strict):
    # Kolmogorov-Smirnov on each pixel, false-alarm rate 1e-4 a pixel
    noise, z, _, law, _ = NOISES[name]
    for pixel in z(noise.sample(X, 20_000, torch.Generator().manual_seed(0), strict).double()).T:
        assert stats.kstest(pixel.numpy(), law.cdf).pvalue > 1e-4


@pytest.mark.parametrize("name", [name for name, line in NOISES.items() if line.tight])
@pytest.mark.parametrize("p", [0.51, 0.8, 0.99])
def test_radius_is_where_a_half_space_changes_its_label(name, p):
    noise, _, _, law, _ = NOISES[name]
    assert law.cdf(law.ppf(p) - noise.radius(p, 1 - p)) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("p_a, p_b", [(0.45, 0.2), (0.7, 0.1), (0.9, 0.02), (0.5, 0.499)])
def test_gaussian_half_spaces_meet_at_the_radius_with_a_runner_up(p_a, p_b):
    noise, _, _, law, _ = NOISES["gaussian"]
    radius = noise.radius(p_a, p_b)
    assert law.cdf(law.ppf(p_a) - radius) == pytest.approx(1 - law.cdf(law.ppf(1 - p_b) - radius), abs=1e-12)


def missing(noises: dict[str, Line]) -> list[str]:
    covered = {type(line.noise) for line in noises.values()}
    return uncovered(AbstractNoise, covered, "add its line to NOISES in tests/laws/test_noises.py")


def test_every_noise_has_its_line():
    assert not missing(NOISES)
