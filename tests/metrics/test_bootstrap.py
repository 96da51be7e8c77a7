import pytest
import torch

from scoregen.metrics import frechet_distance, frechet_interval
from scoregen.rng import Stream, generator


def draws(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_interval_covers_what_other_samples_give():
    r"""Width of the 95 % interval against the spread of 200 fresh samples: 3.92 deviations within 30 %."""
    reference = draws(2000, 3, 0)
    fresh = torch.tensor([frechet_distance(0.3 + draws(300, 3, 10 + i), reference) for i in range(200)])
    found = frechet_interval(0.3 + draws(300, 3, 1), reference, resamples=200)
    assert found.low < found.value < found.high
    assert (found.high - found.low) / (3.92 * float(fresh.std())) == pytest.approx(1, abs=0.3)


def test_bias_is_that_of_a_finite_sample():
    r"""Two equal laws in D dimensions: E[d^2] is about tr(A)/n of the mean plus a like part of the covariance."""
    reference = draws(20_000, 6, 0)
    fresh = torch.tensor([frechet_distance(draws(100, 6, 10 + i), reference) for i in range(100)])
    biases = [frechet_interval(draws(100, 6, 500 + i), reference, resamples=40).bias for i in range(10)]
    assert sum(biases) / 10 == pytest.approx(float(fresh.mean()), rel=0.35)


def test_value_is_the_frechet_distance_and_draws_are_keyed():
    x, y = draws(50, 4, 0), draws(60, 4, 1)
    found = frechet_interval(x, y, resamples=10, seed=3)
    assert found.value == frechet_distance(x, y)
    assert found == frechet_interval(x, y, resamples=10, seed=3)
    assert found.low != frechet_interval(x, y, resamples=10, seed=4).low


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="resamples must be a whole number >= 2, got resamples=1"):
        frechet_interval(draws(5, 2, 0), draws(5, 2, 1), resamples=1)


def test_interval_is_that_of_resampled_rows():
    r"""The weighted moments against the rows themselves: value + quantiles of (d* - mean d*)."""
    x, y = draws(30, 3, 0), 0.5 + draws(40, 3, 1)
    rows = [torch.randint(30, (30,), generator=generator(5, Stream.BOOTSTRAP, i)) for i in range(20)]
    resampled = torch.tensor([frechet_distance(x[r], y) for r in rows], dtype=torch.float64)
    found = frechet_interval(x, y, resamples=20, level=0.9, seed=5)
    assert found.bias == pytest.approx(float(resampled.mean()) - frechet_distance(x, y), abs=1e-10)
    for bound, tail in ((found.low, 0.05), (found.high, 0.95)):
        expected = found.value + float((resampled - resampled.mean()).quantile(tail))
        assert bound == pytest.approx(expected, abs=1e-10)
