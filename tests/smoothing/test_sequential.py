r"""Stopping early makes nothing false: exact probabilities over all paths, for a prediction and for two bounds."""

import itertools

import numpy as np
import pytest
from scipy import signal, stats

from scoregen.rng import Stream
from scoregen.smoothing import Gaussian, Uniform
from scoregen.smoothing.bounds import lower_bound, upper_bound
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.methods import Tally, TopTwo, Vote
from scoregen.smoothing.sequential import FIRST_VOTE, GROWTH_OF_VOTES, Ladder, SequentialVote, looks
from scoregen.smoothing.sequential_top_two import LadderTopTwo

ALPHA = 0.05


def steps(size, p):
    r"""The law of the counts of all classes but the last after so many draws, as an array of these counts."""
    found = np.zeros((size + 1,) * (len(p) - 1))
    for counts in itertools.product(range(size + 1), repeat=len(p) - 1):
        if sum(counts) <= size:
            found[counts] = stats.multinomial.pmf([*counts, size - sum(counts)], size, p)
    return found


def ever(schedule, p, bad):
    r"""P(bad(counts, look) at some look), over all paths of the counts."""
    alive, total, before = np.ones((1,) * (len(p) - 1)), 0.0, 0
    for number, size in enumerate(schedule):
        alive, before = signal.convolve(alive, steps(size - before, p), method="direct"), size
        for counts in np.argwhere(alive > 0):
            if bad(np.array([*counts, size - counts.sum()]), number):
                total += alive[tuple(counts)]
                alive[tuple(counts)] = 0.0
    return total


def alone(method, counts, look, candidate):
    r"""The counts at one look, after looks that prove nothing: no draw agreed, and one other class had them all."""
    nothing = np.zeros_like(counts)
    nothing[candidate - 1] = 1
    earlier = [nothing * size for size in method._schedule[:look]]
    return Tally(np.eye(len(counts), dtype=int)[candidate], [*earlier, counts])


@pytest.mark.parametrize("p", [(0.5, 0.5), (0.49, 0.51), (0.3, 0.7), (1 / 3, 1 / 3, 1 / 3), (0.4, 0.42, 0.18)], ids=str)
def test_a_prediction_is_false_with_at_most_alpha_at_any_look(p):
    r"""Any label at a tie of all classes, and any but the best one elsewhere, is false."""
    n = 300 if len(p) == 2 else 64
    method = SequentialVote(n, ALPHA)
    right = [] if len(set(p)) == 1 else [int(np.argmax(p))]

    def false(counts, look):
        bounds = method.bounds(Tally(looks=[counts]))
        return bounds.lower == 1.0 and bounds.candidate not in right

    assert ever(method._schedule, p, false) <= ALPHA
    if p == (0.5, 0.5):
        method.level = lambda n: ALPHA / 2  # the mutant that spends all of alpha at each look
        assert ever(method._schedule, p, false) > 1.5 * ALPHA


@pytest.mark.parametrize("p", [(0.5, 0.5), (0.8, 0.2), (0.45, 0.3, 0.25), (0.4, 0.4, 0.2)], ids=str)
def test_two_bounds_are_both_right_at_all_looks_with_one_minus_alpha(p):
    method = LadderTopTwo(432 if len(p) == 2 else 192, 20, ALPHA)
    if len(p) > 2:
        method._schedule = np.array([20, 48])  # as many looks as at 192 draws, and not as many counts
    for candidate in {0, len(p) - 1}:

        def wrong(counts, look, candidate=candidate):
            bounds = method.bounds(alone(method, counts, look, candidate))
            return bounds.lower > p[candidate] or bounds.upper < max(np.delete(p, candidate))

        assert ever(method._schedule, p, wrong) <= ALPHA
    if p == (0.8, 0.2):
        method.level = lambda n: ALPHA  # the mutant without union bounds
        assert ever(method._schedule, p, wrong) > ALPHA


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_two_bounds_spend_alpha_as_stated(classes):
    r"""At each of K looks alpha / (2 K) below and alpha / (2 K (classes - 1)) above; the best of all looks counts."""
    method, count = LadderTopTwo(288, 20, 0.01), len(looks(288))
    rest = [0] * (classes - 2)
    drawn = [np.array([110, 18, *rest]), np.array([150, 42, *rest]), np.array([200, 88, *rest])]
    tally = Tally(np.eye(classes, dtype=int)[0], drawn)
    bounds = method.bounds(tally)
    lower = max(float(lower_bound(a[0], a.sum(), 0.01 / (2 * count))) for a in drawn)
    upper = min(float(upper_bound(a[1], a.sum(), 0.01 / (2 * count * (classes - 1)))) for a in drawn)
    assert bounds.lower == pytest.approx(lower, rel=1e-12)
    assert bounds.upper == pytest.approx(min(upper, 1 - lower), rel=1e-12)


def finish(method, p, rng):
    tally = Tally()
    while (request := method.request(tally)) is not None:
        tally.add(request[0], rng.multinomial(request[1], p))
    return tally


@pytest.mark.parametrize("noise", [Gaussian(0.5), Uniform(0.5)], ids=repr)
def test_the_ladder_of_two_bounds_certifies_what_the_plain_one_cannot_and_stops_early(noise):
    p = [0.48, *[0.52 / 9] * 9]  # p_a below 1/2, a rest that is spread
    rng = np.random.default_rng(0)
    plain, two = (make_method(name, noise, 10_000) for name in ("ladder", "ladder_top2"))
    fixed = TopTwo(10_000)
    radii, drawn = [], []
    for method in (plain, two, fixed):
        tally = finish(method, p, rng)
        bounds = method.bounds(tally)
        radii.append(noise.radius(bounds.lower, bounds.upper))
        drawn.append(tally.drawn)
    assert radii[0] == 0.0
    rungs = [noise.radius(q, 1 - q) for q in two.targets]
    assert sum(r < radii[1] for r in rungs) == sum(r < radii[2] for r in rungs) > 1
    assert drawn[1] < 10_000
    easy = finish(two, [0.999, 0.001], rng)
    assert easy.drawn < 1000
    assert noise.radius(*[getattr(two.bounds(easy), k) for k in ("lower", "upper")]) > rungs[-1]


def test_a_prediction_needs_few_draws_where_it_is_clear_or_hopeless():
    rng = np.random.default_rng(0)
    assert SequentialVote(1000)._schedule == [32, 64, 128, 256, 512, 1000]
    clear, tie = (
        np.mean([finish(SequentialVote(1000), p, rng).drawn for _ in range(200)])
        for p in ((0.95, 0.05), (0.34, 0.33, 0.33))
    )
    assert clear < 40
    assert tie < 600
    assert FIRST_VOTE == 32 and GROWTH_OF_VOTES == 2


@pytest.mark.parametrize("p", [(0.7, 0.3), (0.5, 0.3, 0.2), (0.4, *[0.6 / 9] * 9)], ids=len)
def test_a_prediction_loses_few_labels_against_all_draws(p):
    rng = np.random.default_rng(1)
    for method in (Vote(1000, 1e-3), SequentialVote(1000)):
        found = [method.bounds(finish(method, p, rng)) for _ in range(300)]
        assert np.mean([b.lower == 1.0 and b.candidate == 0 for b in found]) > 0.97


def test_a_prediction_with_too_few_draws_is_refused_with_the_smallest_number():
    with pytest.raises(ValueError, match=r"n must be at least 11 .*, got n=8"):
        SequentialVote(8, 1e-3)
    method = SequentialVote(11, 1e-3)
    assert method.bounds(Tally(looks=[np.array([11, 0])])).lower == 1.0
    assert method.request(Tally()) == (Stream.VOTE, 11)


def test_a_rung_is_certified_by_a_bound_above_its_target_alone():
    ladder = Ladder(1000, targets=(0.5, 0.7))
    assert [ladder.rung(proved) for proved in (0.5, 0.51, 0.7, 0.71)] == [0, 1, 1, 2]
