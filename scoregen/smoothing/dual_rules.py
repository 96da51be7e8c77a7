r"""The methods of dual smoothing: one for the selector and one for each expert, each at half of alpha.

No radius exceeds the selector's, so that all parts share its radii of interest. With ladders all share one grid, on
which the smaller of two radii is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scoregen.smoothing.bounds import check_alpha
from scoregen.smoothing.choice import LADDERS, make_method
from scoregen.smoothing.methods import AbstractMethod
from scoregen.smoothing.noise import AbstractNoise

_NEARLY = 0.999  # of the largest radius that n draws prove


@dataclass(frozen=True)
class DualMethod:
    r"""A method for the selector and one for each expert, each at half of alpha.

    Args:
        selector, experts: the methods. alpha: of both together.
    """

    selector: AbstractMethod
    experts: tuple[AbstractMethod, ...]
    alpha: float

    @property
    def n(self) -> int:
        r"""Draws of an expert for an input (sequential methods: at most)."""
        return self.experts[0].n

    def __repr__(self) -> str:
        kind = type(self.selector).__name__
        return f"Dual({kind}, n={self.n}, n_selector={self.selector.n}, alpha={self.alpha})"


def make_dual_method(
    name: str,
    selector: AbstractNoise,
    experts: Sequence[AbstractNoise],
    n: int,
    *,
    n_selector: int | None = None,
    n0: int = 100,
    alpha: float = 1e-3,
    max_radius: float | None = None,
    step: float | None = None,
) -> DualMethod:
    r"""The methods of a public name; other arguments as `make_method`.

    Args:
        selector, experts: the noises of the parts.
        n: draws of an expert for an input. n_selector: of the selector; None: n.
        alpha: failure probability of both parts together.
        max_radius: the largest radius of interest, of the selector too. n must be able to certify it with one expert at
            least; one of smaller noise goes as far as n allows. None: twice the selector's noise, as far as n_selector
            allows.
        step: distance of the ladders' rungs; None: the smallest of the noises' steps.

    Raises:
        ValueError: n or n_selector is too small.
    """
    check_alpha(alpha)
    if step is None and name in LADDERS:
        step = min(noise.step for noise in (selector, *experts))
    asked = _Question(name, n, n0, alpha / 2, step)
    chooser = replace(asked, n=n if n_selector is None else n_selector)
    own = chooser.rule("selector (n is n_selector)", selector, max_radius)
    limits = _limits(asked, experts, max_radius)
    if max_radius is None and (p := own.sufficient) is not None:
        limits = [min(selector.radius(p, 1.0 - p), limit) for limit in limits]
    rules = (asked.rule(f"experts[{k}]", *pair) for k, pair in enumerate(zip(experts, limits, strict=True)))
    return DualMethod(own, tuple(rules), alpha)


@dataclass(frozen=True)
class _Question:
    r"""What a part is asked for; arguments as `make_method`."""

    name: str
    n: int
    n0: int
    alpha: float
    step: float | None

    def rule(self, part: str, noise: AbstractNoise, max_radius: float | None) -> AbstractMethod:
        r"""The method of a part, made before any draw; what is wrong is said with the part's name."""
        try:
            return make_method(
                self.name, noise, self.n, n0=self.n0, alpha=self.alpha, max_radius=max_radius, step=self.step
            )
        except ValueError as error:
            raise ValueError(f"{part}: {error}") from error


def _limits(asked: _Question, experts: Sequence[AbstractNoise], max_radius: float | None) -> list[float]:
    r"""The largest radius of interest of each expert; refused where no expert can certify max_radius."""
    ceilings = [asked.rule(f"experts[{k}]", noise, None).ceiling() for k, noise in enumerate(experts)]
    ends = [_NEARLY * noise.radius(p, 1.0 - p) for noise, p in zip(experts, ceilings, strict=True)]
    if max_radius is None:
        return ends
    if max(ends) < max_radius:
        furthest = ends.index(max(ends))
        asked.rule(f"experts[{furthest}]", experts[furthest], max_radius)
    return [min(max_radius, end) for end in ends]
