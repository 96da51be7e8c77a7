r"""Averages of any length from snapshots of two: profiles in closed form, weights by hand, files and commands."""

import math

import numpy as np
import pytest
import torch
from average_parts import tracked

from scoregen import average_lengths
from scoregen.average_lengths import coefficients, exponent
from scoregen.averages import LENGTHS
from scoregen.errors import UserError


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_the_exponent_of_a_length_has_that_standard_deviation(length):
    g = exponent(length)
    assert math.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3))) == pytest.approx(length, rel=1e-10)


def rebuilt(moments, length, name="w"):
    places = [(m, one) for m in moments for one in m.values]
    x, _ = coefficients([m.images for m, _ in places], [one for _, one in places], moments[-1].images, length)
    return sum(share * m.values[one][name] for share, (m, one) in zip(x.tolist(), places, strict=True))


def test_the_weight_of_a_step_is_the_integral_of_the_profile():
    steps = 50
    powers, _ = tracked(torch.eye(steps, dtype=torch.float64), LENGTHS)
    for length in LENGTHS:
        power = exponent(length) + 1
        ends = torch.arange(steps + 1, dtype=torch.float64) / steps
        torch.testing.assert_close(powers.values[length]["w"], (ends**power).diff(), rtol=1e-11, atol=1e-14)


def test_constant_weights_are_kept():
    _, moments = tracked(torch.full((96, 2), 0.7, dtype=torch.float64), LENGTHS)
    for length in (0.03, 0.08, 0.25):
        torch.testing.assert_close(
            rebuilt(moments, length), torch.full((2,), 0.7, dtype=torch.float64), rtol=1e-12, atol=0
        )


def test_weights_that_grow_with_time_are_those_of_the_mean_time():
    r"""Where w(t) = t within each step, too: the sum over n steps of the ends differs from the integral by 1/n."""
    steps = 4096
    path = (torch.arange(steps, dtype=torch.float64)[:, None] + 0.5) / steps
    powers, moments = tracked(path, (*LENGTHS, 0.08))
    for length in (*LENGTHS, 0.08):
        g = exponent(length)
        assert powers.values[length]["w"].item() == pytest.approx((g + 1) / (g + 2), abs=1e-6)
    g = exponent(0.08)
    assert rebuilt(moments, 0.08).item() == pytest.approx((g + 1) / (g + 2), abs=2e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_tracked_lengths_are_reproduced(length):
    path = torch.randn(128, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).cumsum(0)
    powers, moments = tracked(path, LENGTHS)
    torch.testing.assert_close(rebuilt(moments, length), powers.values[length]["w"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [0.03, 0.04, 0.08, 0.15, 0.2, 0.25])
def test_averages_of_a_random_walk_are_within_a_hundredth(length):
    r"""Relative to the spread of the walk over the training."""
    path = torch.randn(640, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).cumsum(0)
    powers, moments = tracked(path, (*LENGTHS, length))
    error = (rebuilt(moments, length) - powers.values[length]["w"]).square().mean().sqrt()
    assert error <= 1e-2 * path[-1].square().mean().sqrt()


def test_buffers_follow():
    path = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    powers, moments = tracked(path, LENGTHS)
    assert set(powers.values[0.05]) == {"w", "mean"}
    torch.testing.assert_close(rebuilt(moments, 0.07, "mean"), 2 * rebuilt(moments, 0.07))


def test_the_distance_is_that_of_a_random_walk():
    r"""Against a sum over a fine mesh: each step of the walk counts for the share of an average after it."""
    times, lengths = [0.5, 0.5, 1.0, 1.0], [0.05, 0.1, 0.05, 0.1]
    x, distance = coefficients(times, lengths, 1.0, 0.15)
    tau = (np.arange(200_000) + 0.5) / 200_000

    def profile(t, length):
        g = exponent(length)
        return np.where(tau <= t, (g + 1) * tau**g / t ** (g + 1), 0)

    made, wanted = sum(a * profile(t, n) for a, t, n in zip(x, times, lengths, strict=True)), profile(1.0, 0.15)
    after = np.cumsum((made - wanted)[::-1])[::-1] / len(tau)
    assert distance == pytest.approx(np.sqrt((after**2).mean()), rel=1e-4)
    assert x.sum() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("weights", ["ema:0", "ema:0.3", "ema:x", "ema:", "emma", "model:0.1", 3, "ema:nan"])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(UserError, match=r"^weights: "):
        average_lengths.length_of(weights)
