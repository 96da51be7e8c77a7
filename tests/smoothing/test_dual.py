r"""Dual smoothing on half-spaces, whose radii are known, and the sound ways for it to fail."""

import itertools
import math

import numpy as np
import pytest
import torch
from dual_parts import always, dual, half_space
from scipy import stats
from smoothed_parts import seeded

from scoregen.rng import generator as keyed
from scoregen.smoothing import (
    Gaussian,
    LogNormal,
    LogNormalGain,
)
from scoregen.smoothing.certificate import conclude
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.dual import joined
from scoregen.smoothing.dual_rules import make_dual_method
from scoregen.smoothing.methods import Fixed, Tally
from scoregen.smoothing.smoothed_classifier import derive_seed

ALPHA, N = 0.05, 300
NAMES = {"l2": Gaussian, "log-l2": LogNormal, "gain": LogNormalGain}
AXES = ([1.0, 0.0], [0.0, 1.0], [0.0, -1.0])
TILTED = ([0.6, 0.8], [1.0, 0.0], [0.28, -0.96])


@pytest.mark.parametrize(
    ("case", "method"), [("l2", "fixed"), ("l2", "ladder"), ("l2", "top2"), ("log-l2", "ladder"), ("gain", "fixed")]
)
def test_radii_exceed_the_smaller_exact_radius_seldom(case, method):
    # at most the 99.9 % quantile of Bin(inputs, alpha) certificates may be false
    directions = AXES if case == "gain" else TILTED
    transform = (lambda y: y - 0.7) if case == "l2" else (lambda y: y.log() - math.log(0.7))
    x = torch.rand(250, 2, generator=seeded(1), dtype=torch.float64) + 0.2
    g = dual([NAMES[case](s) for s in (0.5, 0.25, 0.5)], [half_space(w, transform) for w in directions])
    certificates = g.certify(x, n=N, n0=10, alpha=ALPHA, method=method, generator=seeded(2))
    m = torch.stack([transform(x) @ torch.tensor(w, dtype=torch.float64) for w in directions], 1).numpy()
    chosen = (m[:, 0] > 0).astype(int)
    own = m[np.arange(len(m)), 1 + chosen]
    exact = np.minimum(abs(m[:, 0]), abs(own))
    label, radius = (np.array([getattr(c, name) for c in certificates]) for name in ("label", "radius"))
    false = (label != -1) & ((label != (own > 0)) | (radius > exact))
    assert false.sum() <= stats.binom.ppf(0.999, len(x), ALPHA)
    assert radius.mean() > 0.4 * exact.mean()  # they are not idle
    used = [c.selector.label for c in certificates if c.label != -1]
    assert set(used) == {0, 1}


def test_with_many_draws_the_radius_is_the_smaller_one():
    x = torch.tensor([[-0.2, 0.0], [-0.5, -0.1], [0.3, 0.4], [0.6, 0.2]], dtype=torch.float64)
    g = dual([Gaussian(s) for s in (0.5, 0.25, 1.0)], [half_space(w) for w in ([1.0, 0.0], [0.6, 0.8], [0.0, 1.0])])
    found = g.certify(x, n=20_000, alpha=0.01, method="fixed", generator=seeded())
    assert [c.label for c in found] == [0, 0, 1, 1]
    assert [c.radius for c in found] == pytest.approx([0.12, 0.38, 0.3, 0.2], abs=0.025)
    for c in found:
        own = g.experts[c.selector.label].noise.radius(c.p_lower, c.p_upper)
        assert c.radius == min(c.selector.radius, own)


def switching(at=0.2):
    r"""Class 0 below `at`, class 1 above; each expert is sure of its own class everywhere."""
    return dual([Gaussian(0.5)] * 3, [half_space([1.0], offset=at), always(0), always(1)])


def test_without_the_minimum_the_certificate_would_be_false():
    g, x = switching(), torch.zeros(1, 1, dtype=torch.float64)
    c = g.certify(x, n=2000, generator=seeded(), method="fixed")[0]
    experts = Gaussian(0.5).radius(c.p_lower, c.p_upper)
    assert c.label == 0 and experts > 1.0
    assert g.predict(x + 0.5, generator=seeded()).tolist() == [1]  # inside the expert's own radius
    assert 0.1 < c.radius <= 0.2
    assert g.predict(x + 0.99 * c.radius, n=20_000, generator=seeded()).tolist() == [0]


RADII = [0.0, 0.05, 0.2, 0.6, 3.0]


@pytest.mark.parametrize(("r0", "r1"), list(itertools.product(RADII, RADII)), ids=str)
def test_false_certificates_are_at_most_alpha_over_all_counts(r0, r1):
    r"""Selector: expert 0 below r0. Expert 0: class 0 above -r1. Expert 1: class 1. So at 0 the exact radius of class 0
    is min(r0, r1), and every choice and count of both parts is enumerated."""
    noise, n, method = Gaussian(1.0), 60, Fixed(60, 1, ALPHA / 2)

    def outcomes(p):
        for candidate, chance in enumerate((p, 1 - p)):
            counts = np.arange(n + 1)
            for count, mass in zip(counts, stats.binom.pmf(counts, n, p), strict=True):
                tally = Tally(np.eye(2, dtype=int)[candidate], [np.array([count, n - count])])
                yield chance * mass, conclude(tally, method, noise)

    experts = [list(outcomes(stats.norm.cdf(r1))), list(outcomes(0.0))]
    false = unguarded = 0.0
    for p, selector in outcomes(stats.norm.cdf(r0)):
        for q, expert in experts[selector.label] if selector.label != -1 else ():
            c = joined(selector, expert, ALPHA, 2)
            false += p * q * (c.label != -1 and (c.label == 1 or c.radius > min(r0, r1)))
            unguarded += p * q * (expert.label != -1 and (expert.label == 1 or expert.radius > min(r0, r1)))
    assert false <= ALPHA
    if (r0, r1) == (0.6, 3.0):
        assert unguarded > 0.5  # the expert's radius alone


def end_of(noise, n, method, alpha=0.005):
    r"""The radius that n agreeing draws prove."""
    p = make_method(method, noise, n, alpha=alpha).ceiling()
    return noise.radius(p, 1 - p)


@pytest.mark.parametrize("method", ["fixed", "ladder", "stitched", "selection_free", "top2"])
def test_a_part_is_the_plain_certificate_at_half_of_alpha(method):
    r"""With a selector that is sure of expert 0, label, counts, looks and bounds are those of
    `experts[0].certify(alpha=alpha / 2)` with the expert's own seed, and so is the radius where it is the smaller."""
    x = torch.linspace(-0.6, 0.6, 5, dtype=torch.float64)[:, None]
    g = dual([Gaussian(1.0), Gaussian(0.3), Gaussian(0.3)], [always(0), half_space([1.0]), always(1)])
    found = g.certify(x, n=1000, alpha=0.01, method=method, generator=seeded())
    seed = derive_seed(seeded())
    arguments = {"n": 1000, "alpha": 0.005, "method": method}
    parts = [arguments | ({"step": 0.15} if method == "ladder" else {}) for _ in range(2)]  # the parts share one grid
    if method in ("ladder", "stitched"):
        parts[1]["max_radius"] = 0.999 * end_of(g.experts[0].noise, 1000, method)  # less than the selector's 2.0
    chosen, plain = (
        part.certify(x, generator=keyed(seed, k), **own)
        for k, (part, own) in enumerate(zip((g.selector, g.experts[0]), parts, strict=True))
    )
    assert [c.selector for c in found] == chosen
    for c, own in zip(found, plain, strict=True):
        assert c.record() == own.record() | {"draws": own.draws + c.selector.draws, "selector": c.selector.record()}
        assert c.radius == own.radius < c.selector.radius
        assert (c.alpha, c.selector.alpha, own.alpha) == (0.01, 0.005, 0.005)
    assert -1 in [c.label for c in found] and {0, 1} < {c.label for c in found}


@pytest.mark.parametrize("part", [0, 1])
def test_predictions_are_the_plain_ones_at_half_of_alpha(part):
    x = torch.linspace(0.0, 0.3, 60, dtype=torch.float64)[:, None]
    unsure = half_space([-1.0])  # class 0 at all x > 0
    g = dual([Gaussian(0.5)] * 3, [unsure if part == 0 else always(0), unsure if part == 1 else always(0), always(1)])
    own, seed = (g.selector, *g.experts)[part], derive_seed(seeded())
    half, full = (own.predict(x, 100, alpha, keyed(seed, part)).tolist() for alpha in (0.01, 0.02))
    assert g.predict(x, 100, 0.02, seeded()).tolist() == half != full


def test_half_of_alpha_is_spent_on_each_part():
    c = switching().certify(torch.zeros(1, 1).double(), n=1000, n_selector=700, alpha=0.02, method="fixed")[0]
    for part, n in ((c.selector, 700), (c, 1000)):
        assert part.n == n
        assert part.p_lower == pytest.approx(stats.beta.ppf(0.01, int(part.counts[0]), n - int(part.counts[0]) + 1))
    assert c.draws == 1700 + 200


@pytest.mark.parametrize("batch_size", [7, 300])
def test_certificates_do_not_depend_on_batch_size_order_or_company(batch_size):
    x = torch.linspace(-0.8, 0.8, 7, dtype=torch.float64)[:, None]
    parts = [half_space([1.0], offset=0.1), half_space([1.0], offset=-0.4), half_space([1.0], offset=0.5)]

    def certify(order, batch_size):
        g = dual([Gaussian(s) for s in (0.5, 0.25, 0.5)], parts, batch_size)
        return g.certify(x[order], n=300, n0=30, generator=seeded(), indices=order), g.predict(
            x[order], n=100, generator=seeded(), indices=order
        )

    order = list(range(7))
    reference, labels = certify(order, None)
    assert {c.label for c in reference} == {-1, 0, 1}
    found, predicted = certify(order[::-1], batch_size)
    assert found[::-1] == reference and predicted.flip(0).tolist() == labels.tolist()
    assert [certify([i], batch_size)[0][0] for i in (0, 3)] == [reference[0], reference[3]]


def test_blocks_of_inputs_change_nothing():
    g = dual([Gaussian(s) for s in (0.5, 0.25, 0.5)], [half_space([1.0], offset=v) for v in (0.1, -0.4, 0.5)])
    rules = make_dual_method("fixed", Gaussian(0.5), [Gaussian(0.25), Gaussian(0.5)], 300, n0=30)
    inputs = [(3 * i, torch.full((1,), v, dtype=torch.float64)) for i, v in enumerate((-0.8, -0.3, 0.1, 0.4, 0.8))]
    whole, parts = (dict(g.stream(iter(inputs), rules, 5, block)) for block in (5, 2))
    assert whole == parts and {c.label for c in whole.values()} == {-1, 0, 1}


def test_ladders_share_one_grid_up_to_the_radius_of_the_selector():
    noises = [Gaussian(0.25), Gaussian(0.5)]
    rules = make_dual_method("ladder", Gaussian(0.5), noises, 2000, n_selector=100, alpha=0.01)
    assert (rules.alpha, rules.selector.alpha, rules.experts[0].alpha) == (0.01, 0.005, 0.005)
    assert (rules.n, rules.selector.n) == (2000, 100)
    rungs = [
        [noise.radius(p, 1 - p) for p in rule.targets]
        for noise, rule in zip((Gaussian(0.5), *noises), (rules.selector, *rules.experts), strict=True)
    ]
    grid = [0.125 * k for k in range(7)]
    assert rungs[0][:-1] == pytest.approx(grid) and 0.75 < rungs[0][-1] < 0.82  # 100 draws prove no more
    assert rungs[1][:5] == pytest.approx(grid[:5]) and rungs[1][-1] < rungs[0][-1]
    assert rungs[2] == pytest.approx(rungs[0])  # beyond the selector's last radius an expert's is of no interest
