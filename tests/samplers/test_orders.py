r"""Convergence orders and error bounds of the deterministic samplers on the standard mixture."""

import math

import pytest
import torch
from oracles import standard_mixture

from scoregen.samplers import DDIM, ExponentialAB, ExponentialABM, Heun, Karras, VelocityABM

ORACLE = standard_mixture()


@pytest.fixture(scope="module")
def trajectories():
    r"""A start at 80 and the solution of the flow at 0.002 and 0, to 1e-8."""
    u = ORACLE.sample(256, torch.Generator().manual_seed(0), 80.0)
    grid = Karras()(ORACLE.sde, 1000)
    sampler = VelocityABM(1000, order=4)
    return u, sampler.integrate(ORACLE, u, grid[:-1], None), sampler.integrate(ORACLE, u, grid, None)


def rmse(a, b):
    return (a - b).square().mean().sqrt().item()


SLOPES = {
    "ddim": (DDIM, 0.80, 1.15),
    "heun": (Heun, 1.9, 2.15),
    "2m": (lambda k: ExponentialAB(k, order=2), 1.9, 2.15),
    "2m_damped": (lambda k: ExponentialAB(k, order=2, damped=True), 1.8, 2.15),
    "3m": (lambda k: ExponentialAB(k, order=3), 2.8, 3.3),
    "abm1": (lambda k: ExponentialABM(k, order=1), 1.7, 2.2),
    "abm2": (lambda k: ExponentialABM(k, order=2), 2.5, 3.3),
    "abm3": (lambda k: ExponentialABM(k, order=3), 3.6, 4.4),
    "velocity1": (lambda k: VelocityABM(k, order=1), 1.7, 2.2),
    "velocity2": (lambda k: VelocityABM(k, order=2), 2.5, 3.3),
    "velocity3": (lambda k: VelocityABM(k, order=3), 3.4, 4.4),
    "velocity4": (lambda k: VelocityABM(k, order=4), 4.2, 5.6),
}


@pytest.mark.parametrize(("build", "low", "high"), SLOPES.values(), ids=SLOPES.keys())
def test_order(trajectories, build, low, high):
    # the last jump to 0 is left out
    u, end, _ = trajectories
    errors = [rmse(build(k).integrate(ORACLE, u, Karras()(ORACLE.sde, k)[:-1], None), end) for k in (65, 129)]
    assert low < math.log2(errors[0] / errors[1]) < high


BOUNDS = {
    "ddim": (DDIM, 2.8e-2),
    "heun": (Heun, 1.66e-3),
    "2m": (lambda k: ExponentialAB(k, order=2), 2.7e-3),
    "3m": (lambda k: ExponentialAB(k, order=3), 7.9e-4),
    "abm2": (lambda k: ExponentialABM(k, order=2), 8.9e-4),
    "velocity3": (lambda k: VelocityABM(k, order=3), 4.0e-4),
    "velocity4": (lambda k: VelocityABM(k, order=4), 2.1e-4),
}


@pytest.mark.parametrize(("build", "largest"), BOUNDS.values(), ids=BOUNDS.keys())
def test_error_at_64_steps(trajectories, build, largest):
    # largest of several seeds, with half as much again for this one
    u, _, end = trajectories
    assert rmse(build(64).integrate(ORACLE, u, Karras()(ORACLE.sde, 64), None), end) < 1.5 * largest


def test_damped_weights_are_better_at_eight_steps(trajectories):
    u, _, end = trajectories
    grid = Karras()(ORACLE.sde, 8)
    damped, exact = (
        rmse(ExponentialAB(8, order=2, damped=d).integrate(ORACLE, u, grid, None), end) for d in (True, False)
    )
    assert damped < 0.7 * exact
