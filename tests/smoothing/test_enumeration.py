r"""Exact probabilities of false certificates, by enumeration instead of by chance, and tight radii by quadrature.

A certificate is false if p_lower exceeds the true probability of its class, or p_upper falls below that of another.
"""

import itertools

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from scoregen.smoothing import Gaussian, Laplace, LogNormal, LogNormalGain, LogNormalGamma, SmoothedClassifier, Uniform
from scoregen.smoothing.bounds import lower_bound, upper_bound
from scoregen.smoothing.methods import Fixed, SelectionFree, Tally, TopTwo
from scoregen.smoothing.sequential import Ladder, Stitched

ALPHA = 0.05
CLASSES = [2, 3, 10]


def cases(classes):
    r"""Probabilities at which rules fail: ties at 1/2, a close second, a spread rest, a clear winner."""
    rest = np.full(classes - 1, 1 / (classes - 1))
    for first in (0.5, 0.52, 0.4, 0.62, 0.9, 0.97):
        yield np.array([first, *((1 - first) * rest)])
    if classes > 2:
        yield np.array([0.5, 0.5, *np.zeros(classes - 2)])
        yield np.array([0.45, 0.3, *np.full(classes - 2, 0.25 / (classes - 2))])


def exceeds(n, level, p):
    r"""P(the bound of a count ~ Bin(n, p) at this level exceeds max(p, 1/2)), which certifies falsely."""
    counts = np.arange(n + 1)
    bad = lower_bound(counts, n, level) > max(p, 0.5)
    return stats.binom.pmf(counts, n, p)[bad].sum()


@pytest.mark.parametrize("classes", CLASSES)
def test_fixed_fails_with_at_most_alpha_whatever_class_was_selected(classes):
    method = Fixed(180, 20, ALPHA)
    for p in cases(classes):
        for candidate, chance in enumerate(p):
            tally = Tally(selection=np.eye(classes, dtype=int)[candidate])
            bad = 0.0
            for count in range(181):
                tally.looks = [np.array([count if k == candidate else 0 for k in range(classes)])]
                bounds = method.bounds(tally)
                if bounds.lower > bounds.upper and bounds.lower > chance:
                    bad += stats.binom.pmf(count, 180, chance)
            assert bad <= ALPHA


@pytest.mark.parametrize("classes", CLASSES)
def test_selection_free_fails_with_at_most_alpha_over_all_classes(classes):
    n, method = 300, SelectionFree(300, ALPHA)
    for p in cases(classes):  # a bound above 1/2 needs most of the draws, so that the classes exclude each other
        assert sum(exceeds(n, method.level(n), chance) for chance in p) <= ALPHA
    tie = [0.5, 0.5]
    assert sum(exceeds(n, ALPHA, chance) for chance in tie) > 1.5 * ALPHA  # without the halving


@pytest.mark.parametrize("build", [Stitched, Ladder], ids=lambda b: b.__name__)
@pytest.mark.parametrize("p", [0.3, 0.5, 0.52, 0.7, 0.9, 0.99])
def test_sequential_bounds_fail_with_at_most_alpha_at_any_look(build, p):
    r"""P(some look's bound exceeds max(p, 1/2)), over all paths: no rule of stopping makes it larger."""
    method = build(500, 20, ALPHA)

    def ever(level):
        alive, before, bad = np.ones(1), 0, 0.0
        for size in method._schedule.tolist():
            step = stats.binom.pmf(np.arange(size - before + 1), size - before, p)
            alive, before = np.convolve(alive, step), size
            crossed = lower_bound(np.arange(size + 1), size, level) > max(p, 0.5)
            bad, alive = bad + alive[crossed].sum(), np.where(crossed, 0.0, alive)
        return bad

    assert ever(method.level(500)) <= ALPHA
    if p in (0.5, 0.7):
        assert ever(ALPHA) > ALPHA  # looking again and again at the full alpha


@pytest.mark.parametrize("p", [(0.6, 0.4), (0.45, 0.3, 0.25), (0.4, 0.4, 0.2), (0.7, 0.2, 0.1)], ids=str)
def test_top_two_fails_with_at_most_alpha_over_all_counts(p):
    n, classes = 60, len(p)
    method = TopTwo(n, 10, ALPHA)
    for candidate in range(classes):
        bad = 0.0
        for split in itertools.combinations_with_replacement(range(n + 1), classes - 1):
            counts = np.diff([0, *split, n])
            tally = Tally(np.eye(classes, dtype=int)[candidate], [counts])
            bounds = method.bounds(tally)
            false = bounds.lower > p[candidate] or bounds.upper < max(np.delete(p, candidate))
            if bounds.lower > bounds.upper and false:
                bad += stats.multinomial.pmf(counts, n, p)
        assert bad <= ALPHA


@pytest.mark.parametrize("classes", CLASSES)
def test_top_two_spends_alpha_as_published(classes):
    r"""p_lower at alpha / 2 and p_upper at alpha / (2 (classes - 1)), by scipy's beta distribution."""
    n, counts = 1000, np.array([700, 150, *[0] * (classes - 2)])
    counts[-1] += n - counts.sum()
    tally = Tally(np.eye(classes, dtype=int)[0], [counts])
    bounds, second = TopTwo(n, 100, 0.01).bounds(tally), max(counts[1:])
    assert bounds.lower == pytest.approx(stats.beta.ppf(0.005, 700, 301), rel=1e-9)
    upper = stats.beta.ppf(1 - 0.01 / (2 * (classes - 1)), second + 1, n - second)
    assert bounds.upper == pytest.approx(min(upper, 1 - bounds.lower), rel=1e-9)


@pytest.mark.parametrize("build", [Stitched, Ladder], ids=lambda b: b.__name__)
def test_the_class_of_a_sequential_method_is_that_of_the_selection(build):
    method = build(500, 20, ALPHA)
    tally = Tally(np.array([11, 9]), [np.array([20, 108])])
    bounds = method.bounds(tally)
    assert bounds.candidate == 0  # although the draws of the bound have another favourite
    assert bounds.lower < 0.5
    assert bounds.lower == pytest.approx(float(lower_bound(20, 128, method.level(500))), rel=1e-12)


def test_upper_bounds_fail_with_at_most_their_level_for_every_p():
    for n, p in itertools.product((20, 300), (0.02, 0.3, 0.5, 0.9)):
        bad = upper_bound(np.arange(n + 1), n, ALPHA) < p
        assert stats.binom.pmf(np.arange(n + 1), n, p)[bad].sum() <= ALPHA


# the law of the noise on one coordinate, and the likelihood ratio test that a shift by r leaves hardest to certify
LAWS = {
    "Gaussian": (Gaussian(0.7), stats.norm(scale=0.7)),
    "LogNormal": (LogNormal(0.7), stats.norm(scale=0.7)),
    "LogNormalGain": (LogNormalGain(0.7), stats.norm(scale=0.7)),
    "LogNormalGamma": (LogNormalGamma(0.7), stats.norm(scale=0.7)),
    "Uniform": (Uniform(0.7), stats.uniform(-0.7, 1.4)),
    "Laplace": (Laplace(0.7), stats.laplace(scale=0.7)),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("p", [0.6, 0.9, 0.99])
def test_the_radius_is_where_the_hardest_classifier_changes_its_label(name, p):
    r"""Of the sets of probability p under the noise, the half-line keeps least after a shift (Neyman, Pearson); its
    probability there, by quadrature, is above 1/2 at .999 R and not at 1.001 R."""
    noise, law = LAWS[name]
    end, radius = law.ppf(p), noise.radius(p, 1 - p)
    for factor, wins in ((0.999, True), (1.001, False)):
        points = sorted({law.ppf(1e-15), -0.7, 0.0, 0.7, end - factor * radius})
        inside = [x for x in points if x <= end - factor * radius]
        kept = sum(integrate.quad(law.pdf, a, b, epsabs=1e-12, epsrel=1e-12)[0] for a, b in itertools.pairwise(inside))
        assert (kept > 0.5) == wins


def test_the_noise_is_checked_before_any_draw():
    calls = []

    def classifier(y):
        calls.append(len(y))
        return torch.zeros(len(y), 2)

    g = SmoothedClassifier(classifier, LogNormal(0.5), 2)
    for inputs in (torch.zeros(3, 2), torch.tensor([[1.0, 1.0], [1.0, 0.0]])):
        with pytest.raises(ValueError, match="x must be > 0 everywhere under LogNormal noise"):
            g.certify(inputs, n=100)
    assert calls == []
