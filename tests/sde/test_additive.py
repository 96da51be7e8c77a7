r"""The additive processes against their textbook forms, typed here independently."""

import math

import pytest
import torch
from oracles import Independent

from scoregen.samplers import ExponentialABM
from scoregen.sde import (
    EDM,
    VE,
    VP,
    Cosine,
    Multiplicative,
    Path,
    RectifiedFlow,
    SubVariancePreserving,
    SubVP,
    VariancePreserving,
)

T = torch.linspace(0.01, 0.98, 37, dtype=torch.float64)


def vp(t):
    beta = 0.1 + 19.9 * t
    integral = 0.1 * t + 9.95 * t**2
    alpha = torch.exp(-integral / 2)
    return alpha, torch.sqrt(1 - torch.exp(-integral)), -beta / 2, beta


def sub_vp(t):
    beta = 0.1 + 19.9 * t
    integral = 0.1 * t + 9.95 * t**2
    return torch.exp(-integral / 2), 1 - torch.exp(-integral), -beta / 2, beta * (1 - torch.exp(-2 * integral))


def ve(t):
    sigma = 0.01 * 5000.0**t
    return torch.ones_like(t), sigma, torch.zeros_like(t), 2 * sigma**2 * math.log(5000.0)


def edm(t):
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    root = low + t * (high - low)
    return torch.ones_like(t), root**7, torch.zeros_like(t), 14 * root**13 * (high - low)


def cosine(t):
    angle = math.pi * t / 2
    return torch.cos(angle), torch.sin(angle), -math.pi / 2 * torch.tan(angle), math.pi * torch.tan(angle)


def rectified(t):
    return 1 - t, t, -1 / (1 - t), 2 * t / (1 - t)


class QuadraticBeta:
    r"""beta = .1 + 30 t^2, which knows no inverse of its integral: what a newcomer's schedule is."""

    def integral(self, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        return 0.1 * t + 10 * t**3


class QuadraticVP(QuadraticBeta, VariancePreserving):
    pass


class QuadraticSubVP(QuadraticBeta, SubVariancePreserving):
    pass


def quadratic_vp(t):
    beta, integral = 0.1 + 30 * t**2, 0.1 * t + 10 * t**3
    return torch.exp(-integral / 2), torch.sqrt(1 - torch.exp(-integral)), -beta / 2, beta


def quadratic_sub_vp(t):
    beta, integral = 0.1 + 30 * t**2, 0.1 * t + 10 * t**3
    return torch.exp(-integral / 2), 1 - torch.exp(-integral), -beta / 2, beta * (1 - torch.exp(-2 * integral))


PROCESSES = [(VP(), vp), (SubVP(), sub_vp), (VE(), ve), (EDM(), edm), (Cosine(), cosine), (RectifiedFlow(), rectified)]
PROCESSES += [(QuadraticVP(), quadratic_vp), (QuadraticSubVP(), quadratic_sub_vp)]
pairs = pytest.mark.parametrize(("sde", "textbook"), PROCESSES, ids=lambda p: getattr(p, "__name__", ""))
each = pytest.mark.parametrize("sde", [p for p, _ in PROCESSES], ids=lambda p: type(p).__name__)


@pairs
def test_coefficients_are_the_textbook_ones(sde, textbook):
    f, h, g2 = sde.coefficients(T)
    alpha, sigma, f_text, g2_text = textbook(T)
    torch.testing.assert_close(sde.alpha(T), alpha, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(sde.sigma(T), sigma, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(f, f_text, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(g2, g2_text, rtol=1e-11, atol=1e-12)
    assert not h.any()


@each
def test_diffusion_is_the_growth_of_the_noise_ratio(sde):
    # g^2 = alpha^2 d(s^2)/dt, a second route to g
    t = T.clone().requires_grad_()
    (growth,) = torch.autograd.grad((sde.noise_ratio(t) ** 2).sum(), t)
    torch.testing.assert_close(sde.coefficients(T)[2], sde.alpha(T) ** 2 * growth, rtol=1e-9, atol=1e-12)


@each
def test_time_of_inverts_the_noise_ratio(sde):
    torch.testing.assert_close(sde.time_of(sde.noise_ratio(T)), T, rtol=1e-9, atol=1e-10)


@each
def test_noise_ratio_is_that_of_the_table(sde):
    integral = 0.1 * T + (10 * T**3 if isinstance(sde, QuadraticBeta) else 9.95 * T**2)
    table = {
        "VP": (integral.exp() - 1).sqrt(),
        "SubVP": 2 * (integral / 2).sinh(),
        "QuadraticVP": (integral.exp() - 1).sqrt(),
        "QuadraticSubVP": 2 * (integral / 2).sinh(),
        "Cosine": (math.pi * T / 2).tan(),
        "RectifiedFlow": T / (1 - T),
    }
    expected = table.get(type(sde).__name__, sde.sigma(T))
    torch.testing.assert_close(sde.noise_ratio(T), expected, rtol=1e-11, atol=1e-14)


@each
def test_uniform_bisection_agrees_with_the_closed_inverse(sde):
    s = sde.noise_ratio(T)
    torch.testing.assert_close(Path._time_of(sde, s), sde._time_of(s), rtol=1e-9, atol=1e-12)


def test_a_noise_ratio_outside_the_range_is_an_error():
    with pytest.raises(ValueError, match=r"s must lie between noise_ratio\(0\)=0.002 and noise_ratio\(1\)=80 of EDM"):
        EDM().time_of(100.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VP(2.0, 1.0), "beta_max must be >= 2, got beta_max=1.0"),
        (lambda: VE(2.0, 1.0), "0 < sigma_min < sigma_max < inf, got sigma_min=2.0, sigma_max=1.0"),
        (lambda: EDM(rho=0.0), "rho must be > 0 and finite, got rho=0.0"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("sde", "low", "high"),
    [
        (EDM(1e-5, 1.0), 1e-5, 1.0),
        (VE(0.01, 2000.0), 0.01, 2000.0),
        (VE(300.0, 500.0), 300.0, 500.0),
        (Multiplicative(VE(0.01, 2000.0)), 0.01, 2000.0),
        (RectifiedFlow(), 2e-3, 200.0),
        (VP(beta_max=40.0), 2e-3, 200.0),
    ],
)
def test_sampling_runs_over_the_range_that_the_process_states(sde, low, high):
    assert sde.s_min == pytest.approx(low, rel=1e-9)
    assert sde.s_max == pytest.approx(high, rel=1e-9)


@pytest.mark.parametrize(("sde", "std"), [(EDM(1e-5, 1.0), 1e-3), (VE(0.01, 2000.0), 300.0)], ids=["small", "large"])
def test_data_far_from_unit_scale_are_sampled(sde, std):
    r"""The flow from N(0, sigma_max^2) to N(0, std^2) data ends at std sigma_max/hypot(std, sigma_max)."""
    oracle = Independent(torch.zeros(1, dtype=torch.float64), std**2, sde)
    x = ExponentialABM(64)(oracle, (20_000, 1), generator=torch.Generator().manual_seed(0))
    assert x.std().item() == pytest.approx(std * sde.sigma_max / math.hypot(std, sde.sigma_max), rel=0.02)
