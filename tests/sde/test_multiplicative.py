r"""Multiplicative processes: kernel, drift, diffusion, reversal and Hyvarinen score in the paper's own notation."""

import math

import pytest
import torch
from oracles import Independent

from scoregen.data import Digits
from scoregen.models import AbstractDenoiser
from scoregen.rng import generator
from scoregen.sde import VE, VP, Affine, GeometricBrownianMotion, GeometricOU, Linear, Multiplicative

X = torch.linspace(0.3, 2.5, 9, dtype=torch.float64)[:, None]


def log_normal(mean, var):
    return torch.distributions.LogNormal(torch.as_tensor(mean, dtype=torch.float64), math.sqrt(var))


class OracleDenoiser(AbstractDenoiser):
    def __init__(self, oracle):
        super().__init__()
        self.oracle, self.sde = oracle, oracle.sde

    def forward(self, u, s, label=None):
        return self.oracle(u, s)


def test_papers_setting_has_no_shift():
    sde = GeometricBrownianMotion(volatility=0.8, offset=1.0)
    assert sde.shift(1.0).item() == 0
    assert sde.sigma(1.0).item() == pytest.approx(0.8, rel=1e-15)
    assert sde.drift(X, 0.4).squeeze().tolist() == pytest.approx((0.32 * (X + 1)).squeeze().tolist(), rel=1e-14)


def test_kernel_is_built_from_the_integrals():
    # log-std of N(., 0.5^2) data at t = 1 with vol = .3 + 1.5 t: 1.241, where vol(t)^2 t would give 1.868
    sde = GeometricBrownianMotion(lambda t: 0.3 + 1.5 * t)
    assert math.sqrt(0.25 + sde.variance(1.0).item()) == pytest.approx(1.241, abs=5e-4)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(sde.variance(t), 0.09 * t + 0.45 * t**2 + 0.75 * t**3, rtol=1e-13, atol=1e-15)


def test_shift_is_the_integral_of_drift_minus_half_the_variance_rate():
    sde = GeometricBrownianMotion(lambda t: 0.5 * (1 + t), lambda t: torch.cos(3 * t))
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    expected = torch.sin(3 * t) / 3 - 0.125 * ((1 + t) ** 3 - 1) / 3
    torch.testing.assert_close(sde.shift(t), expected, rtol=1e-13, atol=1e-15)


def test_mean_grows_at_the_rate_of_the_drift():
    # E X_t = e^{mu t} E X_0, by the mean of the log-normal kernel
    sde = GeometricBrownianMotion(0.8, drift=0.5)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(sde.shift(t) + sde.variance(t) / 2, 0.5 * t, rtol=1e-14, atol=1e-15)


def test_data_space_coefficients_are_those_of_geometric_brownian_motion():
    sde = GeometricBrownianMotion(Linear(0.3, 1.8), lambda t: 0.2 + t, offset=0.1, data_range=(0.2, 3.0))
    torch.testing.assert_close(sde.drift(X, 0.4), 0.6 * (X + 0.1))
    torch.testing.assert_close(sde.diffusion(X, 0.4), 0.9 * (X + 0.1))


def test_reverse_sde_is_the_papers():
    # dX = X [(mu - 2 vol^2) - vol^2 h] dt, ODE in log x: mu - vol^2 - vol^2 h / 2
    sde = GeometricBrownianMotion(0.8, drift=0.5)
    h = torch.linspace(-3, 2, 9, dtype=torch.float64)[:, None]
    torch.testing.assert_close(sde.reverse_drift(X, 0.4, h + 1), X * (0.5 - 1.28 - 0.64 * h))
    torch.testing.assert_close(sde.reverse_drift(X, 0.4, h + 1, stochastic=False), X * (0.5 - 0.64 - 0.32 * h))


def test_geometric_ou_has_the_papers_drift():
    sde = GeometricOU(mean=0.7)
    beta = 0.1 + 19.9 * 0.3
    torch.testing.assert_close(sde.drift(X, 0.3), X * beta / 2 * (1 + 0.7 - X.log()))
    torch.testing.assert_close(sde.diffusion(X, 0.3), X * math.sqrt(beta))


def test_geometric_ou_keeps_its_stationary_law():
    sde = GeometricOU(mean=0.7).with_moments(0.7, 1.0)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(sde.alpha(t) * 0.7 + sde.shift(t), torch.full_like(t, 0.7))
    torch.testing.assert_close(sde.alpha(t) ** 2 + sde.variance(t), torch.ones_like(t))


@pytest.mark.parametrize(
    "build",
    [
        lambda r: GeometricBrownianMotion(Linear(0.3, 1.8), 0.4, offset=0.5, data_range=r),
        lambda r: GeometricOU(mean=0.7, offset=0.5, data_range=r),
    ],
    ids=["gbm", "geometric_ou"],
)
def test_standardising_the_chart_leaves_the_process_alone(build):
    plain, scaled = build(None), build((0.2, 3.0))
    eps = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    torch.testing.assert_close(scaled.perturb(X, 0.6, eps), plain.perturb(X, 0.6, eps))
    torch.testing.assert_close(scaled.drift(X, 0.6), plain.drift(X, 0.6))
    torch.testing.assert_close(scaled.diffusion(X, 0.6), plain.diffusion(X, 0.6))
    ends = scaled.to_chart(torch.tensor([0.2, 3.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([-1, 1], abs=1e-14)


def test_multiplicative_is_the_base_on_log_x():
    base = VE(0.01, 20.0)
    sde = Multiplicative(VE(0.01, 20.0), offset=1.0)
    eps = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None] / 10
    torch.testing.assert_close(sde.perturb(X, 0.5, eps), base.perturb((X + 1).log(), 0.5, eps).exp() - 1)
    s = base.noise_ratio(torch.linspace(0, 1, 5, dtype=torch.float64))
    torch.testing.assert_close(sde.time_of(s), base.time_of(s))


def test_multiplicative_applies_range_then_chart_of_the_base():
    sde = Multiplicative(VP(chart=Affine(3.0, 0.5)), offset=0.5, data_range=(0.0, 1.0))
    ends = sde.to_chart(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([-2.5, 3.5], abs=1e-14)


def test_papers_gbm_is_variance_exploding_in_log_x():
    gbm, ve = GeometricBrownianMotion(0.8), VE(0.01, 0.8)
    t_ve = torch.linspace(0.1, 1, 5, dtype=torch.float64)
    t = gbm.time_of(ve.noise_ratio(t_ve))
    eps = torch.ones(5, 1, dtype=torch.float64)
    log_x = X[:5].log()
    torch.testing.assert_close(gbm.perturb(X[:5], t, eps).log(), ve.perturb(log_x, t_ve, eps))


@pytest.mark.parametrize("data_range", [None, (0.8, 2.2)], ids=["plain", "standardised"])
def test_hyvarinen_score_is_x_times_the_data_score(data_range):
    # log-normal data, mean a and variance v of log X_0: p_t is log-normal with mean a + m, variance v + v_t
    a, v, t = 0.3, 0.25, 0.6
    sde = GeometricBrownianMotion(0.8, drift=0.5, data_range=data_range)
    shift = sde.to_chart(torch.ones(1, dtype=torch.float64)).item()
    oracle = Independent(sde.scale * a + shift, sde.scale**2 * v, sde)
    x = X.clone().requires_grad_()
    law = log_normal(a + (0.5 - 0.32) * t, v + 0.64 * t)
    (data_score,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    torch.testing.assert_close(OracleDenoiser(oracle).hyvarinen_score(X, t), X * data_score, rtol=1e-10, atol=1e-10)


def test_kernel_target_of_the_hyvarinen_score():
    # h(x_t | x_0) = -1 - eps/sqrt(v) = -1 - (log x_t - log x_0 - m)/v
    sde = GeometricBrownianMotion(0.8, drift=0.5)
    eps = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    x_t = sde.perturb(X, 0.6, eps).requires_grad_()
    law = log_normal(X.log() + 0.18 * 0.6, 0.64 * 0.6)
    (data_score,) = torch.autograd.grad(law.log_prob(x_t).sum(), x_t)
    torch.testing.assert_close(x_t.detach() * data_score, -1 - eps / math.sqrt(0.384))


def digits():
    source = Digits()
    return torch.cat([source.train[:][0], source.test[:][0]]).double().flatten(1)


def test_rounding_restores_exact_zeros():
    # c sqrt(v_min) = .01 <= Delta/6 for the 17 grey levels: .489 of the pixels are 0, .488 after noise and rounding
    x, sde = digits(), GeometricBrownianMotion(0.1, offset=0.1)
    eps = torch.randn(x.shape, generator=generator(0, 1), dtype=torch.float64)
    assert 0.1 * sde.sigma(1.0) <= 1 / 16 / 6
    rounded = (sde.perturb(x, 1.0, eps) * 16).round()
    assert (x == 0).double().mean().item() == pytest.approx(0.4893, abs=1e-4)
    assert (rounded == 0).double().mean().item() == pytest.approx(0.488, abs=5e-4)
    assert ((rounded == 0) & (x == 0)).double().mean().item() > 0.487


@pytest.mark.parametrize(("kind", "divergence"), [(None, 1.85), (0, 0.13)], ids=["scalar", "pixel"])
def test_moments_of_each_pixel_bring_the_prior_near_the_data(kind, divergence):
    # KL of the law of x_1 (a mixture over the digits) from the prior, by 2000 draws: standard errors .04 and .01 nats
    x, sde = digits(), GeometricBrownianMotion(0.8, offset=1.0)
    y, v = sde.to_chart(x), 0.64
    sde.with_moments(y.mean(kind), y.var(kind))
    g = generator(0, 2)
    chosen = torch.randint(len(y), (2000,), generator=g)
    y_1 = y[chosen] + math.sqrt(v) * torch.randn(2000, 64, generator=g, dtype=torch.float64)
    log_q = (
        torch.logsumexp(-(torch.cdist(y_1, y) ** 2) / (2 * v), 1) - math.log(len(y)) - 32 * math.log(2 * math.pi * v)
    )
    x_1 = sde.from_chart(y_1)
    found = (log_q + sde.log_det(x_1) - sde.prior_log_prob(x_1)).mean().item()
    assert found == pytest.approx(divergence, abs=0.2 if kind is None else 0.05)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: GeometricBrownianMotion(-0.8), ValueError, "volatility must be > 0 and finite"),
        (lambda: GeometricBrownianMotion(lambda t: t - 0.5), ValueError, "volatility must be > 0 and finite"),
        (lambda: GeometricBrownianMotion(0.8, lambda t: 1 / t), ValueError, "drift must be finite"),
        (lambda: GeometricBrownianMotion(0.8, data_range=(0.0, 1.0)), ValueError, "-offset < low < high"),
        (lambda: GeometricBrownianMotion(0.8, offset=-1.0), ValueError, "offset must be >= 0"),
        (lambda: GeometricOU(mean=math.inf), ValueError, "mean must be finite"),
        (lambda: Multiplicative(GeometricOU()), TypeError, "base must be an additive process"),
        (lambda: Multiplicative(3.0), TypeError, "base must be an additive process"),
        (lambda: Multiplicative(VE().with_moments(0.3, 0.2)), ValueError, "base must have no moments"),
    ],
)
def test_bad_parameters_are_named(build, error, message):
    with pytest.raises(error, match=message):
        build()
