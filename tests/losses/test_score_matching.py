r"""Denoising score matching against closed forms for a normal law, and the laws of its noise levels."""

import math

import pytest
import torch
from oracles import Independent

from scoregen.losses import (
    DataWeighting,
    DenoisingScoreMatching,
    LogNormal,
    LogUniform,
    NoiseLevels,
    UniformTime,
)
from scoregen.losses.base import drop_labels
from scoregen.losses.noise_levels import normal_quantile, stratified
from scoregen.rng import generator, generators
from scoregen.sde import EDM, VE, VP, Affine, Cosine, RectifiedFlow

MEAN, VAR, SD = 0.3, 0.4, 0.6
QUANTILES = torch.tensor([0.0, 0.01, 0.3, 0.5, 0.77, 0.999], dtype=torch.float64)


class At(NoiseLevels):
    r"""One noise ratio."""

    def __init__(self, s: float) -> None:
        self.s = s

    def __call__(self, sde, quantile):
        return torch.full_like(quantile, self.s)


class Linear(torch.nn.Module):
    r"""D = gain u + bias; exact for the normal law at s with gain VAR/(VAR + s^2)."""

    num_classes, sigma_data = None, SD

    def __init__(self, s: float, error: float = 0.0, sde=None) -> None:
        super().__init__()
        gain = VAR / (VAR + s**2)
        self.gain = torch.nn.Parameter(torch.tensor(gain + error, dtype=torch.float64))
        self.bias = torch.nn.Parameter(torch.tensor((1 - gain) * MEAN, dtype=torch.float64))
        self.sde = EDM() if sde is None else sde

    def forward(self, u, s, label=None):
        return self.gain * u + self.bias


def data(n: int, dimensions: int = 4) -> torch.Tensor:
    return MEAN + VAR**0.5 * torch.randn(n, dimensions, generator=generator(0, 9), dtype=torch.float64)


@pytest.mark.parametrize("s", [0.05, 0.7, 10.0])
def test_loss_of_the_exact_denoiser_is_the_posterior_variance(s):
    n, d = 40_000, 4
    loss = DenoisingScoreMatching(At(s), DataWeighting())
    values = loss(Linear(s), data(n, d), generator=generator(0, 1))
    exact = VAR * s**2 / (VAR + s**2)
    assert values.shape == (n,)
    # the error is normal, so its square has standard deviation sqrt(2) of its mean; 5 of them: false alarm 6e-7
    assert values.mean().item() == pytest.approx(exact, rel=5 * math.sqrt(2 / (n * d)))


@pytest.mark.parametrize("s", [0.05, 0.7, 10.0])
def test_gradient_vanishes_at_the_exact_denoiser_and_only_there(s):
    def scores(error: float) -> torch.Tensor:
        model, x = Linear(s, error), data(40_000, 1)
        values = DenoisingScoreMatching(At(s))(model, x, generator=generator(0, 1))
        per_sample = torch.autograd.grad(values.mean(), (model.gain, model.bias))
        spread = values.detach().mean() * 2 * math.sqrt((VAR + s**2) / (VAR * s**2 / (VAR + s**2)))
        return torch.stack(per_sample) / (spread / math.sqrt(len(x))) / torch.tensor([1.0, (VAR + s**2) ** -0.5])

    assert bool((scores(0.0).abs() < 5).all())
    assert scores(0.2)[0].abs() > 20


@pytest.mark.parametrize("s", [0.01, 0.5, 20.0])
def test_a_zero_network_has_edm_loss_one(s):
    r"""D = c_skip u on data of variance sigma_data^2: the reason for the weighting."""
    n = 40_000
    y = SD * torch.randn(n, 1, generator=generator(0, 1), dtype=torch.float64)

    class Zero(Linear):
        def forward(self, u, s, label=None):
            return SD**2 / (SD**2 + s.to(u)[:, None] ** 2) * u

    values = DenoisingScoreMatching(At(s))(Zero(s), y, generator=generator(0, 2))
    assert values.mean().item() == pytest.approx(1, abs=5 * math.sqrt(2 / n))


def test_data_go_through_the_chart():
    process = EDM(chart=Affine(2.0, -1.0))
    y = data(6)
    draws = [generator(0, 1) for _ in range(2)]
    inside = DenoisingScoreMatching()(Linear(0.5), y, generator=draws[0])
    outside = DenoisingScoreMatching()(Linear(0.5, sde=process), (y + 1) / 2, generator=draws[1])
    torch.testing.assert_close(inside, outside, rtol=1e-12, atol=1e-12)


def test_a_sample_has_its_own_noise_whatever_the_batch():
    loss, model, x = DenoisingScoreMatching(), Linear(0.5), data(10)
    quantile = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    whole = loss(model, x, None, generators(0, 1, 0, range(10)), quantile)
    parts = [
        loss(model, x[i : i + 3], None, generators(0, 1, 0, range(i, min(i + 3, 10))), quantile[i : i + 3])
        for i in (0, 3, 6, 9)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-14, atol=0)


def test_log_normal_levels_have_normal_logarithms():
    process = EDM(1e-4, 1e4)
    s = LogNormal(-1.2, 1.5)(process, QUANTILES[1:])
    probability = (1 + torch.special.erf((s.log() + 1.2) / 1.5 / math.sqrt(2))) / 2
    torch.testing.assert_close(probability, QUANTILES[1:], rtol=1e-9, atol=0)


@pytest.mark.parametrize("process", [EDM(), VE(), VP(), Cosine(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_uniform_times_are_linear_between_the_ends(process):
    t = process.time_of(UniformTime()(process, QUANTILES))
    low, high = process.time_of(process.s_min).item(), process.time_of(process.s_max).item()
    torch.testing.assert_close(t, low + QUANTILES * (high - low), rtol=1e-8, atol=1e-9)


def test_log_uniform_levels_have_uniform_logarithms():
    process = VE(0.01, 100.0)
    torch.testing.assert_close(LogUniform()(process, QUANTILES).log10(), 4 * QUANTILES - 2, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_normal_quantiles_have_their_probability(dtype):
    r"""Beside ndtri; a rounding of 1 in p is 1/density in the quantile."""
    tails = torch.logspace(math.log10(torch.finfo(torch.float32).eps), math.log10(0.5), 500, dtype=torch.float64)
    p = torch.cat([tails, 1 - tails]).to(dtype)
    exact = torch.special.ndtri(p.double())
    density = (-(exact**2) / 2).exp() / math.sqrt(2 * math.pi)
    error = (normal_quantile(p) - exact).abs() * density
    assert normal_quantile(p).dtype == dtype and error.max() < torch.finfo(dtype).eps


def test_quantiles_are_stratified():
    q = stratified(50, generator(0, 1), torch.device("cpu"))
    assert (q * 50).long().tolist() == list(range(50))
    assert 0 < (q * 50 % 1).std() < 1 and q.dtype == torch.float64


def test_labels_are_dropped_at_their_rate_and_otherwise_kept():
    n, rate = 20_000, 0.3
    model = torch.nn.Module()
    model.num_classes = 5
    label = torch.arange(n) % 5
    kept = drop_labels(model, label, rate, generator(0, 1))
    dropped = kept == -1
    assert bool((kept[~dropped] == label[~dropped]).all())
    assert dropped.float().mean().item() == pytest.approx(rate, abs=5 * math.sqrt(rate * (1 - rate) / n))
    assert torch.equal(drop_labels(model, label, 0.0, generator(0, 1)), label)
    assert bool((drop_labels(model, label, 1.0, generator(0, 1)) == -1).all())
    model.num_classes = None
    assert drop_labels(model, label, rate, generator(0, 1)) is None


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=rf"label_dropout must lie in \[0, 1\], got label_dropout={rate}"):
        DenoisingScoreMatching(label_dropout=rate)


def test_a_law_without_spread_is_refused():
    with pytest.raises(ValueError, match=r"std must be > 0 and finite, got std=0\."):
        LogNormal(std=0)


def test_the_oracle_of_these_tests_is_the_exact_denoiser():
    u = torch.randn(5, 2, generator=generator(0, 5), dtype=torch.float64)
    torch.testing.assert_close(Linear(0.7)(u, 0.7), Independent(MEAN, VAR)(u, 0.7), rtol=1e-12, atol=1e-12)
