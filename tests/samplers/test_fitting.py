r"""Levels fitted to a denoiser, on laws whose flow is known."""

import math
from itertools import pairwise

import pytest
import torch
from oracles import Independent, standard_mixture

from scoregen.rng import Stream, generators
from scoregen.samplers import DDIM, Ancestral, Consistency, Fit, Heun, Karras, LogLinear, TimeTravel, VelocityABM
from scoregen.samplers.fitting import minimise, rounded

MIXTURE = standard_mixture()


def rmse(sampler, u, levels, end, law=MIXTURE):
    grid = torch.tensor([*levels, 0.0], dtype=torch.float64)
    return (sampler.integrate(law, u, grid, torch.zeros_like) - end).square().mean().sqrt().item()


@pytest.fixture(scope="module")
def six():
    return Fit()(MIXTURE, VelocityABM(6), (2,))


@pytest.fixture(scope="module")
def unseen():
    u = MIXTURE.sample(500, torch.Generator().manual_seed(5), 80.0)
    return u, VelocityABM(500, limit=1e9).integrate(MIXTURE, u, Karras()(MIXTURE.sde, 500), torch.zeros_like)


def test_six_fitted_levels_of_the_mixture_halve_the_error_on_unseen_starts(six, unseen):
    u, end = unseen
    karras = Karras()(MIXTURE.sde, 6)[:-1].tolist()
    assert six.accepted and len(six.levels.values) == 6
    assert rmse(VelocityABM(6), u, karras, end) == pytest.approx(0.11, abs=0.01)
    assert rmse(VelocityABM(6), u, six.levels.values, end) <= 0.06


def test_levels_keep_their_bounds_and_three_digits(six):
    levels = six.levels.values
    assert levels[0] == MIXTURE.sde.s_max and levels[-1] >= 0.004
    assert all(1 < a / b <= 50.001 * 1.005 for a, b in pairwise(levels))
    assert all(level == float(f"{level:.3g}") for level in levels)


def test_rounding_to_three_digits_changes_no_figure(unseen):
    u, end = unseen
    grid = Karras()(MIXTURE.sde, 6)[:-1].tolist()
    found = minimise(lambda levels: rmse(VelocityABM(6), u[:64], levels, end[:64]), grid, 0.004, 20)
    exact, short = (rmse(VelocityABM(6), u, levels, end) for levels in (found, rounded(found)))
    assert short == pytest.approx(exact, rel=0.02)


def test_rounding_keeps_levels_apart():
    assert rounded([80.0, 1.23456, 0.5]) == [80.0, 1.23, 0.5]
    assert rounded([80.0, 1.2341, 1.2339]) == [80.0, 1.2341, 1.2339]


def test_two_levels_of_ddim_on_normal_data_are_the_best_ones():
    r"""One free level, so brute force finds the best: over a fine mesh, by the closed form of both DDIM steps."""
    law, v, top = Independent(0.0, 0.3), 0.3, 80.0
    levels = Fit(reference=300)(law, DDIM(2), (1,)).levels.values
    z = torch.cat([torch.randn(1, generator=g, dtype=torch.float64) for g in generators(0, Stream.GRID, 0, range(64))])
    second = (top * z).square().mean().sqrt().item()

    def error(s):
        first = (v + s * top) / (v + top**2)  # u' = D + (s/top)(u - D), D = v u/(v + top^2)
        return second * abs(first * v / (v + s**2) - math.sqrt(v / (v + top**2)))

    best = min(error(math.exp(x)) for x in torch.linspace(math.log(1.6), math.log(79), 20_000).tolist())
    assert error(levels[1]) <= 1.01 * best + 1e-9


def test_the_levels_are_a_function_of_the_seed_and_not_of_the_batch():
    fits = [Fit(n=8, evaluations=10, reference=20, **options) for options in ({}, {"batch_size": 5}, {"seed": 1})]
    whole, cut, other = (fit(MIXTURE, DDIM(4), (2,)).levels.values for fit in fits)
    assert whole == cut != other


def test_levels_that_are_not_better_on_other_starts_are_not_kept(monkeypatch):
    monkeypatch.setattr("scoregen.samplers.fitting.minimise", lambda *_: [80.0, 79.0, 78.0])
    found = Fit(n=8)(MIXTURE, VelocityABM(3), (2,))
    assert not found.accepted and found.after[1] > found.before[1]
    assert found.levels.values == pytest.approx(Karras()(MIXTURE.sde, 3)[:-1].tolist(), rel=1e-12)


def test_a_fit_from_a_lower_start_begins_there():
    found = Fit(n=32, evaluations=30, start=0.5)(MIXTURE, VelocityABM(3), (2,))
    assert found.levels.values[0] == 0.5 and found.after[1] < found.before[1]


@pytest.mark.parametrize(
    "sampler, text",
    [
        (Ancestral(6), "must be deterministic"),
        (Heun(1), "at least two steps"),
        (VelocityABM(6, TimeTravel(LogLinear())), "one level a step"),
        (Consistency(2), "must be deterministic"),
    ],
    ids=["noise", "one-step", "jumps", "consistency"],
)
def test_samplers_without_levels_to_fit_are_refused(sampler, text):
    with pytest.raises(ValueError, match=text):
        Fit()(MIXTURE, sampler, (2,))
