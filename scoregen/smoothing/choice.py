r"""From a method's public name and a question about radii to the method."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from scoregen.checks import at_least, one_of, positive
from scoregen.smoothing.methods import AbstractMethod, Fixed, SelectionFree, TopTwo
from scoregen.smoothing.noise import AbstractNoise
from scoregen.smoothing.sequential import Ladder, Stitched
from scoregen.smoothing.sequential_top_two import LadderTopTwo


def radius_grid(noise: AbstractNoise, max_radius: float, step: float | None = None) -> list[float]:
    r"""The rungs 0, step, 2 step, ... up to max_radius, which is always the last."""
    step = noise.step if step is None else step
    positive(step=step)
    at_least(0.0, max_radius=max_radius)
    if max_radius / step > MOST_RUNGS:
        raise ValueError(
            f"step must leave at most {MOST_RUNGS} rungs up to {max_radius:g}, got {step=}. Set a larger one."
        )
    rungs = [i * step for i in range(int(max_radius / step + 1e-9) + 1)]
    return rungs if max_radius - rungs[-1] < 1e-9 * step else [*rungs, max_radius]


@dataclass(frozen=True)
class Question:
    r"""Draws, failure probability and the radii of interest; arguments as `make_method`."""

    noise: AbstractNoise
    n: int
    n0: int
    alpha: float
    max_radius: float | None
    step: float | None

    def possible(self, method: AbstractMethod) -> AbstractMethod:
        r"""Returns the method, which must be able to certify max_radius.

        Raises:
            ValueError: it is not.
        """
        if self.max_radius is not None:
            if not 0 <= self.max_radius < math.inf or self.noise.probability_for(self.max_radius) >= 1:
                raise ValueError(
                    f"max_radius must be >= 0 and below what {self.noise!r} can certify with any n, "
                    f"got max_radius={self.max_radius}."
                )
            method.require(self.noise.probability_for(self.max_radius), f"to certify radius {self.max_radius}")
        return method

    def reach(self, method: AbstractMethod) -> float:
        r"""max_radius; without one as much of the noise's usual reach as n can certify."""
        if self.max_radius is not None:
            self.possible(method)
            return self.max_radius
        ceiling = method.ceiling()
        return min(self.noise.reach, 0.999 * self.noise.radius(ceiling, 1.0 - ceiling))

    def stitched(self) -> Stitched:
        r"""`Stitched` up to the reach."""
        reach = self.reach(Stitched(self.n, self.n0, self.alpha))
        return Stitched(self.n, self.n0, self.alpha, self.noise.probability_for(reach))

    def ladder(self) -> Ladder:
        r"""`Ladder` with rungs up to the reach."""
        return Ladder(self.n, self.n0, self.alpha, self._rungs(Ladder(self.n, self.n0, self.alpha)))

    def ladder_top2(self) -> LadderTopTwo:
        r"""`LadderTopTwo` with rungs up to the reach."""
        targets = self._rungs(LadderTopTwo(self.n, self.n0, self.alpha))
        return LadderTopTwo(self.n, self.n0, self.alpha, targets, noise=self.noise)

    def _rungs(self, method: AbstractMethod) -> tuple[float, ...]:
        rungs = radius_grid(self.noise, self.reach(method), self.step)
        return tuple(self.noise.probability_for(r) for r in rungs)


MOST_RUNGS = 1000

METHODS: dict[str, Callable[[Question], AbstractMethod]] = {
    "fixed": lambda q: q.possible(Fixed(q.n, q.n0, q.alpha)),
    "selection_free": lambda q: q.possible(SelectionFree(q.n, q.alpha)),
    "top2": lambda q: q.possible(TopTwo(q.n, q.n0, q.alpha)),
    "stitched": Question.stitched,
    "ladder": Question.ladder,
    "ladder_top2": Question.ladder_top2,
}
LADDERS = ("ladder", "ladder_top2")


def make_method(
    name: str,
    noise: AbstractNoise,
    n: int,
    *,
    n0: int = 100,
    alpha: float = 1e-3,
    max_radius: float | None = None,
    step: float | None = None,
) -> AbstractMethod:
    r"""The method of a public name.

    Args:
        name: fixed, selection_free, top2, stitched, ladder or ladder_top2.
        noise: of the smoothing, which gives the radii.
        n: draws for an input (sequential methods: at most).
        n0: draws that choose the class.
        alpha: failure probability for each input.
        max_radius: the largest radius of interest, at which stitched and ladders stop; n must be able to certify it.
            None: the noise's `reach`, as far as n allows.
        step: distance of a ladder's rungs; None: the noise's `step`.

    Raises:
        ValueError: an unknown name, a step without a ladder, or n too small for alpha or the radius.
    """
    one_of(METHODS, method=name)
    if step is not None and name not in LADDERS:
        raise ValueError(
            f"step needs method='ladder' or 'ladder_top2', whose rungs it spaces, got step={step} with method={name!r}."
        )
    return METHODS[name](Question(noise, n, n0, alpha, max_radius, step))
