r"""Levels fitted to a denoiser, on laws whose flow is known."""

import math
from itertools import pairwise

import pytest
import torch
from oracles import Independent, standard_mixture

from scoregen.models import MLP, Denoiser
from scoregen.rng import Stream, generators
from scoregen.samplers import (
    DDIM,
    AdaptiveFlow,
    Ancestral,
    Consistency,
    Fit,
    Heun,
    Karras,
    Levels,
    LogLinear,
    TimeTravel,
    VelocityABM,
    fitting,
)
from scoregen.samplers.fitting import minimise, rounded
from scoregen.sde import EDM, RectifiedFlow

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


def test_the_errors_are_root_mean_squares_of_three_sets_of_starts(monkeypatch):
    r"""Normal data: DDIM's two steps and the flow are factors of u, so the distance is a factor of the starts'."""
    law, v, top, second = Independent(0.0, 0.3), 0.3, 80.0, 2.0
    monkeypatch.setattr(fitting, "minimise", lambda *_: [top, second])
    found = Fit(n=5, batch_size=3, reference=120)(law, DDIM(2, Levels([top, 1.0])), (2,))
    assert found.accepted == (found.after[1] < found.before[1] and found.after[2] < found.before[2])

    def factor(s):
        return (v + s * top) / (v + top**2) * v / (v + s**2) - math.sqrt(v / (v + top**2))

    for number in range(3):
        draws = generators(0, Stream.GRID, number, range(5))
        z = torch.stack([torch.randn(2, generator=g, dtype=torch.float64) for g in draws])
        size = math.sqrt(v + top**2) * z.square().mean().sqrt().item()
        for errors, s in ((found.before, 1.0), (found.after, second)):
            assert errors[number] == pytest.approx(size * abs(factor(s)), rel=2e-3)


def test_starts_below_the_top_follow_the_flow_from_there():
    law, v = Independent(0.2, 0.3), 0.3
    ends = fitting._Ends(law, DDIM(2), Fit(n=3, start=0.5, reference=120), (1,), None, 0)
    ((_, u, end),) = ends.batches
    top = fitting._Ends(law, DDIM(2), Fit(n=3, reference=120), (1,), None, 0).batches[0][1]
    torch.testing.assert_close(u - 0.2, (top - 0.2) * math.sqrt((v + 0.25) / (v + 6400)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(end - 0.2, (u - 0.2) * math.sqrt(v / (v + 0.25)), rtol=1e-3, atol=1e-4)


class Labelled(Independent):
    r"""Normal data whose mean is the label."""

    num_classes = 3

    def __call__(self, u, s, label=None):
        return super().__call__(u - label[:, None], s) + label[:, None]


def test_each_start_keeps_its_label_in_every_batch():
    law, label = Labelled(0.0, 0.3), torch.arange(7) % 3
    for size in (7, 4):
        ends = fitting._Ends(law, DDIM(2), Fit(n=7, batch_size=size, reference=50), (1,), label, 0)
        end = torch.cat([batch[2] for batch in ends.batches])[:, 0]
        assert (end - label).abs().max() < 4 * math.sqrt(0.3) and not torch.equal(end.round(), end)
        assert torch.equal(torch.cat([batch[0].label for batch in ends.batches]), label)


@pytest.mark.parametrize("better", [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_a_fit_is_kept_if_it_is_better_on_both_sets_of_other_starts(better, monkeypatch):
    class Ends:
        def __init__(self, *options):
            self.number = options[-1]

        def error(self, levels):
            return 1.0 if levels[1] != 2.0 else (0.1, 2.0 - 1.5 * better[0], 2.0 - 1.5 * better[1])[self.number]

    monkeypatch.setattr(fitting, "_Ends", Ends)
    monkeypatch.setattr(fitting, "minimise", lambda *_: [80.0, 2.0])
    found = Fit()(MIXTURE, DDIM(2), (2,))
    assert found.accepted == all(better)
    assert (found.levels.values[1] == 2.0) == found.accepted


def test_an_error_that_is_no_number_is_the_worst(monkeypatch):
    seen = []
    monkeypatch.setattr(fitting._Ends, "error", lambda *_: math.nan)
    monkeypatch.setattr(fitting, "minimise", lambda error, grid, *_: seen.append(error(grid)) or grid)
    assert not Fit(n=2, reference=3)(MIXTURE, DDIM(2), (2,)).accepted and seen == [math.inf]


def test_a_fit_runs_the_sampler_as_often_as_it_says():
    count = []
    Fit(n=2, evaluations=4, reference=5)(MIXTURE, DDIM(4), (2,), evaluated=lambda: count.append(1))
    assert len(count) == 12


def test_levels_stay_within_a_factor_of_fifty_and_above_the_floor():
    wide = fitting._levels([math.log(math.log(1000.0)), 0.0], 80.0, 1e-6)
    assert wide == pytest.approx([80.0, 80.0 / 50, 80.0 / 50 / math.e])
    low = fitting._levels([0.0, 0.0], 80.0, 80.0 / math.e)  # two gaps of e, and room for one
    assert low == pytest.approx([80.0, 80.0 / math.sqrt(math.e), 80.0 / math.e])


def test_a_low_start_has_a_floor_of_its_own():
    r"""Twice a tenth of the start, where that is below s_min."""
    assert fitting._floor(EDM(1e-5, 80.0), [80.0]) == pytest.approx(2e-5)
    assert fitting._floor(RectifiedFlow(), [0.01]) == pytest.approx(2e-3)
    assert fitting._floor(RectifiedFlow(), [80.0]) == pytest.approx(4e-3)


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
        (VelocityABM(6, TimeTravel(LogLinear())), "grid must decrease, got TimeTravel with jumps upward"),
        (VelocityABM(6, Levels([80.0, 2.0, 0.1])), "got VelocityABM with 3 levels for 6 steps. Give sampler.steps=3"),
        (VelocityABM(2, Levels([0.004, 0.003])), "start must lie above 0.004"),
        (AdaptiveFlow(), "got AdaptiveFlow, which chooses its steps itself"),
        (Consistency(2), "must be deterministic"),
    ],
    ids=["noise", "one-step", "jumps", "levels", "no-room", "adaptive", "consistency"],
)
def test_samplers_without_levels_to_fit_are_refused(sampler, text):
    with pytest.raises(ValueError, match=text):
        Fit()(MIXTURE, sampler, (2,))


def test_a_consistency_function_has_no_flow_to_fit_to():
    model = Denoiser(MLP((2,), 8, 1), EDM(), prediction="consistency")
    for sampler in (VelocityABM(3), Consistency(2)):
        with pytest.raises(ValueError, match="got a consistency function"):
            Fit()(model, sampler, (2,))
