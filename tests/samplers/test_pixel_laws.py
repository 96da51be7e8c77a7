r"""Draws of one pixel behind noise, exact by their distribution functions."""

import math

import pytest
import torch
from gibbs import SDES, SHARES, D, axis, shares

from scoregen.samplers import (
    GammaObservation,
    PoissonObservation,
    Quantised,
)
from scoregen.samplers.inverse_cdf import inverse_cdf
from scoregen.samplers.pixel_axis import LogAxis


def distribution(z: torch.Tensor, log_density, on: LogAxis, y: float, rho: float) -> torch.Tensor:
    r"""The exact distribution function at z of density(v(z)) N(z; y, rho^2), by the trapezoidal rule."""
    z = z.double()
    low = max(on.start, y - 15 * rho) if on.start > -math.inf else y - 60
    pieces = [torch.linspace(low + 1e-12, max(z.max().item(), y) + 15 * rho, 20_001, dtype=D)]
    pieces += [torch.linspace(z.min().item(), z.max().item(), 20_001, dtype=D)]
    pieces += [on.z(torch.linspace(-30, 5, 4_001, dtype=D))]  # where an affine chart has its darkest scenes
    points = torch.cat(pieces).sort().values
    values = log_density(on.v(points)) - ((points - y) / rho) ** 2 / 2
    p = (values - values.max()).exp()
    upto = torch.cat([torch.zeros(1, dtype=D), ((p[1:] + p[:-1]) / 2 * points.diff()).cumsum(0)])
    i = torch.searchsorted(points, z).clamp(1, len(points) - 1)
    part = (z - points[i - 1]) / (points[i] - points[i - 1]).clamp_min(1e-300)
    return torch.lerp(upto[i - 1], upto[i], part.clamp(0, 1)) / upto[-1]


def cut_normal(z: torch.Tensor, low: float, high: float) -> torch.Tensor:
    r"""The distribution function of the standard normal law between two ends, also far out in a tail."""
    if high < 0:
        return 1 - cut_normal(-z, -high, -low)
    start, end = (torch.special.log_ndtr(torch.tensor(-c, dtype=D)) for c in (low, high))
    return torch.expm1(torch.special.log_ndtr(-z) - start) / torch.expm1(end - start)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    "mean, std, low, high",
    [(3.0, 1.0, -10.0, 13.0), (0.1, 1e-3, -30.0, 30.0), (-50.0, 1.0, 0.0, 10.0)],
    ids=["normal", "narrow", "tail"],
)
def test_draws_of_a_normal_law_have_its_distribution_function(mean, std, low, high, dtype):
    def at(v):
        return -(((v - mean) / std) ** 2) / 2

    one = torch.ones(400, dtype=dtype)
    x = inverse_cdf(at, (), low * one, high * one, SHARES.to(dtype)).double()
    found = cut_normal((x - mean) / std, (low - mean) / std, (high - mean) / std)
    torch.testing.assert_close(found, SHARES, rtol=0, atol=1e-3)
    assert bool((x >= low).all() and (x <= high).all())


@pytest.mark.parametrize("y, rho", [(0.1, 1.0), (-0.7, 0.1), (-1.3, 0.3)])
@pytest.mark.parametrize("looks, intensity", [(1, 0.2), (4, 0.01), (16, 1.5)])
@pytest.mark.parametrize("name", SDES)
def test_a_draw_behind_speckle_has_the_exact_law(name, looks, intensity, y, rho):
    on = axis(name)
    like = torch.full((400,), y, dtype=D)
    z = GammaObservation(looks).draw(like.new_full((400,), intensity), like, like, rho, on, shares)
    found = distribution(z, lambda v: -looks * (v + intensity * (-v).clamp_max(600).exp()), on, y, rho)
    torch.testing.assert_close(found, SHARES, rtol=0, atol=2e-3)


@pytest.mark.parametrize("y, rho", [(0.1, 1.0), (-0.7, 0.1), (-1.3, 0.3)])
@pytest.mark.parametrize("gain, counts", [(0.1, 0), (0.1, 3), (1 / 255, 40)])
@pytest.mark.parametrize("name", SDES)
def test_a_draw_behind_counts_has_the_exact_law(name, gain, counts, y, rho):
    on = axis(name)
    like = torch.full((400,), y, dtype=D)
    z = PoissonObservation(gain).draw(like.new_full((400,), counts * gain), like, like, rho, on, shares)
    found = distribution(z, lambda v: counts * v.clamp_min(-600) - v.exp() / gain, on, y, rho)
    torch.testing.assert_close(found, SHARES, rtol=0, atol=4e-3)


@pytest.mark.parametrize("value, low, high", [(0.0, -math.inf, 0.05), (0.3, 0.25, 0.35), (1.0, 0.95, math.inf)])
@pytest.mark.parametrize("name", SDES)
def test_a_rounded_or_cut_value_is_a_normal_law_cut_to_what_rounds_to_it(name, value, low, high):
    r"""A censored pixel's draws lie beyond the limit, also where the scene was on its other side."""
    on, rho = axis(name), 0.2
    a, b = (on.of_x(torch.tensor(end, dtype=D)).item() for end in (low, high))
    for y in (-3.0, 0.0, 2.0):
        like = torch.full((400,), y, dtype=D)
        z = Quantised(0.1, 0.0, 1.0).draw(like.new_full((400,), value), like, like, rho, on, shares)
        assert bool((z >= a).all() and (z <= b).all())
        found = cut_normal((z - y) / rho, (a - y) / rho, (b - y) / rho)
        torch.testing.assert_close(found, SHARES, rtol=0, atol=2e-3)


@pytest.mark.parametrize("looks, value", [(1, 0.0), (4, 0.0), (4, 0.3), (2, 1.0)])
def test_speckle_that_was_rounded_or_cut_needs_no_floor(looks, value):
    r"""The chain over (I, z) at a fixed y ends at p(bin | x) N(z; y, rho^2).

    A Kolmogorov distance of 1.95/sqrt(n) is exceeded once in a thousand.
    """
    on, y, rho, n = axis("log"), -1.0, 0.8, 1500
    law, g = Quantised(0.1, 0.0, 1.0, looks=looks), torch.Generator().manual_seed(0)
    like, observed = torch.full((n,), y), torch.full((n,), value)
    z = on.of_x(law.first(observed))
    for _ in range(15):
        z = law.draw(observed, z, like, rho, on, lambda like: torch.rand(like.shape, generator=g))

    def log_density(v):
        a, b = (torch.full_like(v, float(end)) * looks * (-v).exp() for end in (value - 0.05, value + 0.05))
        upper = torch.ones_like(v) if value == 1.0 else torch.special.gammainc(torch.full_like(v, looks), b)
        lower = torch.special.gammainc(torch.full_like(v, looks), a.clamp_min(0))
        return (upper - lower).clamp_min(1e-300).log()

    found = distribution(z, log_density, on, y, rho).sort().values
    assert (found - (torch.arange(n, dtype=D) + 0.5) / n).abs().max().item() < 1.95 / math.sqrt(n)
