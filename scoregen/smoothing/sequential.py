r"""Methods that stop early: stitched Clopper-Pearson bounds, the ladder, and a prediction.

The counts of an input are looked at after n_1 = 128, n_{k+1} = 1.5 n_k, ..., n draws in all. Each of the K looks makes
a Clopper-Pearson bound at level alpha / K from the cumulative counts. By the union bound all K are right with
probability 1 - alpha, so that the best one so far is right under any rule of stopping. Without the division of alpha
it would not be: the error grows with the number of looks. A prediction looks after 32, 64, 128, ... draws, and spends
alpha / K likewise. The ladder with a bound for the runner-up is in sequential_top_two.py.
"""

from abc import abstractmethod

import numpy as np

from scoregen.checks import whole
from scoregen.rng import Stream
from scoregen.smoothing.bounds import lower_bound, smallest_count, two_sided_p_value, upper_bound
from scoregen.smoothing.methods import AbstractMethod, Bounds, Tally, vote_ceiling, voted

FIRST_LOOK, GROWTH = 128, 1.5
FIRST_VOTE, GROWTH_OF_VOTES = 32, 2.0


def looks(n: int, first: int = FIRST_LOOK, growth: float = GROWTH) -> list[int]:
    r"""The cumulative numbers of draws at which a sequential method looks: 128, growing by 1.5, ending at n."""
    schedule, size = [], float(first)
    while size < n:
        schedule.append(int(size))
        size *= growth
    return [*schedule, n]


class AbstractSequential(AbstractMethod):
    r"""Looks on a fixed schedule, alpha / looks spent at each, until `settled`."""

    def __init__(self, n: int, n0: int, alpha: float) -> None:
        super().__init__(n, alpha)
        whole(1, n0=n0)
        self.n0 = int(n0)
        self._schedule = np.array(looks(self.n))

    @abstractmethod
    def settled(self, tally: Tally) -> bool:
        r"""Whether more draws cannot change what is certified of the targets."""

    def level(self, n: int) -> float:
        return self.alpha / len(looks(n))

    def request(self, tally: Tally) -> tuple[Stream, int] | None:
        if tally.selection is None:
            return Stream.SELECTION, self.n0
        done = len(tally.looks)
        if done == len(self._schedule) or (done and self.settled(tally)):
            return None
        return Stream.ESTIMATION, int(self._schedule[done]) - tally.drawn

    def bounds(self, tally: Tally) -> Bounds:
        candidate = tally.selected
        counts = np.array([look[candidate] for look in tally.looks])
        lower = float(lower_bound(counts, self._schedule[: len(counts)], self.level(self.n)).max())
        return Bounds(candidate, lower, 1.0 - lower)


class Stitched(AbstractSequential):
    r"""Stops at the first look that certifies the target.

    Args:
        n: largest number of draws for an input.
        n0: draws that choose the class.
        alpha: failure probability.
        target: probability to certify; 1 (never reached) draws all n.
    """

    def __init__(self, n: int, n0: int = 100, alpha: float = 1e-3, target: float = 1.0) -> None:
        super().__init__(n, n0, alpha)
        self.target = target

    @property
    def sufficient(self) -> float | None:
        return self.target if self.target < 1.0 else None

    def settled(self, tally: Tally) -> bool:
        return self.bounds(tally).lower > self.target


class AbstractRungs(AbstractSequential):
    r"""Draws until each rung of a grid of radii is certified or out of reach.

    Args:
        n: largest number of draws for an input.
        n0: draws that choose the class.
        alpha: failure probability.
        targets: increasing probabilities, one for each rung; 1/2 is radius 0.

    Raises:
        ValueError: n draws cannot certify the last rung.
    """

    def __init__(self, n: int, n0: int, alpha: float, targets: tuple[float, ...]) -> None:
        super().__init__(n, n0, alpha)
        self.targets = tuple(targets)
        if not self.targets or any(a >= b for a, b in zip(self.targets, self.targets[1:], strict=False)):
            raise ValueError(f"targets must be one or more increasing probabilities, got targets={self.targets}.")
        self.require(self.targets[-1], "to certify the largest radius of the grid")

    @property
    def sufficient(self) -> float | None:
        return self.targets[-1]

    def rung(self, proved: float) -> int:
        r"""The number of rungs that a bound certifies: those of a target below it."""
        return int(np.searchsorted(self.targets, proved))


class Ladder(AbstractRungs):
    r"""Draws until each rung of a grid of radii is certified or out of reach: the cheapest table of accuracy.

    The next rung that is not certified is out of reach when an upper bound of the class's probability, at level
    `futility`, lies below the rate that would certify it with all n draws. Stopping so can never make a certificate
    false, it can only lose one.

    Args:
        n: largest number of draws for an input.
        n0: draws that choose the class.
        alpha: failure probability.
        targets: increasing probabilities, one for each rung; 1/2 is radius 0.
        futility: chance, at each look, of giving up a rung that is exactly at the limit.

    Raises:
        ValueError: n draws cannot certify the last rung.
    """

    def __init__(
        self, n: int, n0: int = 100, alpha: float = 1e-3, targets: tuple[float, ...] = (0.5,), futility: float = 0.05
    ) -> None:
        super().__init__(n, n0, alpha, targets)
        self.futility = futility
        self._rates = [smallest_count(self.n, self.level(self.n), p) / self.n for p in self.targets]

    def settled(self, tally: Tally) -> bool:
        bounds = self.bounds(tally)
        rung = self.rung(bounds.lower)
        if rung == len(self.targets):
            return True
        reachable = float(upper_bound(tally.counts[bounds.candidate], tally.drawn, self.futility))
        return reachable < self._rates[rung]


class SequentialVote(AbstractMethod):
    r"""`Vote` that looks after 32, 64, 128, ... draws: gives a label as soon as the test is sure of it.

    At each of the K looks the two-sided binomial test of the top class against the runner-up is made at alpha / K. So
    P(the label given is not g(x)) <= alpha. It abstains early when the best rate that is likely, at level `futility`,
    would not make the test of all n draws sure; that can lose a label, never make a false one.

    Args:
        n: largest number of draws for an input.
        alpha: failure probability.
        futility: chance, at each look, of giving up an input that is exactly at the limit.
    """

    def __init__(self, n: int, alpha: float = 1e-3, futility: float = 0.05) -> None:
        super().__init__(n, alpha)
        self.futility = futility
        self._schedule = looks(self.n, FIRST_VOTE, GROWTH_OF_VOTES)

    def level(self, n: int) -> float:
        return self.alpha / (2 * len(looks(n, FIRST_VOTE, GROWTH_OF_VOTES)))

    def ceiling(self) -> float:
        return vote_ceiling(self.level(self.n), self.n)

    def request(self, tally: Tally) -> tuple[Stream, int] | None:
        done = len(tally.looks)
        if done == len(self._schedule) or (done and self._settled(tally)):
            return None
        return Stream.VOTE, self._schedule[done] - tally.drawn

    def bounds(self, tally: Tally) -> Bounds:
        return voted(tally.counts, 2 * self.level(self.n))

    def _settled(self, tally: Tally) -> bool:
        if self.bounds(tally).lower:
            return True
        second, first = np.sort(tally.counts)[-2:]
        both = first + second
        best, all_draws = float(upper_bound(first, both, self.futility)), int(both / tally.drawn * self.n)
        return two_sided_p_value(int(np.ceil(best * all_draws)), all_draws) > 2 * self.level(self.n)
