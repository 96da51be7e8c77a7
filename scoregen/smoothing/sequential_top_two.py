r"""The ladder with a bound for the runner-up: larger radii where the rest is spread over several classes.

Each of the K looks makes, from the cumulative counts, a lower bound of the class at alpha / (2 K) and upper bounds of
the C - 1 others at alpha / (2 K (C - 1)). By the union bound all of them are right with probability 1 - alpha, so that
the largest lower bound and the smallest upper bound so far are right under any rule of stopping. Of the others only the
largest count of a look matters, since upper bounds grow with the count.
"""

import numpy as np

from scoregen.smoothing.bounds import lower_bound, upper_bound
from scoregen.smoothing.methods import Bounds, Tally
from scoregen.smoothing.noise import AbstractNoise, Gaussian
from scoregen.smoothing.sequential import AbstractRungs, looks


class LadderTopTwo(AbstractRungs):
    r"""`Ladder` that bounds the runner-up too, at alpha / 2 for either side.

    The next rung is out of reach when n draws at the best rates that are likely, each at `futility` / 2, would not
    certify it. Stopping so can never make a certificate false.

    Args:
        n: largest number of draws for an input.
        n0: draws that choose the class.
        alpha: failure probability.
        targets: increasing probabilities, one for each rung: those that certify it where p_upper = 1 - p_lower.
        futility: chance, at each look, of giving up a rung that is exactly at the limit.
        noise: whose radii the two bounds give; tells when to stop, and no bound depends on it. None: Gaussian.

    Raises:
        ValueError: n draws cannot certify the last rung.
    """

    def __init__(
        self,
        n: int,
        n0: int = 100,
        alpha: float = 1e-3,
        targets: tuple[float, ...] = (0.5,),
        *,
        futility: float = 0.05,
        noise: AbstractNoise | None = None,
    ) -> None:
        super().__init__(n, n0, alpha, targets)
        self.futility, self._noise = futility, noise or Gaussian(1.0)

    def level(self, n: int) -> float:
        return self.alpha / (2 * len(looks(n)))

    def bounds(self, tally: Tally) -> Bounds:
        candidate, drawn = tally.selected, self._schedule[: len(tally.looks)]
        agreed, others = np.array([look[1:] for look in self.path(tally)]).T
        return self._joined(candidate, len(tally.counts), (agreed, others, drawn), self.level(self.n))

    def path(self, tally: Tally) -> tuple[tuple[int, ...], ...]:
        candidate = tally.selected
        return tuple(
            (int(look.sum()), int(look[candidate]), int(np.delete(look, candidate).max())) for look in tally.looks
        )

    def settled(self, tally: Tally) -> bool:
        rung = self.rung(self._equivalent(self.bounds(tally)))
        if rung == len(self.targets):
            return True
        drawn, agreed, other = self.path(tally)[-1]
        best = float(upper_bound(agreed, drawn, self.futility / 2)) * self.n
        least = float(lower_bound(other, drawn, self.futility / 2)) * self.n
        found = self._joined(tally.selected, len(tally.counts), (best, least, self.n), self.level(self.n))
        return self._equivalent(found) <= self.targets[rung]

    @staticmethod
    def _joined(candidate: int, classes: int, counts: tuple[np.ndarray | float, ...], spent: float) -> Bounds:
        r"""The best of the bounds of looks: counts of the class, of the runner-up, and draws."""
        agreed, others, drawn = counts
        lower = float(np.max(lower_bound(agreed, drawn, spent)))
        upper = float(np.min(upper_bound(others, drawn, spent / (classes - 1))))
        return Bounds(candidate, lower, min(upper, 1.0 - lower))

    def _equivalent(self, bounds: Bounds) -> float:
        r"""The p_lower that would certify the same radius with p_upper = 1 - p_lower; 0 where there is none."""
        radius = self._noise.radius(bounds.lower, bounds.upper)
        return self._noise.probability_for(radius) if radius > 0.0 else 0.0
