r"""Despeckling against log-normal intensities, whose posterior is known: log X | I is normal with variance
tau^2 v / (tau^2 + v) and mean b + tau^2/(tau^2 + v) (log I - bias - b) for log X ~ N(b, tau^2), v = psi_1(L)."""

import math

import pytest
import torch
from oracles import Independent, gaussian

from scoregen.rng import generators
from scoregen.samplers import DDIM, DaleLangevin, Despeckler, Heun, Karras, Tiled, log_moments, speckle
from scoregen.sde import EDM, VP, Affine, GeometricBrownianMotion, GeometricOU, Multiplicative

B, TAU = -1.2, 0.7
LOOKS = [1, 2, 4, 8, 16]
PROCESSES = {
    "edm": Multiplicative(EDM(0.002, 3.0), offset=0.0),
    "standardised": Multiplicative(EDM(0.002, 3.0), offset=0.02, data_range=(0.0, 1.0)),
    "vp-chained": Multiplicative(VP(chart=Affine(2.0, -1.0)), offset=0.1, data_range=(0.0, 1.0)),
    "gbm": GeometricBrownianMotion(volatility=2.0, drift=1.0, offset=0.05, data_range=(0.0, 1.0)),
    "geometric-ou": GeometricOU(mean=-1.0, offset=0.05),
}


def oracle(sde, tau: float = TAU) -> Independent:
    r"""The exact denoiser of independent log X ~ N(B, tau^2), in the coordinates of the process."""
    chart = sde.chart.as_log()
    return Independent(chart.rate * B + chart.shift, (chart.rate * tau) ** 2, sde)


def intensities(*shape: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return (B + 0.9 * torch.randn(*shape, generator=g, dtype=torch.float64)).exp()


def posterior(intensity: torch.Tensor, looks: float, tau: float = TAU) -> tuple[torch.Tensor, float]:
    r"""Mean and variance of log X given I."""
    bias, v = log_moments(looks)
    gain = tau**2 / (tau**2 + v)
    return B + gain * (intensity.log() - bias - B), gain * v


@pytest.mark.parametrize(
    "looks, shift, variance",
    [(1, -0.5772, 1.6449), (2, -0.2704, 0.6449), (4, -0.1302, 0.2838), (8, -0.0638, 0.1331), (16, -0.0316, 0.0645)],
)
def test_the_moments_are_those_of_the_table(looks, shift, variance):
    assert log_moments(looks) == pytest.approx((shift, variance), abs=5e-5)


@pytest.mark.parametrize("looks", [1, 3.5, 16])
def test_simulated_speckle_has_mean_one_and_these_log_moments(looks):
    r"""Five sigma each, false alarms below 1e-5."""
    n = 200_000
    noise = speckle(torch.full((4, n), 2.0, dtype=torch.float64), looks, torch.Generator().manual_seed(0)) / 2
    bias, variance = log_moments(looks)
    assert noise.mean().item() == pytest.approx(1, abs=5 / math.sqrt(4 * n * looks))
    assert noise.log().mean().item() == pytest.approx(bias, abs=5 * math.sqrt(variance / (4 * n)))
    # the kurtosis of the log of a gamma variable is at most 5.4
    assert noise.log().var().item() == pytest.approx(variance, rel=5 * math.sqrt(4.4 / (4 * n)))


def test_the_skewness_that_the_normal_noise_lacks():
    noise = speckle(torch.ones(1, 400_000, dtype=torch.float64), 4, torch.Generator().manual_seed(0)).log()
    skewness = ((noise - noise.mean()) ** 3).mean() / noise.var() ** 1.5
    assert skewness.item() == pytest.approx(-0.53, abs=0.03)


def test_speckle_of_an_image_depends_on_its_generator_alone():
    x = torch.ones(3, 1, 4, 4)
    whole, part = speckle(x, 4, generators(0, 1, 0, [0, 1, 2])), speckle(x[:1], 4, generators(0, 1, 0, [2]))
    assert torch.equal(whole[2:], part) and not torch.equal(whole[0], whole[1])
    assert whole.dtype == torch.float32


@pytest.mark.parametrize("looks", LOOKS)
@pytest.mark.parametrize("name", PROCESSES)
def test_one_call_means_are_exact(name, looks):
    intensity = intensities(2, 1, 5, 7)
    mean, variance = posterior(intensity, looks)
    despeckler = Despeckler(oracle(PROCESSES[name]), looks)
    torch.testing.assert_close(despeckler.log_mean(intensity), mean.exp(), rtol=1e-9, atol=0)
    for probes in (1, 3):  # pixels are independent, so one probe is exact
        found, deviation = despeckler.mean(intensity, probes, torch.Generator().manual_seed(0))
        torch.testing.assert_close(found, (mean + variance / 2).exp(), rtol=1e-9, atol=0)
        torch.testing.assert_close(deviation, found * math.sqrt(math.expm1(variance)), rtol=1e-9, atol=0)


def test_probes_find_the_diagonal_of_dependent_pixels():
    r"""With standard error |off-diagonal| / sqrt(probes), here 1 % of the variance."""
    sde = PROCESSES["edm"]
    covariance = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)
    despeckler = Despeckler(gaussian(torch.zeros(2, dtype=torch.float64), covariance, sde), 4)
    v = log_moments(4)[1]
    exact = torch.linalg.inv(torch.linalg.inv(covariance) + torch.eye(2, dtype=torch.float64) / v).diagonal()
    intensity = torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    found, deviation = despeckler.mean(intensity, 500, torch.Generator().manual_seed(0))
    torch.testing.assert_close(((deviation / found) ** 2).log1p()[0], exact, rtol=0.03, atol=0)


@pytest.mark.parametrize("sampler, excess", [(None, 0.04), (DaleLangevin(64, Karras(1.0)), 0.012)], ids=["16", "64"])
def test_draws_have_the_moments_of_the_posterior(sampler, excess):
    r"""4,000 pixels of one value, 25 draws: an error of the mean of 5 sigma, of the deviation that of the steps."""
    looks, value = 4, 0.2
    intensity = torch.full((1, 1, 50, 80), value, dtype=torch.float64)
    mean, deviation = Despeckler(oracle(PROCESSES["standardised"]), looks, sampler).sample_mean(
        intensity, 25, torch.Generator().manual_seed(0)
    )
    log_mean, variance = posterior(intensity, looks)
    exact = (log_mean + variance / 2).exp()[0, 0, 0, 0].item()
    spread = exact * math.sqrt(math.expm1(variance))
    assert mean.mean().item() == pytest.approx(exact, abs=5 * spread / math.sqrt(1e5) + 0.003)
    assert deviation.square().mean().sqrt().item() == pytest.approx(spread, rel=excess)


def test_mean_and_deviation_are_those_of_the_draws():
    intensity = intensities(2, 1, 4, 4)
    despeckler = Despeckler(oracle(PROCESSES["edm"]), 4)
    mean, deviation = despeckler.sample_mean(intensity, 5, generators(0, 1, 0, [0, 1]))
    g = generators(0, 1, 0, [0, 1])
    draws = torch.stack([despeckler.sample(intensity, g) for _ in range(5)])
    torch.testing.assert_close(mean, draws.mean(0))
    torch.testing.assert_close(deviation, draws.std(0))


@pytest.mark.parametrize("batch", [1, 7])
def test_the_same_seed_gives_the_same_image_whatever_the_batches(batch):
    intensity = intensities(3, 1, 20, 26)
    whole = Despeckler(oracle(PROCESSES["edm"]), 4).sample_mean(intensity, 3, generators(0, 1, 0, [0, 1, 2]))
    tiled = Despeckler(Tiled(oracle(PROCESSES["edm"]), 8, batch=batch), 4)
    parts = [tiled.sample_mean(intensity[k : k + 1], 3, generators(0, 1, 0, [k])) for k in range(3)]
    for i in (0, 1):
        torch.testing.assert_close(torch.cat([part[i] for part in parts]), whole[i], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["edm", "standardised"])
def test_scenes_and_results_scale_together(name):
    r"""The offset of the training does not matter: speckle multiplies X, and X is what comes out."""
    sde, intensity = PROCESSES[name], intensities(1, 1, 6, 6)
    chart, factor = sde.chart.as_log(), 7.0
    scaled = Independent(chart.rate * (B + math.log(factor)) + chart.shift, (chart.rate * TAU) ** 2, sde)
    found = [
        Despeckler(denoiser, 4).sample(x, torch.Generator().manual_seed(0))
        for denoiser, x in ((oracle(sde), intensity), (scaled, factor * intensity))
    ]
    torch.testing.assert_close(found[1], factor * found[0], rtol=1e-9, atol=0)


def test_float32_stays_positive_and_close_down_to_dark_speckle():
    r"""Single-look speckle of 1e-9 beside an offset of 0.02: x = X - offset would round to -offset."""
    intensity = torch.tensor([1e-9, 1e-6, 1e-3, 1.0, 30.0]).reshape(1, 1, 1, 5)
    sde = PROCESSES["standardised"]
    exact = Despeckler(oracle(sde), 1).log_mean(intensity.double())
    single = oracle(sde)
    single.mean, single.var = single.mean.float(), single.var.float()
    despeckler = Despeckler(single, 1)
    assert despeckler.log_mean(intensity).dtype == torch.float32
    torch.testing.assert_close(despeckler.log_mean(intensity).double(), exact, rtol=1e-5, atol=0)
    draws = despeckler.sample(intensity, torch.Generator().manual_seed(0))
    assert bool((draws > 0).all())


def test_what_cannot_be_despeckled_is_refused():
    additive = Independent(0.0, 1.0, EDM(chart=Affine(2.0, -1.0)))
    with pytest.raises(TypeError, match=r"despeckling needs a multiplicative process, .* got EDM with chart Af"):
        Despeckler(additive, 4)
    model = oracle(PROCESSES["edm"])
    for looks in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"looks must be > 0 and finite, got looks="):
            Despeckler(model, looks)
        with pytest.raises(ValueError, match=r"looks must be > 0 and finite, got looks="):
            speckle(torch.ones(1, 2), looks)
    with pytest.raises(ValueError, match=r"got looks=0.1 with s=10.*Train with a larger sigma_max"):
        Despeckler(model, 0.1)
    with pytest.raises(ValueError, match=r"got looks=1000000.0 .*There is nothing to remove"):
        Despeckler(model, 1e6)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"intensities must be finite and > 0, got 1 of 3 .*floor"):
            Despeckler(model, 4).log_mean(torch.tensor([[1.0, bad, 2.0]]))
    with pytest.raises(ValueError, match=r"intensities must be >= 0, got values down to -1"):
        speckle(-torch.ones(1, 2), 4)
    with pytest.raises(ValueError, match="probes must be a whole number >= 1, got probes=0"):
        Despeckler(model, 4).mean(torch.ones(1, 2), 0)
    with pytest.raises(ValueError, match="samples must be a whole number >= 2"):
        Despeckler(model, 4).sample_mean(torch.ones(1, 2), 1)


@pytest.mark.parametrize("sampler", [DDIM(4), Heun(4)], ids=lambda s: type(s).__name__)
def test_many_draws_of_a_sampler_without_noise_are_refused(sampler):
    despeckler = Despeckler(oracle(PROCESSES["edm"]), 4, sampler)
    with pytest.raises(ValueError, match=f"must be stochastic for several samples, got {type(sampler).__name__}"):
        despeckler.sample_mean(torch.ones(1, 2), 2)
    assert bool((despeckler.sample(torch.ones(1, 2)) > 0).all())


def test_speckle_on_integers_is_that_on_numbers():
    whole, g = torch.full((1, 100), 100), lambda: torch.Generator().manual_seed(0)
    assert torch.equal(speckle(whole, 4, g()), speckle(whole.float(), 4, g()))


def test_draws_need_a_denoiser_of_all_levels():
    model = oracle(PROCESSES["edm"])
    model.least_s = 0.4
    despeckler, x = Despeckler(model, 4), torch.ones(1, 2)
    assert despeckler.denoiser.least_s == 0.4 and bool((despeckler.log_mean(x) > 0).all())
    with pytest.raises(ValueError, match=r"samples need a denoiser of all noise levels, .* from 0.4 on"):
        despeckler.sample(x)
