r"""Noise levels fitted to a denoiser: of all grids of n steps, one whose samples end near those of many steps.

    s_0 = top,   s_i = s_{i-1} exp(-e^{p_i}),   minimise over p the root mean square distance of the ends

The ends are those of a fine solution from the same starts. The last level stays at or above a floor, and no gap is
wider than a factor of 50: without these bounds a fit to few starts may leave out what others need. A fit is kept only
if it is better than the grid that it began with on starts that it has not seen.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from scoregen.checks import positive, whole
from scoregen.models.protocol import DenoiserLike
from scoregen.parallel import gather, moved, shard
from scoregen.rng import Generators, Stream, generators
from scoregen.samplers.base import Bound, CountingZeroDenoiser, Sampler
from scoregen.samplers.from_noise import FromNoise
from scoregen.samplers.grids import Karras, Levels, check_ratios, least_ratio
from scoregen.samplers.start import check_label, prior_state
from scoregen.samplers.velocity import VelocityABM
from scoregen.sde.additive import karras
from scoregen.sde.path import as_time
from scoregen.sde.process import SDE

WIDEST = math.log(50.0)
Error = Callable[[Sequence[float]], float]


def minimise(error: Error, levels: Sequence[float], floor: float, evaluations: int = 60) -> list[float]:
    r"""The levels of least error that Nelder-Mead finds from given ones; the first level stays.

    Args:
        error: of levels, without the final 0.
        levels: decreasing, at least two.
        floor: the last level stays at or above it.
        evaluations: number of evaluations of the error, for each level that is free.

    Returns:
        Decreasing levels, as many.

    Raises:
        ValueError: fewer than two levels, or some that do not decrease to a floor below the first one.

    Reference: Nelder & Mead (1965), A simplex method for function minimization, The Computer Journal 7.
    """
    from scipy.optimize import minimize

    top = float(levels[0])
    if len(levels) < 2 or not all(a > b for a, b in pairwise(levels)) or not 0 < floor < top:
        raise ValueError(
            f"levels must be at least two that decrease, with a floor between 0 and the first, got {list(levels)} and "
            f"floor={floor}. With one step there is nothing to fit."
        )
    first = [math.log(math.log(a / b)) for a, b in pairwise(levels)]
    simplex = [first, *([p + 0.4 * (i == j) for j, p in enumerate(first)] for i in range(len(first)))]
    found = minimize(
        lambda gaps: error(_levels(gaps, top, floor)),
        first,
        method="Nelder-Mead",
        options={
            "maxfev": evaluations * len(first),
            "initial_simplex": simplex,
            "xatol": 1e-4,
            "fatol": 1e-12,
            "adaptive": len(first) > 4,
        },
    )
    return _levels(found.x, top, floor)


def _levels(gaps: Sequence[float], top: float, floor: float) -> list[float]:
    r"""The levels of logarithms of gaps; a gap is cut at the widest one, and all shrink where they pass the floor."""
    widths = [min(math.exp(min(float(gap), 10.0)), WIDEST) for gap in gaps]
    total, room = sum(widths), math.log(top / floor)
    share = min(1.0, room / total)
    found, depth = [top], 0.0
    for width in widths:
        depth += share * width
        found.append(top * math.exp(-depth))
    return found


@dataclass(frozen=True)
class FittedLevels:
    r"""What a fit has found.

    Args:
        levels: the fitted ones, or those of the grid where these were better.
        accepted: whether they are the fitted ones.
        before, after: root mean square distance to the fine solution, in model coordinates, of the grid and of the
            fitted levels: on the starts of the fit, then on each set of other starts.
    """

    levels: Levels
    accepted: bool
    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Fit:
    r"""How levels are fitted; all of it is a function of the values here.

    Args:
        n: starts of the fit, and of each of the two sets on which it has to be better.
        batch_size: starts a process works on at once.
        seed: seed of the starts.
        start: noise ratio from which samples start, as a purification does; None: that of the process.
        evaluations: runs of the sampler for each level that is fitted.
        reference: steps of the fine solution, by `VelocityABM`.

    Raises:
        ValueError: numbers below 1, or a start that is not positive.
    """

    n: int = 64
    batch_size: int = 64
    seed: int = 0
    start: float | None = None
    evaluations: int = 60
    reference: int = 100

    def __post_init__(self) -> None:
        whole(1, n=self.n, batch_size=self.batch_size, evaluations=self.evaluations, reference=self.reference)
        if self.start is not None:
            positive(start=self.start)

    def __call__(
        self,
        denoiser: DenoiserLike,
        sampler: Sampler,
        shape: tuple[int, ...],
        label: Tensor | None = None,
        evaluated: Callable[[], object] | None = None,
    ) -> FittedLevels:
        r"""Levels for the steps of a sampler, from those of its grid on; the work is shared by the processes.

        Args:
            denoiser: D(u, s) of a process; guidance around it counts.
            sampler: deterministic, at least two steps.
            shape: shape of a sample, (*S).
            label: (n,) integers, or None.
            evaluated: called after each evaluation of the error.

        Raises:
            ValueError: a consistency function; a sampler that draws noise, has one step or chooses its steps itself; a
                grid with jumps, or without room above the least noise.
        """
        grid = check_fits(denoiser, sampler, self.start)
        fit, *checks = (_Ends(denoiser, sampler, self, shape, label, number) for number in range(3))

        def error(levels: Sequence[float]) -> float:
            value = fit.error(levels)
            if evaluated is not None:
                evaluated()
            return value if math.isfinite(value) else math.inf

        found = rounded(minimise(error, grid, _floor(denoiser.sde, grid), self.evaluations))
        before, after = ([ends.error(levels) for ends in (fit, *checks)] for levels in (grid, found))
        accepted = all(new < old for old, new in zip(before[1:], after[1:], strict=True))
        return FittedLevels(Levels(found if accepted else grid), accepted, tuple(before), tuple(after))


def check_fits(denoiser: DenoiserLike, sampler: Sampler, start: float | None = None) -> list[float]:
    r"""The levels that a fit begins with, those of the grid of a sampler.

    Raises:
        ValueError: a consistency function; a sampler that draws noise, has one step or chooses its steps itself; a grid
            with jumps, or without room above the least noise.
    """
    sde, name = denoiser.sde, type(sampler).__name__
    if getattr(denoiser, "is_consistency", False):
        raise ValueError(
            "the denoiser must be a mean, whose flow leads to the ends of a fit, got a consistency function. Fit the "
            "levels to the model that it was tuned from."
        )
    if start is not None:
        check_ratios(sde, [start], "start")
    if sampler.couples_batch:
        raise ValueError(
            f"sampler must take one level a step, got {name}, which chooses its steps itself. Choose "
            "sampler=velocity_abm."
        )
    grid: list[float] = sampler.grid(sde, sampler.steps, start)[:-1].tolist()
    if not all(a > b for a, b in pairwise(grid)):
        raise ValueError(f"grid must decrease, got {type(sampler.grid).__name__} with jumps upward. Choose Karras.")
    if len(grid) < 2:
        raise ValueError(
            f"sampler must have at least two steps, got {name} with one. With one step there is nothing to fit."
        )
    if len(grid) != sampler.steps:
        raise ValueError(
            f"sampler must take one level a step, got {name} with {len(grid)} levels for {sampler.steps} steps. Give "
            f"sampler.steps={len(grid)}, or a grid such as Karras."
        )
    if not _floor(sde, grid) < grid[0]:
        raise ValueError(
            f"start must lie above {_floor(sde, grid):.6g}, which is the least last level, got {grid[0]:.6g}. There is "
            "hardly any noise to remove: one step will do."
        )
    FromNoise(CountingZeroDenoiser(sde), sampler)  # refuses samplers that draw
    return grid


def _floor(sde: SDE, grid: Sequence[float]) -> float:
    r"""The least last level of a fit that begins with a grid."""
    return 2 * least_ratio(sde, grid[0])


class _Ends:
    r"""A set of starts, and where the exact flow takes them."""

    def __init__(
        self,
        denoiser: DenoiserLike,
        sampler: Sampler,
        fit: Fit,
        shape: tuple[int, ...],
        label: Tensor | None,
        number: int,
    ) -> None:
        self.sampler, self.n = sampler, fit.n
        self.batches = []
        for first in shard(range(0, fit.n, fit.batch_size)):
            rows = range(first, min(first + fit.batch_size, fit.n))
            draws = generators(fit.seed, Stream.GRID, number, rows)
            own = None if label is None else label[rows.start : rows.stop]
            check_label(denoiser, own, len(rows))
            with torch.no_grad():
                self.batches.append(self._flow(denoiser, own, (len(rows), *shape), draws, fit))

    def _flow(
        self,
        denoiser: DenoiserLike,
        label: Tensor | None,
        shape: tuple[int, ...],
        draws: Generators,
        fit: Fit,
    ) -> tuple[Bound, Tensor, Tensor]:
        r"""The denoiser with its labels, the starts and their ends."""
        sde, fine = denoiser.sde, VelocityABM(fit.reference)
        top = sde.s_max if fit.start is None else max(fit.start, sde.s_max)
        u = prior_state(denoiser, shape, top, draws)
        bound = Bound(denoiser, None if label is None else moved(label, u.device))
        if fit.start is not None and fit.start < top:
            way = karras(torch.linspace(0, 1, fit.reference + 1, dtype=torch.float64), top, fit.start, 7.0)
            u = fine.integrate(bound, u, way, _refuse)
        return bound, u, fine.integrate(bound, u, Karras()(sde, fit.reference, fit.start), _refuse)

    @torch.no_grad()
    def error(self, levels: Sequence[float]) -> float:
        r"""Root mean square distance of the ends of a sampler on these levels."""
        grid = as_time([*levels, 0.0])
        sums = []
        for bound, u, end in self.batches:
            squares = (self.sampler.integrate(bound, u, grid, _refuse) - end).double().square().flatten(1).mean(1)
            sums.append(squares.sum().item())
        return math.sqrt(math.fsum(value for part in gather(sums) for value in part) / self.n)


def rounded(levels: Sequence[float], digits: int = 3) -> list[float]:
    r"""Levels with so many digits, but for the first one; as they are where two would become one."""
    found = [float(levels[0]), *(float(f"{level:.{digits}g}") for level in levels[1:])]
    return found if all(a > b for a, b in pairwise(found)) else list(levels)


def _refuse(like: Tensor) -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")  # `FromNoise` has tried it
