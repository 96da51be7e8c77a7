r"""Noises: what their draws and radii have in common; their laws and worst classifiers are in tests/laws."""

import math

import pytest
import torch
from laws.test_noises import NOISES as LINES
from laws.test_noises import X
from scipy import stats

from scoregen.config import build
from scoregen.description import plain
from scoregen.smoothing import Gaussian, Laplace, LogNormal, LogNormalGain, LogNormalGamma, SmoothedClassifier, Uniform

NOISES = [line.noise for line in LINES.values()]
OF_PIXELS = [noise for noise in NOISES if noise.norm.endswith(("l1", "l2", "linf"))]  # others: one number an input


def draw(noise, x, m, strict=True, seed=0):
    return noise.sample(x, m, torch.Generator().manual_seed(seed), strict)


@pytest.mark.parametrize("noise", OF_PIXELS, ids=repr)
def test_pixels_and_draws_are_independent(noise):
    draws = draw(noise, X, 20_000)
    bound = 4.5 / math.sqrt(20_000)  # false-alarm rate 7e-6 a correlation
    assert torch.corrcoef(draws.T).fill_diagonal_(0).abs().max() < bound
    assert torch.corrcoef(torch.stack((draws[1:, 0], draws[:-1, 0])))[0, 1].abs() < bound


def test_scalar_noise_has_one_factor_for_the_whole_input():
    factors = draw(LogNormalGain(0.4), X, 100) / X
    assert torch.allclose(factors, factors[:, :1].expand_as(factors), rtol=1e-14)


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_strict_draws_are_float64_and_the_others_float32(noise):
    assert draw(noise, X.float(), 4).dtype == torch.float64
    assert draw(noise, X.float(), 4, strict=False).dtype == torch.float32


@pytest.mark.parametrize("strict", [True, False])
def test_all_bits_of_a_seed_count(strict):
    r"""Of the seed of a generator on a CPU torch's own stream keeps 32 bits: two chunks in a large run would meet."""
    a, b = (Gaussian(0.5).sample(X, 4, torch.Generator().manual_seed(5 + high), strict) for high in (0, 2**32))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_a_noise_is_described_by_its_arguments(noise):
    assert repr(build(plain(noise))) == repr(noise)


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_radius_grows_with_p_a_falls_with_p_b_and_is_zero_without_a_winner(noise):
    levels = [0.5, 0.6, 0.9, 0.999, 0.999999]
    radii = [noise.radius(p, 1 - p) for p in levels]
    assert radii == sorted(set(radii)) and radii[0] == 0.0
    assert noise.radius(0.9, 0.05) > noise.radius(0.9, 0.1)
    assert noise.radius(0.4, 0.6) == noise.radius(0.3, 0.3) == 0.0


@pytest.mark.parametrize("make", [Gaussian, Uniform, Laplace])
def test_scaling_input_and_noise_scales_the_draws_and_the_radius(make):
    assert torch.allclose(draw(make(0.5 * 8), X * 8, 50), draw(make(0.5), X, 50) * 8, rtol=1e-14)
    assert make(4.0).radius(0.9, 0.1) == pytest.approx(8 * make(0.5).radius(0.9, 0.1), rel=1e-14)


def log_half_space(w, b):
    r"""Wins where w . log x <= b."""

    def classifier(y):
        margin = b - y.log() @ w
        return torch.stack((margin, -margin), 1)

    return classifier


def test_log_normal_theorem_is_tight():
    # The half-space in log space: at .999 R of the direction w the winner still wins, at 1.001 R it does not.
    noise = LogNormal(0.5)
    w = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    p = 0.9
    radius = noise.radius(p, 1 - p)
    b = float(X.log() @ w) + radius
    for factor, expected in ((0.0, p), (0.999, 0.50075), (1.001, 0.49925)):
        moved = X * (factor * radius * w).exp()
        exact = stats.norm.cdf((b - float(moved.log() @ w)) / noise.sigma)
        assert exact == pytest.approx(expected, abs=5e-4)
        assert (exact > 0.5) == (factor < 1)
    # and by drawing: at .97 R and 1.03 R, where 200,000 draws tell (false-alarm rate below 1e-6)
    for factor in (0.97, 1.03):
        moved = X * (factor * radius * w).exp()
        answers = log_half_space(w, b)(draw(noise, moved, 200_000)).argmax(1)
        assert ((answers == 0).double().mean() > 0.5) == (factor < 1)


def test_log_normal_drift_is_absorbed():
    # the label's probability at x changes with the drift, the tight radius does not
    w = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    for drift in (-0.3, 0.0, 0.4):
        noise = LogNormal(0.5, drift=drift)
        b = float(X.log()[0]) + 0.6
        p = stats.norm.cdf((0.6 - drift) / 0.5)
        share = (log_half_space(w, b)(draw(noise, X, 200_000)).argmax(1) == 0).double().mean()
        assert float(share) == pytest.approx(p, abs=4.5 * 0.5 / math.sqrt(200_000))
        assert noise.radius(p, 1 - p) == pytest.approx(0.6 - drift, rel=1e-9)


def test_zeros_without_an_offset_have_no_certificate():
    # "all zero pixels still zero" is certain at x and impossible after one pixel 0 -> 1e-6
    x = torch.tensor([0.0, 0.7, 1.5])

    def still_zero(y):
        answer = (y[:, 0] == 0).float()
        return torch.stack((answer, 1 - answer), 1)

    moved = torch.tensor([1e-6, 0.7, 1.5])
    assert (still_zero(draw(LogNormal(0.5), x, 100)).argmax(1) == 0).all()
    assert (still_zero(draw(LogNormal(0.5), moved, 100)).argmax(1) == 1).all()
    with pytest.raises(ValueError, match=r"> 0 everywhere.*Use LogNormal"):
        SmoothedClassifier(still_zero, LogNormal(0.5), 2).certify(x[None], n=100)
    certificate = SmoothedClassifier(still_zero, LogNormal(0.5, offset=0.1), 2).certify(x[None], n=1000)[0]
    assert certificate.label == 1  # no pixel is exactly 0 under that noise, at x and at its neighbour alike
    with pytest.raises(ValueError, match="must be >= 0 everywhere"):
        SmoothedClassifier(still_zero, LogNormal(0.5, offset=0.1), 2).certify(-x[None], n=100)
    with pytest.raises(ValueError, match="must be >= 0 everywhere"):
        SmoothedClassifier(still_zero, LogNormalGamma(0.5), 2).certify(-x[None], n=100)


def test_log_radius_implies_the_l2_radius():
    noise = LogNormal(0.5, offset=0.3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        x, other = torch.rand(2, 5, generator=generator, dtype=torch.float64)
        distance = (torch.log(other + 0.3) - torch.log(x + 0.3)).norm()
        assert (other - x).norm() >= noise.l2_radius(float(distance)) * (1 - 1e-12)


def test_scalar_certificate_is_the_interval_of_factors():
    # a brightness threshold: mean(a x) <= c changes its label at a = c / mean(x)
    noise = LogNormalGain(0.5)
    p = 0.9
    change = math.exp(0.5 * stats.norm.ppf(p))
    low, high = noise.interval(noise.radius(p, 1 - p))
    assert (low, high) == pytest.approx((1 / change, change), rel=1e-12)


@pytest.mark.parametrize("kind", [LogNormalGain, LogNormalGamma])
def test_acting_twice_multiplies_the_factors(kind):
    assert torch.allclose(kind.act(kind.act(X, 2.0), 3.0), kind.act(X, 6.0))


def test_a_float64_classifier_sees_no_more_than_float32():
    r"""The attack below, one precision down: without rounding x and x + 2^-54 had labels 0 and 1, both certified."""

    def all_even(y):
        odd = (y > -0.43) & (y < -0.07) & ((y * 2.0**54).remainder(2) == 1)
        answer = 1 - odd.any(1).double()
        return torch.stack((answer, 1 - answer), 1)

    x = torch.full((1, 64), 0.4375, dtype=torch.float64)
    g = SmoothedClassifier(all_even, Gaussian(0.5), 2)
    moved = x + 2.0**-54
    found = [g.certify(z, n=1000, method="fixed", generator=torch.Generator().manual_seed(0))[0] for z in (x, moved)]
    assert 0 < (moved - x).norm() < 1e-6
    assert found[0].label == found[1].label


def test_float32_noise_makes_false_certificates_and_float64_noise_does_not():
    # x is an even multiple of 2^-25. A float32 draw between -1 and -1/2 is one too, and so is the sum where it is
    # small: there an odd sum betrays an input that is not x. In float64 odd sums are common for every input.
    def all_even(y):
        odd = (y > -0.43) & (y < -0.07) & ((y * 2**25).remainder(2) == 1)
        answer = 1 - odd.any(1).float()
        return torch.stack((answer, 1 - answer), 1)

    x = torch.full((1, 64), 0.4375)
    moved = x + 2.0**-25
    certificates = {}
    for strict in (False, True):
        g = SmoothedClassifier(all_even, Gaussian(0.5), 2, strict=strict)
        certificates[strict] = [
            g.certify(z, n=1000, method="fixed", generator=torch.Generator().manual_seed(0))[0] for z in (x, moved)
        ]
    assert 0 < (moved - x).norm() < 1e-6
    assert certificates[False][0].radius > 1.2
    assert [c.label for c in certificates[False]] == [0, 1]
    assert certificates[True][0].label == certificates[True][1].label


@pytest.mark.parametrize("make", [Gaussian, Uniform, Laplace, LogNormal, LogNormalGain, LogNormalGamma])
@pytest.mark.parametrize("size", [0.0, -1.0, math.nan, math.inf])
def test_noise_of_no_positive_size_is_refused(make, size):
    with pytest.raises(ValueError, match="must be > 0 and finite, got"):
        make(size)


def test_offset_and_drift_are_checked():
    with pytest.raises(ValueError, match=r"offset must be >= 0, got offset=-1\.0"):
        LogNormal(0.5, offset=-1.0)
    with pytest.raises(ValueError, match="drift must be finite, got drift=nan"):
        LogNormal(0.5, drift=math.nan)
