r"""The loop that was released with Dale meets Langevin: what its settings lose."""

import math

import pytest
import torch
from dale import DATA, GBM
from oracles import Independent, affine_law
from tiny import compose

from scoregen.config import build
from scoregen.samplers import (
    DalePaper,
    Grid,
)
from scoregen.sde import GeometricBrownianMotion


class Steps(Grid):
    r"""t = 1 - k/N, written out."""

    def levels(self, sde, s_max, s_min, steps):
        return sde.noise_ratio(1 - torch.arange(steps, dtype=torch.float64) / steps)


@pytest.mark.parametrize(("std", "kept"), [(0.5, 0.88), (0.2, 0.74), (0.1, 0.64)])
@pytest.mark.parametrize("data_range", [None, (0.5, 3.0)], ids=["plain", "standardised"])
def test_the_released_loop_loses_spread(std, kept, data_range):
    sde = GeometricBrownianMotion(0.8, data_range=data_range)
    oracle = Independent(0.0, (sde.scale * std) ** 2, sde)
    var = std**2 + 0.64
    for k in range(1000):
        var = var * (1 - 6.16545e-4 * 0.64 / (std**2 + 0.64 * (1 - k / 1000))) ** 2
        var += 6.16545e-4 * 0.64 * 0.995 ** (2 * k)
    grid = Steps()(sde, 1000)
    _, ours = affine_law(DalePaper(), oracle, grid, 0.0, sde.scale**2 * (std**2 + 0.64))
    torch.testing.assert_close(DalePaper().grid(sde, 1000), grid)
    assert math.sqrt(ours) / sde.scale == pytest.approx(math.sqrt(var), rel=1e-6)
    assert math.sqrt(var) / std == pytest.approx(kept, abs=5e-3)


def test_repeats_and_noiseless_steps_of_the_released_loop():
    # CIFAR-10's form in small: two levels of three steps, then two noiseless ones, by hand
    sampler = DalePaper(2, step_size=0.05, repeats=3, decay=0.5, denoising=2)
    u, draws = torch.tensor([[1.3]], dtype=torch.float64), iter([0.3, -0.4, 1.0, 0.7, 0.2, -1.1])
    y, zs = 1.3, [0.3, -0.4, 1.0, 0.7, 0.2, -1.1]
    for k, v in enumerate((0.64, 0.32)):
        for z in zs[3 * k : 3 * k + 3]:
            y += 0.05 * 0.64 * (0.3 - y) / (0.25 + v) + 0.5**k * math.sqrt(0.05) * 0.8 * z
    for _ in range(2):
        y += 0.05 * 0.64 * (0.3 - y) / (0.25 + 0.32)
    end = sampler.integrate(DATA, u, sampler.grid(GBM, 2), lambda u: torch.full_like(u, next(draws)))
    assert end.item() == pytest.approx(y, rel=1e-9)


def test_the_released_loop_with_consistent_settings_is_consistent():
    sampler = DalePaper(400, step_size=1 / 400, decay=1.0)
    _, var = affine_law(sampler, DATA, sampler.grid(GBM, 400), 0.3, 0.89)
    assert math.sqrt(var) == pytest.approx(0.5, abs=2e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step_size": 0.0}, "step_size must be > 0"),
        ({"repeats": 0}, "repeats must be a whole number >= 1"),
        ({"denoising": -1}, "denoising must be a whole number >= 0"),
        ({"decay": 1.5}, "decay must lie in"),
    ],
)
def test_bad_settings_of_the_released_loop_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DalePaper(**arguments)


@pytest.mark.parametrize("name", ["dale_paper", *(f"dale_paper_{d}" for d in ("fashion_mnist", "kmnist", "cifar10"))])
def test_the_named_settings_are_of_the_released_loop(name):
    node = compose(f"sampler={name}", name="sample")["sampler"]
    assert isinstance(build(node), DalePaper)
    # all four take about 0.62 of the way, however it is cut
    assert 0.55 < node["steps"] * node["step_size"] * node["repeats"] < 0.7
