r"""From a method's public name and a question about radii to the method."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from scoregen.errors import closest
from scoregen.smoothing.methods import AbstractMethod, Fixed, SelectionFree, TopTwo
from scoregen.smoothing.noise import AbstractNoise
from scoregen.smoothing.sequential import Ladder, Stitched


def radius_grid(noise: AbstractNoise, max_radius: float, step: float | None = None) -> list[float]:
    r"""The rungs 0, step, 2 step, ... up to max_radius, which is always the last."""
    step = noise.step if step is None else step
    if not (0.0 < step < math.inf and 0.0 <= max_radius < math.inf):
        raise ValueError(f"the radius grid needs step > 0 and max_radius >= 0, finite, got {step=}, {max_radius=}.")
    if max_radius / step > MOST_RUNGS:
        raise ValueError(
            f"step must leave at most {MOST_RUNGS} rungs up to {max_radius:g}, got {step=}; give a larger."
        )
    rungs = [i * step for i in range(int(max_radius / step + 1e-9) + 1)]
    return rungs if max_radius - rungs[-1] < 1e-9 * step else [*rungs, max_radius]


@dataclass(frozen=True)
class Question:
    r"""What is asked for: draws, failure probability, and the radii of interest; arguments as `make_method`."""

    noise: AbstractNoise
    n: int
    n0: int
    alpha: float
    max_radius: float | None
    step: float | None

    def possible(self, method: AbstractMethod) -> AbstractMethod:
        r"""Returns the method if it can certify the radius asked for, or raises ValueError."""
        if self.max_radius is not None:
            if not 0 <= self.max_radius < math.inf or self.noise.probability_for(self.max_radius) >= 1:
                raise ValueError(
                    f"max_radius must be >= 0 and below what {self.noise!r} can certify with any n, "
                    f"got max_radius={self.max_radius}."
                )
            method.require(self.noise.probability_for(self.max_radius), f"to certify radius {self.max_radius}")
        return method

    def reach(self, method: AbstractMethod) -> float:
        r"""The radius asked for, or else as much of the noise's usual one as n can certify."""
        if self.max_radius is not None:
            self.possible(method)
            return self.max_radius
        ceiling = method.ceiling()
        return min(self.noise.reach, 0.999 * self.noise.radius(ceiling, 1.0 - ceiling))

    def stitched(self) -> Stitched:
        reach = self.reach(Stitched(self.n, self.n0, self.alpha))
        return Stitched(self.n, self.n0, self.alpha, self.noise.probability_for(reach))

    def ladder(self) -> Ladder:
        reach = self.reach(Ladder(self.n, self.n0, self.alpha))
        rungs = radius_grid(self.noise, reach, self.step)
        return Ladder(self.n, self.n0, self.alpha, tuple(self.noise.probability_for(r) for r in rungs))


MOST_RUNGS = 1000

METHODS: dict[str, Callable[[Question], AbstractMethod]] = {
    "fixed": lambda q: q.possible(Fixed(q.n, q.n0, q.alpha)),
    "selection_free": lambda q: q.possible(SelectionFree(q.n, q.alpha)),
    "top2": lambda q: q.possible(TopTwo(q.n, q.n0, q.alpha)),
    "stitched": Question.stitched,
    "ladder": Question.ladder,
}


def make_method(
    name: str,
    noise: AbstractNoise,
    n: int,
    n0: int = 100,
    alpha: float = 1e-3,
    max_radius: float | None = None,
    step: float | None = None,
) -> AbstractMethod:
    r"""The method of a public name.

    Args:
        name: fixed, selection_free, top2, stitched or ladder.
        noise: whose radii are asked for.
        n: draws for an input (sequential methods: at most).
        n0: draws that choose the class.
        alpha: failure probability for each input.
        max_radius: a radius that n must be able to certify, and at which stitched and ladder stop; None: the noise's
            `reach`, or as much of it as n allows.
        step: distance of the ladder's rungs; None: the noise's `step`.

    Raises:
        ValueError: for an unknown name, a step without a ladder, or when n is too small for alpha or the radius.
    """
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got method={name!r}. {closest(name, METHODS)}")
    if step is not None and name != "ladder":
        raise ValueError(f"step is the distance of the ladder's rungs, and method={name!r} has none, got step={step}.")
    return METHODS[name](Question(noise, n, n0, alpha, max_radius, step))
