r"""Methods that stop early: stitched Clopper-Pearson bounds and the ladder.

The counts of an input are looked at after n_1 = 128, n_{k+1} = 1.5 n_k, ..., n draws in all. Each of the K looks makes
a Clopper-Pearson bound at level alpha / K from the cumulative counts. By the union bound all K are right with
probability 1 - alpha, so that the best one so far is right under any rule of stopping. Without the division of alpha
it would not be: the error grows with the number of looks.
"""

from abc import abstractmethod

import numpy as np

from scoregen.checks import whole
from scoregen.rng import Stream
from scoregen.smoothing.bounds import lower_bound, smallest_count, upper_bound
from scoregen.smoothing.methods import AbstractMethod, Bounds, Tally

FIRST_LOOK, GROWTH = 128, 1.5


def looks(n: int) -> list[int]:
    r"""The cumulative numbers of draws at which a sequential method looks: 128, growing by 1.5, ending at n."""
    schedule, size = [], float(FIRST_LOOK)
    while size < n:
        schedule.append(int(size))
        size *= GROWTH
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


class Ladder(AbstractSequential):
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
        self, n: int, n0: int = 100, alpha: float = 1e-3, targets: tuple[float, ...] = (0.5,), futility: float = 0.01
    ) -> None:
        super().__init__(n, n0, alpha)
        self.targets, self.futility = tuple(targets), futility
        if not self.targets or any(a >= b for a, b in zip(self.targets, self.targets[1:], strict=False)):
            raise ValueError(f"targets must be one or more increasing probabilities, got targets={self.targets}.")
        self.require(self.targets[-1], "to certify the largest radius of the grid")
        self._rates = [smallest_count(self.n, self.level(self.n), p) / self.n for p in self.targets]

    @property
    def sufficient(self) -> float | None:
        return self.targets[-1]

    def settled(self, tally: Tally) -> bool:
        bounds = self.bounds(tally)
        rung = int(np.searchsorted(self.targets, bounds.lower))  # targets[:rung] < lower are certified
        if rung == len(self.targets):
            return True
        reachable = float(upper_bound(tally.counts[bounds.candidate], tally.drawn, self.futility))
        return reachable < self._rates[rung]
