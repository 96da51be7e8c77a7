r"""The order of a sampler, measured where the answer is known.

A sampler without noise follows the flow of the standard mixture, whose end is known to 1e-8. Of one with noise the
variance on normal data is computed exactly, by impulse response, and its error must fall.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest
import torch
from oracles import Independent, affine_law, standard_mixture

from scoregen.samplers import Karras, Sampler, VelocityABM

MIXTURE = standard_mixture()
MEAN, VAR = 0.7, 0.09
NORMAL = Independent(MEAN, VAR)


class Order(NamedTuple):
    r"""The slope of a sampler's error at about 64 to 128 steps, on a scale where halving the error is 1.

    Args:
        build: the sampler of a number of steps. low, high: between them lies the slope.
        sign: of the error of the variance, for a sampler with noise: 1 too wide, -1 too narrow.
    """

    build: Callable[[int], Sampler]
    low: float
    high: float
    sign: int | None = None


@cache
def flow() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""A start at 80 and the solution of the flow of the mixture at 0.002 and 0, to 1e-8."""
    u = MIXTURE.sample(256, torch.Generator().manual_seed(0), 80.0)
    grid = Karras()(MIXTURE.sde, 1000)
    sampler = VelocityABM(1000, order=4)
    return u, sampler.integrate(MIXTURE, u, grid[:-1], None), sampler.integrate(MIXTURE, u, grid, None)


def rmse(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).square().mean().sqrt().item()


def flow_error(sampler: Sampler, steps: int) -> float:
    r"""The error of a sampler without noise on the mixture, without the last jump to 0."""
    u, end, _ = flow()
    return rmse(sampler.integrate(MIXTURE, u, Karras()(MIXTURE.sde, steps)[:-1], refuse), end)


def refuse(u: torch.Tensor) -> torch.Tensor:
    raise AssertionError("this sampler draws noise: state the sign of its error in ORDERS")


def variance_error(sampler: Sampler) -> float:
    r"""The error of the variance of a sampler with noise on normal data, whose mean has none."""
    grid = Karras()(NORMAL.sde, sampler.steps)
    mean, var = affine_law(sampler, NORMAL, grid, MEAN, VAR + 80.0**2)
    assert mean == pytest.approx(MEAN, abs=1e-12)
    return var - VAR


def check_order(law: Order) -> None:
    r"""The law of one row of ORDERS."""
    if law.sign is None:
        coarse, fine = (flow_error(law.build(k), k) for k in (65, 129))
    else:
        coarse, fine = variance_error(law.build(64)), variance_error(law.build(128))
        assert math.copysign(1, coarse) == math.copysign(1, fine) == law.sign
    assert law.low < math.log2(coarse / fine) < law.high
