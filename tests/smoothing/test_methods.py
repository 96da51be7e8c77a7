r"""Methods against the worst cases for selection and stopping, where the true probabilities tell what is false.

Each check allows the 99.9 % quantile of Bin(trials, alpha): a sound method fails it with probability at most .001.
"""

import numpy as np
import pytest
from scipy import stats

from scoregen.rng import Stream
from scoregen.smoothing.bounds import lower_bound, two_sided_p_value
from scoregen.smoothing.methods import Bounds, Fixed, SelectionFree, Tally, TopTwo, Vote
from scoregen.smoothing.noise import Gaussian
from scoregen.smoothing.sequential import AbstractSequential, Ladder, Stitched, looks

ALPHA = 0.05
LADDER = (0.5, 0.6915, 0.8413, 0.9332)
WORST = [(0.5, 0.5), (0.5, 0.25, 0.25), (0.52, 0.48), (0.9, 0.1), (0.45, 0.3, 0.25)]


def finish(method, p, rng):
    tally = Tally()
    while (request := method.request(tally)) is not None:
        tally.add(request[0], rng.multinomial(request[1], p))
    return tally


def false_certificates(method, p, trials):
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(trials):
        bounds = method.bounds(finish(method, p, rng))
        certified = bounds.lower > bounds.upper
        wrong += certified and (
            bounds.lower > p[bounds.candidate] or bounds.upper < max(np.delete(p, bounds.candidate))
        )
    return wrong


def allowed(trials, alpha):
    return stats.binom.ppf(0.999, trials, alpha)


@pytest.mark.parametrize("p", WORST, ids=str)
@pytest.mark.parametrize(
    "method",
    [
        Fixed(500, 20, ALPHA),
        SelectionFree(500, ALPHA),
        TopTwo(500, 20, ALPHA),
        Stitched(500, 20, ALPHA),
        Stitched(500, 20, ALPHA, target=0.5),
        Ladder(500, 20, ALPHA, LADDER),
    ],
    ids=lambda m: type(m).__name__,
)
def test_false_certificates_are_at_most_alpha(method, p):
    assert false_certificates(method, p, 2000) <= allowed(2000, ALPHA)


class Peeking(AbstractSequential):
    r"""The mutant that looks every 100 draws at the full alpha and stops as soon as it likes what it sees."""

    def __init__(self, n, n0, alpha, target):
        super().__init__(n, n0, alpha)
        self._schedule, self.target = np.arange(100, n + 1, 100), target

    def level(self, n):
        return self.alpha

    def settled(self, tally):
        return self.bounds(tally).lower > self.target


class Unhalved(SelectionFree):
    r"""The mutant that selects and bounds on one sample at the full alpha."""

    def bounds(self, tally):
        candidate = int(tally.counts.argmax())
        lower = float(lower_bound(tally.counts[candidate], self.n, self.alpha))
        return Bounds(candidate, lower, 1.0 - lower)


def test_the_check_catches_peeking():
    mutant = Peeking(5_000, 20, 0.01, target=0.5)
    assert false_certificates(mutant, (0.5, 0.5), 400) > 2 * allowed(400, 0.01)
    honest = Stitched(5_000, 20, 0.01, target=0.5)
    assert false_certificates(honest, (0.5, 0.5), 400) <= allowed(400, 0.01)


def test_the_check_catches_selection_without_halving():
    assert false_certificates(Unhalved(500, ALPHA), (0.5, 0.5), 2000) > 1.4 * allowed(2000, ALPHA)


def test_a_class_is_never_chosen_from_the_draws_that_bound_it():
    for method in (Fixed(100), TopTwo(100), Stitched(200), Ladder(200)):
        tally = Tally()
        assert method.request(tally) == (Stream.SELECTION, 100)
        tally.add(Stream.SELECTION, np.array([60, 40]))
        assert method.request(tally)[0] == Stream.ESTIMATION


@pytest.mark.parametrize(("p_a", "p_b", "plain", "top_two"), [(0.45, 0.20, 0.0, 0.310), (0.70, 0.10, 0.484, 0.848)])
def test_top_two_reaches_the_published_radii(p_a, p_b, plain, top_two):
    # n = 10,000, ten classes, counts at their expectation, radii in units of sigma
    counts = np.full(10, round(10_000 * (1 - p_a - p_b) / 8))
    counts[0], counts[1] = 10_000 * p_a, 10_000 * p_b
    tally = Tally(selection=counts, looks=[counts])
    noise = Gaussian(1.0)
    for method, radius in ((Fixed(10_000), plain), (TopTwo(10_000), top_two)):
        bounds = method.bounds(tally)
        assert noise.radius(bounds.lower, bounds.upper) == pytest.approx(radius, abs=0.012)


def test_looks_grow_by_half_and_end_at_n():
    schedule = looks(100_000)
    assert schedule[:4] == [128, 192, 288, 432]
    assert schedule[-1] == 100_000
    assert len(schedule) == 18
    assert looks(100) == [100]


def test_ladder_spends_little_on_easy_and_hopeless_inputs():
    ladder = Ladder(100_000, 100, 1e-3, (0.5, 0.6915, 0.8413, 0.9332, 0.97725))
    rng = np.random.default_rng(1)
    cases = {"easy": (0.9999, 0.0001), "hopeless": (0.4, 0.3, 0.3), "between two rungs": (0.9, 0.1)}
    drawn = {name: np.mean([finish(ladder, p, rng).drawn for _ in range(30)]) for name, p in cases.items()}
    assert drawn["easy"] < 1000
    assert drawn["hopeless"] < 500
    assert drawn["between two rungs"] < 5000


def test_ladder_loses_little_certified_accuracy():
    # against Fixed(100,000) over many true probabilities, rung by rung; loss allowed: .3 points
    targets = (0.5, 0.6915, 0.8413, 0.9332, 0.97725)
    ladder, fixed = Ladder(100_000, 100, 1e-3, targets), Fixed(100_000, 100, 1e-3)
    rng = np.random.default_rng(2)
    truth = stats.norm.cdf(rng.uniform(-1, 4, 1000))
    got = np.array([[m.bounds(finish(m, (p, 1 - p), rng)).lower for p in truth] for m in (ladder, fixed)])
    for target in targets:
        ladder_rate, fixed_rate = (got > target).mean(1)
        assert fixed_rate - ladder_rate < 0.003 + 2 * np.sqrt(fixed_rate / 1000 / 50)


def test_vote_agrees_with_the_binomial_test_and_seldom_errs():
    vote = Vote(100, ALPHA)
    for first, second in ((60, 40), (61, 39), (40, 61), (50, 50)):
        bounds = vote.bounds(Tally(looks=[np.array([first, second, 0])]))
        assert bool(bounds.lower) == (two_sided_p_value(first, first + second) <= ALPHA)
    rng = np.random.default_rng(3)
    given = [vote.bounds(finish(vote, (0.51, 0.49), rng)) for _ in range(2000)]
    assert sum(b.lower > 0 and b.candidate == 1 for b in given) <= allowed(2000, ALPHA)


@pytest.mark.parametrize(
    ("build", "smallest"),
    [
        (lambda n: Fixed(n, 100, 1e-3), 10),
        (lambda n: SelectionFree(n, 1e-3), 11),
        (lambda n: TopTwo(n, 100, 1e-3), 11),
        (lambda n: Stitched(n, 100, 1e-3), 10),
        (lambda n: Ladder(n, 100, 1e-3, (0.5, 0.97725)), 361),
        (lambda n: Vote(n, 1e-3), 11),
    ],
    ids=["fixed", "selection_free", "top2", "stitched", "ladder", "vote"],
)
def test_n_too_small_is_refused_with_the_smallest_that_works(build, smallest):
    build(smallest)
    with pytest.raises(ValueError, match=f"n must be at least {smallest} .*got n={smallest - 1}"):
        build(smallest - 1)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="whole number"):
        Fixed(100.5)
    with pytest.raises(ValueError, match="increasing probabilities"):
        Ladder(1000, targets=(0.9, 0.5))
