r"""Binomial bounds against enumeration of every count."""

import math

import numpy as np
import pytest
from scipy import stats

from scoregen.smoothing import bounds


@pytest.mark.parametrize("n", [100, 1000, 10_000])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_bounds_miss_with_probability_at_most_alpha_for_every_p(n, alpha):
    counts = np.arange(n + 1)
    lower, upper = bounds.lower_bound(counts, n, alpha), bounds.upper_bound(counts, n, alpha)
    for p in (0.01, 0.3, 0.5, 0.500001, 0.9, 0.99, 0.9999, 0.999999):
        mass = stats.binom.pmf(counts, n, p)
        assert mass[lower > p].sum() <= alpha * (1 + 1e-9)
        assert mass[upper < p].sum() <= alpha * (1 + 1e-9)


def test_a_bound_exceeds_p_exactly_when_the_tail_is_below_alpha():
    n, alpha = 500, 0.01
    counts = np.arange(n + 1)
    for p in (0.2, 0.5, 0.97):
        tail = stats.binom.sf(counts - 1, n, p)  # P(Bin >= count)
        np.testing.assert_array_equal(bounds.lower_bound(counts, n, alpha) > p, tail < alpha)


def test_upper_bound_is_the_mirror_of_the_lower_one():
    counts = np.arange(301)
    np.testing.assert_allclose(
        bounds.upper_bound(counts, 300, 0.02), 1 - bounds.lower_bound(300 - counts, 300, 0.02), atol=1e-13
    )


def test_lower_bound_grows_with_the_count_with_n_at_equal_rate_and_with_alpha():
    assert np.all(np.diff(bounds.lower_bound(np.arange(1, 1001), 1000, 0.001)) > 0)
    n = np.array([100, 1000, 10_000, 100_000])
    assert np.all(np.diff(bounds.lower_bound(9 * n // 10, n, 0.001)) > 0)
    assert np.all(np.diff([bounds.lower_bound(900, 1000, a) for a in (1e-4, 1e-3, 1e-2, 0.1)]) > 0)


@pytest.mark.parametrize(("alpha", "p"), [(1e-3, 0.5), (1e-3, 0.97725), (5e-5, 0.999), (0.25, 0.5), (0.05, 0.3)])
def test_smallest_n_is_the_first_whose_agreement_certifies_p(alpha, p):
    n = bounds.smallest_n(alpha, p)
    assert bounds.lower_bound(n, n, alpha) > p
    assert n == 1 or bounds.lower_bound(n - 1, n - 1, alpha) <= p


def test_a_probability_that_no_sensible_n_proves_is_refused_at_once():
    with pytest.raises(ValueError, match="Choose a smaller radius"):
        bounds.smallest_n(1e-3, 1 - 1e-13)
    assert bounds.smallest_n(1e-3, 1 - 1e-11) == pytest.approx(math.log(1000) * 1e11, rel=1e-4)


def test_smallest_count_is_the_first_that_certifies_p():
    for n, p in ((200, 0.5), (1000, 0.84), (50, 0.9999)):
        lower = bounds.lower_bound(np.arange(n + 1), n, 0.01)
        certifying = np.flatnonzero(lower > p)
        assert bounds.smallest_count(n, 0.01, p) == (certifying[0] if len(certifying) else n + 1)


def test_p_value_agrees_with_scipy():
    for count, n in ((5, 9), (50, 100), (61, 100), (39, 100), (1, 1), (600, 1000)):
        assert bounds.two_sided_p_value(count, n) == pytest.approx(stats.binomtest(count, n).pvalue, rel=1e-12)


@pytest.mark.parametrize("m", [1, 24, 500, 10_000])
@pytest.mark.parametrize("rho", [0.05, 0.001])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 1e-9])
def test_the_allowance_for_false_certificates_is_the_quantile_of_the_binomial(m, rho, alpha):
    # F ~ Bin(m, alpha) of the certificates are false: the bound is wrong when more are than it allows for
    allowed = bounds.most_false(m, alpha, rho)
    assert stats.binom.sf(allowed, m, alpha) <= rho
    assert allowed == 0 or stats.binom.sf(allowed - 1, m, alpha) > rho


def test_the_allowance_depends_on_alpha_and_is_subtracted_from_the_count():
    assert bounds.high_probability_accuracy(450, 500, 0.001) == 446 / 500
    assert bounds.high_probability_accuracy(450, 500, 0.05) == (450 - stats.binom.isf(0.001, 500, 0.05)) / 500
    assert bounds.high_probability_accuracy(2, 500, 0.001) == 0


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, -0.1, math.nan])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha must lie in \[1e-30, 0.5\), got alpha="):
        bounds.check_alpha(alpha)
