import math

import pytest
import torch

from scoregen.training import EMA


def model_of(value: float) -> torch.nn.Linear:
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(model.weight, value)
    return model


def test_average_is_the_exponentially_weighted_sum_of_all_weights():
    model, values, batch, halflife = model_of(1.0), [2.0, -1.0, 0.5, 3.0], 16, 40
    ema = EMA(model, halflife, warmup=0.0)
    for k, value in enumerate(values):
        torch.nn.init.constant_(model.weight, value)
        ema.update(batch, (k + 1) * batch)
    beta, n = math.exp(-math.log(2) * batch / halflife), len(values)
    exact = beta**n * 1.0 + sum((1 - beta) * beta ** (n - 1 - k) * value for k, value in enumerate(values))
    assert ema.weights["weight"].item() == pytest.approx(exact, rel=1e-14)


def test_share_of_a_weight_halves_after_the_half_life_whatever_the_batch():
    for batch in (1, 10, 100):
        model = model_of(1.0)
        ema = EMA(model, halflife=100, warmup=0.0)
        torch.nn.init.zeros_(model.weight)
        for k in range(100 // batch):
            ema.update(batch, (k + 1) * batch)
        assert ema.weights["weight"].item() == pytest.approx(0.5, rel=1e-13)


def test_warmup_bounds_the_half_life_by_a_fraction_of_the_images_seen():
    ema = EMA(model_of(0.0), halflife=500, warmup=0.05)
    assert ema.beta(64, 1000) == pytest.approx(2 ** (-64 / 50), rel=1e-15)
    assert ema.beta(64, 10_000) == pytest.approx(2 ** (-64 / 500), rel=1e-15)
    assert ema.beta(64, 10**9) == ema.beta(64, 10_000)


def test_half_life_zero_copies_the_last_weights():
    model = model_of(1.0)
    ema = EMA(model, halflife=0, warmup=0.0)
    torch.nn.init.constant_(model.weight, 7.0)
    ema.update(8, 8)
    assert ema.weights["weight"].item() == 7.0


def test_two_swaps_restore_and_one_exchanges():
    model = model_of(1.0)
    ema = EMA(model)
    torch.nn.init.constant_(model.weight, 2.0)
    ema.swap()
    assert (model.weight.item(), ema.weights["weight"].item()) == (1.0, 2.0)
    ema.swap()
    assert (model.weight.item(), ema.weights["weight"].item()) == (2.0, 1.0)


@pytest.mark.parametrize("name", ["halflife", "warmup"])
def test_negative_arguments_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 0, got {name}=-1"):
        EMA(model_of(0.0), **{name: -1})


def test_running_statistics_are_averaged_and_unsaved_buffers_are_not():
    model = torch.nn.BatchNorm1d(1, dtype=torch.float64)
    model.register_buffer("scratch", torch.zeros(1), persistent=False)
    ema = EMA(model, halflife=8, warmup=0.0)
    model.running_mean.fill_(4.0)
    ema.update(8, 8)
    assert ema.weights["running_mean"].item() == pytest.approx(2.0)
    assert set(ema.weights) == {"weight", "bias", "running_mean", "running_var"}


def test_running_statistics_are_followed_after_the_model_was_moved():
    r"""Moving a module keeps its parameters and replaces its buffers, as distributed training on CPUs does."""
    model = torch.nn.BatchNorm1d(2)
    ema = EMA(model, halflife=0)
    model.running_mean = torch.ones(2)
    ema.update(1, 1)
    assert torch.equal(ema.weights["running_mean"], torch.ones(2))
    model.running_mean = torch.full((2,), 3.0)
    ema.swap()
    assert torch.equal(model.running_mean, torch.ones(2))
    assert torch.equal(ema.weights["running_mean"], torch.full((2,), 3.0))
