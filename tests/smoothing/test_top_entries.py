r"""Which entries of an input are among those with the largest gradient, with a bound on the chance of error."""

import math

import numpy as np
import pytest
import torch
from explanation_parts import POINT, SIDE, SIGMA, W, explained, half_space, seeded, smoothed
from scipy import stats

from scoregen.smoothing import Gaussian
from scoregen.smoothing.explanations import (
    memberships,
)


def test_top_entries_of_a_half_space_are_certain_at_the_largest_radius_that_n_allows():
    n, alpha = 500, 1e-3
    found = explained(n, alpha=alpha, top=5).top
    largest = W.abs() >= W.abs().sort().values[-5]
    assert torch.equal(found.in_top, largest) and torch.equal(found.out_of_top, ~largest)
    assert not found.undecided.any()
    bound = (alpha / (2 * SIDE)) ** (1 / n)
    torch.testing.assert_close(found.radius, torch.full_like(W, SIGMA * stats.norm.ppf(bound)))


def quadratic(y):
    r"""Logit y_j^2 / 2 less (y_j - 2 c_j)^2 / 2 for j = 0, 1: its gradient has the sizes |y_j|."""
    half = y.square().sum(1) / 2
    return torch.stack((-half, half), 1)


@pytest.mark.parametrize(("n", "alpha"), [(30, 0.1), (200, 0.3)])
def test_a_false_membership_is_as_rare_as_alpha_by_enumeration(n, alpha):
    r"""P(a radius beyond the true one, or the other side) <= alpha / d for each vote h; at 1/2 both sides are false."""
    counts = torch.arange(n + 1)
    rows = [memberships(torch.full((3,), int(c)), n, 1, Gaussian(SIGMA), alpha) for c in counts]
    inside, outside, radius = (
        np.array([float(getattr(row, name)[0]) for row in rows]) for name in ("in_top", "out_of_top", "radius")
    )
    worst = []
    for h in [*np.linspace(0.3, 0.7, 41), 0.9, 0.999]:
        true = SIGMA * stats.norm.ppf(h)  # the majority is in up to here, out up to its negative
        false = ((inside > 0) & (radius > true)) | ((outside > 0) & (radius > -true))
        worst.append(float((stats.binom.pmf(counts.numpy(), n, h) * false).sum()))
    assert max(worst) <= alpha / 3
    assert max(worst) > 0.3 * alpha / 3


def test_membership_of_a_known_vote():
    r"""Top 1 of two entries, h_0 = P(|y_0| > |y_1|) by quadrature."""
    away = explained(4000, quadratic, torch.tensor([0.9, 0.3], dtype=torch.float64), top=1, classes=[1]).top
    grid = np.linspace(-6, 6, 4001)
    inner = np.abs(0.3 + SIGMA * grid)
    beyond = stats.norm.sf((inner - 0.9) / SIGMA) + stats.norm.cdf((-inner - 0.9) / SIGMA)
    share = np.trapezoid(beyond * stats.norm.pdf(grid), grid)
    assert abs(float(away.share[0]) - share) < 4 * math.sqrt(0.25 / 4000)
    assert away.in_top.tolist() == [True, False] and away.out_of_top.tolist() == [False, True]
    assert 0 < float(away.radius[0]) < SIGMA * stats.norm.ppf(share)


def test_equal_gradients_are_all_in_and_zero_ones_never():
    def two(y):
        return torch.stack((-y[:, 0] - y[:, 1], y[:, 0] + y[:, 1]), 1)

    assert explained(300, two, POINT, top=1).top.in_top.nonzero().flatten().tolist() == [0, 1]
    assert explained(300, two, POINT, top=7).top.in_top.nonzero().flatten().tolist() == [0, 1]


def test_top_entries_are_those_of_the_logit_of_the_class():
    def one_each(y):
        return 5 + y[:, :3]

    for label in range(3):
        top = smoothed(one_each, 3).explain(POINT[None], 100, top=1, classes=[label], generator=seeded())[0].top
        assert top.in_top.nonzero().flatten().tolist() == [label]


def test_draws_are_none_of_those_that_certify_or_choose_the_class():
    rows = []

    def logging(y):
        rows.extend(map(tuple, y[:, :3].tolist()))
        return half_space(y)

    def asked(call):
        rows.clear()
        call()
        return set(rows)

    g, x = smoothed(logging), POINT[None]
    guard = asked(lambda: g.examine([(0, x[0])]))
    certified = asked(lambda: g.certify(x, 300, method="fixed", generator=seeded())) - guard
    found = asked(lambda: g.explain(x, 300, classes=[1], generator=seeded())) - guard
    assert len(certified) == 400 and len(found) == 300 and not certified & found
