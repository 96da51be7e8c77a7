r"""What counts prove, and how many draws an input gets.

A method sees a `Tally`, the counts of one input so far, and either asks for more draws or stops; then it turns the
counts into a bound p_lower of one class's probability and a bound p_upper of every other's. P(p_lower > p or p_upper
< p_other) <= alpha for each input, whatever the probabilities: this is tested against the worst cases for each
method.

    Fixed          class from n0 draws, Clopper-Pearson on n fresh ones (Cohen's CERTIFY).
    SelectionFree  class and bound from the same n draws, at alpha / 2.
    TopTwo         Fixed with a second bound for the runner-up, alpha / 2 each.
    Vote           no radius: the top class where a binomial test is sure of it (Cohen's PREDICT).

The sequential methods are in sequential.py.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from scoregen.checks import whole
from scoregen.rng import Stream
from scoregen.smoothing.bounds import check_alpha, lower_bound, smallest_n, two_sided_p_value, upper_bound


@dataclass
class Tally:
    r"""The counts of one input: those that chose the class, and the cumulative ones after each look."""

    selection: np.ndarray | None = None
    looks: list[np.ndarray] = field(default_factory=list)

    @property
    def counts(self) -> np.ndarray:
        r"""The cumulative counts after the last look."""
        return self.looks[-1]

    @property
    def selected(self) -> int:
        r"""The class that the draws of the selection chose; never from those that bound it."""
        assert self.selection is not None
        return int(self.selection.argmax())

    @property
    def drawn(self) -> int:
        r"""The draws of all looks."""
        return int(self.looks[-1].sum()) if self.looks else 0

    def add(self, stream: Stream, counts: np.ndarray) -> None:
        r"""Enters the counts of a request that was carried out."""
        if stream == Stream.SELECTION:
            self.selection = counts
        else:
            self.looks.append(counts + self.looks[-1] if self.looks else counts)


@dataclass(frozen=True)
class Bounds:
    r"""The class that was bounded, p_lower of its probability, p_upper of every other's."""

    candidate: int
    lower: float
    upper: float


class AbstractMethod(ABC):
    r"""A rule for drawing and bounding: P(bounds are wrong) <= alpha for each input.

    Args:
        n: draws for an input (for the sequential methods: at most).
        alpha: failure probability for each input.
    """

    def __init__(self, n: int, alpha: float) -> None:
        whole(1, n=n)
        self.n, self.alpha = int(n), check_alpha(alpha)
        self.require(0.5, f"to certify anything at alpha={alpha}")

    def __repr__(self) -> str:
        fields = ", ".join(f"{key}={value}" for key, value in vars(self).items() if not key.startswith("_"))
        return f"{type(self).__name__}({fields})"

    @abstractmethod
    def request(self, tally: Tally) -> tuple[Stream, int] | None:
        r"""The stream and the number of draws wanted next; None: enough."""

    @abstractmethod
    def bounds(self, tally: Tally) -> Bounds:
        r"""What the counts prove."""

    def path(self, tally: Tally) -> tuple[tuple[int, ...], ...]:
        r"""What the bounds need of each look: its draws, and the count of the class."""
        candidate = self.bounds(tally).candidate
        return tuple((int(look.sum()), int(look[candidate])) for look in tally.looks)

    @abstractmethod
    def level(self, n: int) -> float:
        r"""The failure probability that one bound may spend when there are n draws."""

    @property
    def sufficient(self) -> float | None:
        r"""The bound at which the method stops, as its target or last rung; None: it always draws n."""
        return None

    def ceiling(self) -> float:
        r"""The bound p_lower when all n draws agree."""
        return float(self.level(self.n) ** (1.0 / self.n))

    def require(self, p: float, why: str) -> None:
        r"""Raises ValueError, with the smallest n that works, when n agreeing draws do not prove more than p."""
        if self.ceiling() > p:
            return
        needed, previous = 1, 0
        try:
            while needed != previous:
                needed, previous = smallest_n(self.level(needed), p), needed
        except ValueError as error:
            raise ValueError(f"no n is enough {why}: {error}") from None
        raise ValueError(f"n must be at least {needed} {why}, got n={self.n}; raise n (or alpha).")


def two_stage(tally: Tally, n0: int, n: int) -> tuple[Stream, int] | None:
    r"""n0 draws to choose the class, then n fresh ones."""
    if tally.selection is None:
        return Stream.SELECTION, n0
    return None if tally.looks else (Stream.ESTIMATION, n)


class Fixed(AbstractMethod):
    r"""Cohen's CERTIFY: the class from n0 draws, its Clopper-Pearson bound from n fresh ones, p_upper = 1 - p_lower.

    Reference: Cohen, Rosenfeld, Kolter (2019), arXiv 1902.02918, section 3.2.2.
    """

    def __init__(self, n: int, n0: int = 100, alpha: float = 1e-3) -> None:
        super().__init__(n, alpha)
        whole(1, n0=n0)
        self.n0 = int(n0)

    def level(self, n: int) -> float:
        return self.alpha

    def request(self, tally: Tally) -> tuple[Stream, int] | None:
        return two_stage(tally, self.n0, self.n)

    def bounds(self, tally: Tally) -> Bounds:
        candidate = tally.selected
        lower = float(lower_bound(tally.counts[candidate], self.n, self.alpha))
        return Bounds(candidate, lower, 1.0 - lower)


class SelectionFree(AbstractMethod):
    r"""Class and bound from the same n draws, at alpha / 2, p_upper = 1 - p_lower.

    With k* the smallest count whose bound exceeds 1/2, F(q) = P(Bin(n, q) >= k*) is convex on [0, 1/2] with F(0) = 0
    and F(1/2) <= alpha / 2. If the top class has p_1 >= 1/2, the others' F sum to at most F(1/2) <= alpha / 2, and
    P(L_1 > p_1) <= alpha / 2. If none has, the sum is largest at (1/2, 1/2): <= alpha. Without the halving the error
    would be twice alpha.
    """

    def level(self, n: int) -> float:
        return self.alpha / 2

    def request(self, tally: Tally) -> tuple[Stream, int] | None:
        return None if tally.looks else (Stream.ESTIMATION, self.n)

    def bounds(self, tally: Tally) -> Bounds:
        candidate = int(tally.counts.argmax())
        lower = float(lower_bound(tally.counts[candidate], self.n, self.alpha / 2))
        return Bounds(candidate, lower, 1.0 - lower)


class TopTwo(AbstractMethod):
    r"""`Fixed` with a bound for the runner-up: a larger radius where the rest is spread over several classes.

    p_lower at alpha / 2; p_upper = min(1 - p_lower, max over the other classes of their upper bound at alpha / (2
    (classes - 1))).
    """

    def __init__(self, n: int, n0: int = 100, alpha: float = 1e-3) -> None:
        super().__init__(n, alpha)
        whole(1, n0=n0)
        self.n0 = int(n0)

    def level(self, n: int) -> float:
        return self.alpha / 2

    def request(self, tally: Tally) -> tuple[Stream, int] | None:
        return two_stage(tally, self.n0, self.n)

    def bounds(self, tally: Tally) -> Bounds:
        candidate = tally.selected
        lower = float(lower_bound(tally.counts[candidate], self.n, self.alpha / 2))
        others = np.delete(tally.counts, candidate)
        upper = float(upper_bound(others.max(), self.n, self.alpha / (2 * len(others))))
        return Bounds(candidate, lower, min(upper, 1.0 - lower))


class Vote(AbstractMethod):
    r"""Cohen's PREDICT: the top class of n draws, unless a two-sided binomial test cannot tell it from the runner-up.

    P(the label given is not g(x)) <= alpha. `bounds` gives lower = 1 for a label, 0 for an abstention; no radius
    follows from them.

    Reference: Cohen, Rosenfeld, Kolter (2019), arXiv 1902.02918, section 3.2.1.
    """

    def level(self, n: int) -> float:
        return self.alpha / 2

    def ceiling(self) -> float:
        return vote_ceiling(self.level(self.n), self.n)

    def request(self, tally: Tally) -> tuple[Stream, int] | None:
        return None if tally.looks else (Stream.VOTE, self.n)

    def bounds(self, tally: Tally) -> Bounds:
        return voted(tally.counts, self.alpha)


def vote_ceiling(level: float, n: int) -> float:
    r"""The p whose n agreeing draws a vote at a level is sure of; its test admits equality: 2 * 2^-n = alpha."""
    return float(level ** (1.0 / n)) + 1e-12


def voted(counts: np.ndarray, alpha: float) -> Bounds:
    r"""The top class, with lower = 1 where the two-sided binomial test tells it from the runner-up at alpha, else 0."""
    order = np.argsort(-counts, kind="stable")
    first, second = int(counts[order[0]]), int(counts[order[1]])
    sure = float(two_sided_p_value(first, first + second) <= alpha)
    return Bounds(int(order[0]), sure, 1.0 - sure)
