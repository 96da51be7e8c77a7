r"""Grids: closed forms, ends, and what they refuse."""

import math

import pytest
import torch

from scoregen.samplers import Grid, Karras, Levels, LogLinear, OpenEnd, PowerTime, TimeTravel, UniformTime
from scoregen.sde import EDM, VE, VP, Cosine, GeometricBrownianMotion, RectifiedFlow, SubVP

GRIDS = {
    "karras": Karras(),
    "log": LogLinear(),
    "uniform": UniformTime(),
    "power": PowerTime(4.0),
    "open": OpenEnd(Karras()),
}
PROCESSES = [EDM(), VE(), VP(), SubVP(), Cosine(), RectifiedFlow(), GeometricBrownianMotion()]
each = pytest.mark.parametrize("sde", PROCESSES, ids=lambda p: type(p).__name__)


@each
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("steps", [1, 2, 7, 256])
def test_grids_fall_from_the_start_to_zero(sde, grid, steps):
    levels = grid(sde, steps)
    assert len(levels) == steps + 1 and levels.dtype == torch.float64
    assert levels[0].item() == sde.s_max and levels[-1].item() == 0
    assert bool((levels.diff() < 0).all())
    if steps > 1 and not isinstance(grid, OpenEnd):
        assert levels[-2].item() == pytest.approx(sde.s_min, rel=1e-9)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_grids_start_where_they_are_told(grid):
    levels = grid(EDM(), 10, start=3.5)
    assert levels[0].item() == 3.5 and bool((levels.diff() < 0).all())


def test_karras_is_linear_in_the_root():
    levels = Karras(7.0)(EDM(0.002, 80.0), 18)[:-1]
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    assert levels.tolist() == pytest.approx(expected, rel=1e-12)


def test_uniform_time_of_edm_is_karras():
    torch.testing.assert_close(UniformTime()(EDM(), 18), Karras()(EDM(), 18), rtol=1e-9, atol=0)


def test_log_linear_has_a_constant_ratio():
    levels = LogLinear()(EDM(0.01, 10.0), 4)[:-1]
    assert levels.tolist() == pytest.approx([10, 1, 0.1, 0.01], rel=1e-12)


def test_fourth_power_of_time_is_uniform_in_the_root_of_s_for_gbm():
    # s = vol sqrt(t) = vol tau^2
    roots = PowerTime(4.0)(GeometricBrownianMotion(0.8), 12)[:-1].sqrt()
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(11), rtol=1e-9, atol=0)


def test_levels_are_taken_as_given():
    assert Levels([2.0, 0.5, 1.0, 0.1])(EDM(), 99).tolist() == [2.0, 0.5, 1.0, 0.1, 0.0]
    assert Levels([2.0, 0.5, 0.1])(EDM(), 99, start=0.7).tolist() == [0.7, 0.5, 0.1, 0.0]


def test_time_travel_repeats_stretches():
    base = LogLinear()(EDM(0.01, 100.0), 5)
    walk = TimeTravel(LogLinear(), length=2, repeats=1)(EDM(0.01, 100.0), 5)
    order = [0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4, 5]
    torch.testing.assert_close(walk, base[order])


def test_time_travel_without_repeats_is_the_grid():
    torch.testing.assert_close(TimeTravel(Karras(), 3, 0)(EDM(), 10), Karras()(EDM(), 10))


class Rising(Grid):
    def levels(self, sde, s_max, s_min, steps):
        return torch.linspace(s_min, s_max, steps, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Rising()(EDM(), 3),
            r"noise ratios of Rising must decrease to 0, got 0.002 and then 40.* \(step 1 of 3\)",
        ),
        (lambda: Karras()(EDM(), 0), "steps must be a whole number >= 1, got steps=0"),
        (lambda: Karras()(EDM(), 5, start=0.0), "the noise ratio at the start must be > 0, got 0.0"),
        (lambda: Karras(0.0), "rho must be > 0"),
        (lambda: PowerTime(-1.0), "power must be > 0"),
        (lambda: Levels([]), "must be positive finite noise ratios"),
        (lambda: Levels([1.0, 0.0]), "must be positive finite noise ratios"),
        (lambda: Levels([1.0, math.nan]), "must be positive finite noise ratios"),
        (lambda: Levels([1.0, 1.0]), "no two neighbours equal"),
        (
            lambda: Levels([3.0])(GeometricBrownianMotion(0.8), 1),
            r"must lie between noise_ratio\(0\)=0 and noise_ratio\(1\)=0.8 .* got 3 to 3",
        ),
        (lambda: TimeTravel(Karras(), length=0), "length must be a whole number >= 1"),
    ],
)
def test_bad_grids_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_start_at_one_of_the_levels_is_not_repeated():
    sde = EDM()
    start = sde.noise_ratio(sde.time_of(3.0)).item()
    assert start > 3.0  # the time has rounded it
    assert Levels([10.0, 3.0, 1.0])(sde, 3, start).tolist() == [start, 1.0, 0.0]


def test_levels_that_meet_below_the_start_are_one():
    assert Levels([10.0, 1.0, 5.0, 1.0, 0.1])(EDM(), 5, 3.0).tolist() == [3.0, 1.0, 0.1, 0.0]


@pytest.mark.parametrize("steps", [3, 18])
def test_time_travel_over_given_levels_goes_by_their_number(steps):
    walk = TimeTravel(Levels([10.0, 5.0, 2.0, 1.0, 0.5]), 2, 1)(EDM(), steps)
    assert walk.tolist() == [10.0, 5.0, 2.0, 10.0, 5.0, 2.0, 1.0, 0.5, 2.0, 1.0, 0.5, 0.0]


@pytest.mark.parametrize("grid", [Karras(), LogLinear(), PowerTime(4.0)], ids=lambda g: type(g).__name__)
@pytest.mark.parametrize(("sde", "start"), [(VE(0.1, 50.0), 0.2), (VE(0.1, 0.5), None)])
def test_no_level_lies_below_the_least_noise_of_the_process(grid, sde, start):
    assert grid(sde, 4, start)[-2].item() == pytest.approx(0.1, rel=1e-9)


def test_a_grid_with_jumps_is_not_travelled_again():
    with pytest.raises(ValueError, match="grid must decrease, got Levels with jumps upward"):
        TimeTravel(Levels([5.0, 1.0, 5.0, 0.5]), 2, 1)(VE(), 4)
