r"""Multiplicative score matching in closed form on log-normal data."""

import math

import pytest
import torch
from torch import nn

from scoregen.losses import (
    DataWeighting,
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    NoiseLevels,
    NoiseWeighting,
    NonNegativeScoreMatching,
)
from scoregen.models import RawDenoiser
from scoregen.rng import generator
from scoregen.sde import EDM, VE, GeometricBrownianMotion, GeometricOU, Multiplicative


class At(NoiseLevels):
    r"""One noise ratio."""

    def __init__(self, s: float) -> None:
        self.s = s

    def __call__(self, sde, quantile):
        return torch.full_like(quantile, self.s)


MEAN, STD, T = 0.3, 0.5, 0.6
SDE = GeometricBrownianMotion(0.8, drift=0.5)
V, SHIFT = 0.64 * T, 0.18 * T
LEVEL = At(math.sqrt(V))
N = 40_000


class Affine(nn.Module):
    r"""h = gain (log X - MEAN - SHIFT) + bias, which is exact for gain -1/(STD^2 + V) and bias -1."""

    num_classes = None

    def __init__(self, gain=-1 / (STD**2 + V), bias=-1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))

    def forward(self, x, t, label=None):
        return self.gain * (x.log() - MEAN - SHIFT) + self.bias


def exact(x, t):
    law = torch.distributions.LogNormal(torch.tensor(MEAN + SHIFT, dtype=torch.float64), math.sqrt(STD**2 + V))
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (score,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    return x.detach() * score


def data(n=N, dimensions=2):
    return (MEAN + STD * torch.randn(n, dimensions, generator=generator(0, 9), dtype=torch.float64)).exp()


def model(**arguments):
    return RawDenoiser(Affine(**arguments), SDE, prediction="hyvarinen")


def z_score(values, expected):
    return ((values.mean() - expected) / (values.std() / math.sqrt(len(values)))).item()


def test_the_minimum_of_denoising_is_the_variance_of_its_target():
    # per dimension and in units of h: s^2/(v (s^2 + v)); 5 standard errors: false alarm 6e-7
    values = DenoisingScoreMatching(LEVEL, DataWeighting())(model(), data(), generator=generator(0, 1)) / V**2
    assert abs(z_score(values.detach(), STD**2 / (V * (STD**2 + V)))) < 5


def test_the_minimiser_of_denoising_is_the_hyvarinen_score():
    # the loss is quadratic in gain and bias: one Newton step is its minimum, off by the error of a least squares fit
    wrong = model(gain=-0.5, bias=0.0)
    parameters = list(wrong.parameters())
    values = DenoisingScoreMatching(LEVEL, DataWeighting())(wrong, data(), generator=generator(0, 1))
    gradient = torch.stack(torch.autograd.grad(values.mean(), parameters, create_graph=True))
    hessian = torch.stack([torch.stack(torch.autograd.grad(g, parameters, retain_graph=True)) for g in gradient])
    gain, bias = torch.stack([p.detach() for p in parameters]) - torch.linalg.solve(hessian, gradient.detach())
    residual = STD / math.sqrt(V * (STD**2 + V)) / math.sqrt(2 * N)
    assert abs(gain.item() + 1 / (STD**2 + V)) < 5 * residual / math.sqrt(STD**2 + V)
    assert abs(bias.item() + 1) < 5 * residual


@pytest.mark.parametrize(("weighting", "power"), [(DataWeighting(), 2), (NoiseWeighting(), 1)], ids=["v^2", "v"])
@pytest.mark.parametrize("arguments", [{}, {"gain": -2.0, "bias": 0.3}], ids=["exact", "wrong"])
def test_denoising_is_explicit_score_matching_plus_a_constant(arguments, weighting, power):
    denoising, explicit = (
        loss(model(**arguments), data(), generator=generator(0, 1)).detach() / V**power
        for loss in (DenoisingScoreMatching(LEVEL, weighting), ExplicitScoreMatching(exact, LEVEL, weighting))
    )
    assert abs(z_score(denoising - explicit, STD**2 / (V * (STD**2 + V)))) < 5


def test_explicit_score_matching_is_the_squared_distance_of_the_scores():
    # h_theta - h is affine in log X_t, normal with variance STD^2 + V: its square has a closed mean
    explicit = ExplicitScoreMatching(exact, LEVEL)
    assert explicit(model(), data(100), generator=generator(0, 1)).max().item() < 1e-24
    values = explicit(model(gain=-2.0, bias=0.3), data(), generator=generator(0, 1)).detach() / V**2
    assert abs(z_score(values, (2 - 1 / (STD**2 + V)) ** 2 * (STD**2 + V) + 1.3**2)) < 5


@pytest.mark.parametrize("data_range", [None, (0.2, 5.0)], ids=["plain", "standardised"])
@pytest.mark.parametrize("arguments", [{}, {"gain": -2.0, "bias": 0.3}], ids=["exact", "wrong"])
def test_non_negative_score_matching_is_half_the_explicit_loss_less_a_constant(arguments, data_range):
    # const: E |h|^2/2 per dimension, with h + 1 normal of variance 1/(STD^2 + V)
    sde = GeometricBrownianMotion(0.8, drift=0.5, data_range=data_range)
    denoiser = RawDenoiser(Affine(**arguments), sde, prediction="hyvarinen")
    gain, bias = arguments.get("gain", -1 / (STD**2 + V)), arguments.get("bias", -1.0)
    distance = (gain + 1 / (STD**2 + V)) ** 2 * (STD**2 + V) + (bias + 1) ** 2
    constant = (1 + 1 / (STD**2 + V)) / 2
    values = NonNegativeScoreMatching(sde.scale * math.sqrt(V))(denoiser, data(), generator=generator(0, 1)).detach()
    assert abs(z_score(values, distance / 2 - constant)) < 5


@pytest.mark.parametrize("sde", [SDE, GeometricOU(mean=0.4, data_range=(0.2, 5.0))], ids=["gbm", "geometric_ou"])
def test_non_negative_score_matching_is_hyvarinens_expression(sde):
    # 2 x psi + x^2 psi' + x^2 psi^2/2 with psi = h/x, by automatic differentiation in x
    class Curved(Affine):
        def forward(self, x, t, label=None):
            return (2 * x).sin() + x

    x_0, s = data(20, 3), sde.noise_ratio(0.3)
    eps = torch.randn(x_0.shape, generator=generator(0, 1), dtype=torch.float64)
    x = sde.perturb(x_0, 0.3, eps).requires_grad_()
    psi = ((2 * x).sin() + x) / x
    (slope,) = torch.autograd.grad(psi.sum(), x)
    expected = (2 * x * psi + x**2 * slope + x**2 * psi**2 / 2).mean(1)
    denoiser = RawDenoiser(Curved(), sde, prediction="hyvarinen")
    values = NonNegativeScoreMatching(s.item(), probes=3)(denoiser, x_0, generator=generator(0, 1))
    torch.testing.assert_close(values, expected.detach(), rtol=1e-9, atol=1e-9)


def test_non_negative_score_matching_trains():
    # the gradient passes through the derivative: it vanishes at the exact score and not beside it
    def gradient(**arguments):
        denoiser = model(**arguments)
        values = NonNegativeScoreMatching(math.sqrt(V))(denoiser, data(), generator=generator(0, 1))
        return torch.stack(torch.autograd.grad(values.mean(), list(denoiser.parameters())))

    # exactly d/dgain = gain E z^2 + 1 and d/dbias = bias + 1
    assert gradient().abs().max() < 5 * math.sqrt(2 / N)
    assert gradient(gain=-2.0)[0].item() == pytest.approx(1 - 2 * (STD**2 + V), abs=0.02)
    with torch.no_grad():
        NonNegativeScoreMatching(0.5)(model(), data(4), generator=generator(0, 1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NonNegativeScoreMatching(0.0), "s must be > 0 and finite"),
        (lambda: NonNegativeScoreMatching(0.5, probes=0), "probes must be a whole number >= 1, got probes=0"),
    ],
)
def test_bad_values_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("loss", [ExplicitScoreMatching(exact), NonNegativeScoreMatching(0.5)])
def test_an_additive_process_is_refused(loss):
    denoiser = model()
    denoiser.sde = EDM()
    with pytest.raises(TypeError, match=r"needs a multiplicative process, .* got EDM"):
        loss(denoiser, data(4))


def test_non_negative_score_matching_differentiates_attention():
    r"""Fused attention has no second derivative."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift, self.drop = nn.Linear(1, 8), nn.Linear(8, 1)

        def forward(self, x, t, label=None):
            tokens = self.lift(x.log()[..., None])[:, None]  # (B, heads, tokens, channels), what fused attention takes
            return self.drop(nn.functional.scaled_dot_product_attention(tokens, tokens, tokens))[:, 0, :, 0]

    sde = GeometricBrownianMotion(0.8)
    network = Attention()
    loss = NonNegativeScoreMatching(0.1)(RawDenoiser(network, sde), data(8).float(), generator=generator(0, 0, 0))
    loss.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())


def test_a_network_in_data_space_takes_levels_below_those_of_its_process():
    r"""Consistency losses call it at r < noise_ratio(0) in their late stages: there D tends to u."""
    sde = Multiplicative(VE(0.01, 1.0))
    raw, u = RawDenoiser(Affine(), sde, prediction="hyvarinen").double(), torch.zeros(1, 2, dtype=torch.float64)
    assert torch.allclose(raw(u, 1e-6), u, atol=1e-6)
