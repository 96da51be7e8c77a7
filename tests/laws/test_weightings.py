r"""The laws of weightings and noise levels: what a weighting makes of an error, and where its loss is least."""

import math

import pytest
import torch
from laws.discovery import classes, uncovered
from oracles import Independent

from scoregen.config import build
from scoregen.description import plain
from scoregen.losses import (
    DataWeighting,
    DenoisingScoreMatching,
    EDMWeighting,
    FlowWeighting,
    NoiseLevels,
    NoiseWeighting,
    VelocityWeighting,
    Weighting,
)
from scoregen.rng import generator
from scoregen.sde import EDM, Cosine

MEAN, VAR, SD = 0.3, 0.4, 0.6
# a weighting, and the error whose square is w |d - y|^2 for u = y + s eps: of y_0, eps, v, the velocity eps - y_0 and
# F = (D - c_skip u)/c_out
WEIGHTS = {
    "x0": (DataWeighting(), lambda u, s, d, y: d - y),
    "eps": (NoiseWeighting(), lambda u, s, d, y: (u - d) / s - (u - y) / s),
    "v": (
        VelocityWeighting(),
        lambda u, s, d, y: (((u - d) / s - s * d) - ((u - y) / s - s * y)) / (1 + s * s) ** 0.5,
    ),
    "flow": (FlowWeighting(), lambda u, s, d, y: (u - d) / s - d - ((u - y) / s - y)),
    "edm": (EDMWeighting(), lambda u, s, d, y: (d - y) * (s * s + SD * SD) ** 0.5 / (s * SD)),
}
each = pytest.mark.parametrize("name", WEIGHTS)
levels = pytest.mark.parametrize("s", [0.01, 0.5, 20.0])


class At(NoiseLevels):
    r"""One noise ratio."""

    def __init__(self, s: float) -> None:
        self.s = s

    def __call__(self, sde, quantile):
        return torch.full_like(quantile, self.s)


class Wrong(Independent):
    r"""E[y_0 | u] of a normal law, and a multiple of u - mean of a given variance."""

    num_classes, sigma_data = None, SD

    def __init__(self, variance: float) -> None:
        super().__init__(MEAN, VAR, EDM())
        self.variance = variance

    def __call__(self, u, s, label=None):
        return super().__call__(u, s) + (self.variance / (VAR + s[:, None] ** 2)).sqrt() * (u - MEAN)


def check_claim(weighting: Weighting, error, s: float) -> None:
    r"""A weighting gives the squared error that it claims."""
    u, d, y = torch.randn(3, 7, generator=generator(0, 3), dtype=torch.float64)
    weight = weighting(torch.full((7,), s, dtype=torch.float64), SD)
    torch.testing.assert_close(weight * (d - y) ** 2, error(u, s, d, y) ** 2, rtol=1e-9, atol=0)


def check_minimum(weighting: Weighting, error, s: float) -> None:
    r"""Away from E[y_0 | u] by as much as the data, the loss grows by w times the variance of the data given u."""
    n, posterior = 4000, VAR * s**2 / (VAR + s**2)
    y = MEAN + VAR**0.5 * torch.randn(n, 1, generator=generator(0, 9), dtype=torch.float64)
    loss = DenoisingScoreMatching(At(s), weighting)
    exact, wrong = (loss(Wrong(v), y, generator=generator(0, 1)).mean().item() for v in (0.0, posterior))
    weight = float(error(0.0, s, 1.0, 0.0)) ** 2
    # the growth has standard deviation sqrt((2 + 4)/n) of itself; 5 of them: false-alarm rate 6e-7
    assert wrong - exact == pytest.approx(weight * posterior, rel=5 * math.sqrt(6 / n))


@each
@levels
def test_a_weighting_gives_the_squared_error_that_it_claims(name, s):
    check_claim(*WEIGHTS[name], s)


@each
@levels
def test_the_weighted_loss_is_least_at_the_conditional_mean(name, s):
    check_minimum(*WEIGHTS[name], s)


@each
def test_a_weighting_is_described_by_its_arguments(name):
    described = plain(WEIGHTS[name][0])
    assert plain(build(described)) == described


def missing(weights) -> list[str]:
    covered = {type(weighting) for weighting, _ in weights.values()}
    return uncovered(Weighting, covered, "add the error it squares to WEIGHTS in tests/laws/test_weightings.py")


def test_every_weighting_has_its_error():
    assert not missing(WEIGHTS)


@pytest.mark.parametrize("kind", classes(NoiseLevels).values(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("process", [EDM(0.05, 2.0), Cosine()], ids=lambda p: type(p).__name__)
def test_levels_stay_in_the_range_of_the_process_and_rise(kind, process):
    s = kind()(process, torch.linspace(0, 1 - 1e-9, 101, dtype=torch.float64))
    assert s.dtype == torch.float64 and s.device.type == "cpu"
    assert s.min() >= process.s_min * (1 - 1e-9) and s.max() <= process.s_max * (1 + 1e-9)
    assert bool((s.diff() >= 0).all()) and s[20] < s[80]
