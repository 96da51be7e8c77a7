r"""Heun's sampler: its step in closed form, its churn, its calls."""

import math

import pytest
import torch
from oracles import Independent, standard_mixture

from scoregen.samplers import Heun, Karras, Levels
from scoregen.sde import GeometricBrownianMotion

ORACLE = Independent(0.3, 0.5)


def test_one_step_on_normal_data_in_closed_form():
    # slope(u, s) = s/(v + s^2) (u - m); Heun averages the slopes at both ends
    s, n, v = 2.0, 0.8, 0.5
    grid = torch.tensor([s, n], dtype=torch.float64)
    u = torch.tensor([[1.7]], dtype=torch.float64)
    a, b = s / (v + s**2), n / (v + n**2)
    factor = 1 + (n - s) / 2 * (a + b * (1 + (n - s) * a))
    end = Heun(1).integrate(ORACLE, u, grid, None)
    assert end.item() == pytest.approx(0.3 + factor * 1.4, rel=1e-14)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_calls_are_twice_the_steps_less_one(steps):
    oracle, calls = standard_mixture(), []

    def denoise(u, s):
        calls.append(s)
        return oracle(u, s)

    sampler = Heun(steps)
    sampler.integrate(denoise, torch.ones(3, 2, dtype=torch.float64), sampler.grid(oracle.sde, steps), None)
    assert len(calls) == 2 * steps - 1


def test_churn_acts_between_its_bounds_and_is_limited():
    # S_churn/steps is cut at sqrt(2) - 1, so the level rises by at most sqrt(2)
    seen, draws = [], []

    def denoise(u, s):
        seen.append(float(s))
        return ORACLE(u, s)

    def noise(u):
        draws.append(1)
        return torch.zeros_like(u)

    denoise.sde = ORACLE.sde
    sampler = Heun(3, Levels([10.0, 1.0, 0.1]), churn=30.0, churn_min=0.5, churn_max=5.0)
    sampler.integrate(denoise, torch.ones(1, 1, dtype=torch.float64), sampler.grid(ORACLE.sde, 3), noise)
    assert seen == pytest.approx([10.0, 1.0, math.sqrt(2), 0.1, 0.1])
    assert len(draws) == 1


def test_noise_factor_scales_the_churn():
    class Flat(Independent):
        def __call__(self, u, s, label=None):
            return u

    grid = Karras()(ORACLE.sde, 2, 2.0)[:2]
    flat, zero = Flat(0.0, 1.0), torch.zeros(1, 1, dtype=torch.float64)
    end = Heun(1, churn=0.3, churn_noise=1.01).integrate(flat, zero, grid, torch.ones_like)
    assert end.item() == pytest.approx(1.01 * 2.0 * math.sqrt(1.3**2 - 1), rel=1e-12)


def test_negative_churn_is_an_error():
    with pytest.raises(ValueError, match="churn must be >= 0, got churn=-1"):
        Heun(churn=-1)


def test_churn_does_not_leave_the_range_of_the_process():
    sde = GeometricBrownianMotion(0.8, offset=1.0)
    calls = []

    def denoiser(u, s):
        calls.append(float(s))
        return u * 0

    denoiser.sde = sde
    Heun(4, churn=4.0)(denoiser, (2, 2))
    assert max(calls) == pytest.approx(0.8, rel=1e-12) and len(set(calls)) > 4
