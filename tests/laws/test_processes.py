r"""The law of processes: alpha, shift and sigma^2 solve the moment equations of the SDE that a process states.

    d alpha/dt = f alpha,     d shift/dt = f shift + h,     d sigma^2/dt = 2 f sigma^2 + g^2

The SDE dy = (f y + h) dt + g dW is typed here from the literature, so that a wrong integral in a process is found even
where it derives f and g from that integral.
"""

import math

import pytest
import torch
from laws.discovery import node_of, options, uncovered
from scipy.integrate import solve_ivp

from scoregen.config import build
from scoregen.description import plain
from scoregen.sde import (
    EDM,
    SDE,
    VE,
    VP,
    Affine,
    Cosine,
    DiscretePath,
    GeometricBrownianMotion,
    GeometricOU,
    Linear,
    Multiplicative,
    Path,
    RectifiedFlow,
    SubVariancePreserving,
    SubVP,
    VariancePreserving,
)

T = torch.linspace(0.01, 0.98, 37, dtype=torch.float64)
SCALE = 2 / math.log(2)  # y = SCALE log(x + 1) - 1 for x in [0, 1]


class QuadraticBeta:
    r"""beta = .1 + 30 t^2, which knows no inverse of its integral."""

    def integral(self, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        return 0.1 * t + 10 * t**3


class QuadraticVP(QuadraticBeta, VariancePreserving):
    pass


class QuadraticSubVP(QuadraticBeta, SubVariancePreserving):
    pass


def vp(t):
    beta = 0.1 + 19.9 * t
    return -beta / 2, 0 * t, beta


def sub_vp(t):
    beta = 0.1 + 19.9 * t
    return -beta / 2, 0 * t, beta * (1 - torch.exp(-0.2 * t - 19.9 * t**2))


def quadratic_vp(t):
    beta = 0.1 + 30 * t**2
    return -beta / 2, 0 * t, beta


def quadratic_sub_vp(t):
    beta = 0.1 + 30 * t**2
    return -beta / 2, 0 * t, beta * (1 - torch.exp(-0.2 * t - 20 * t**3))


def ve(t):
    return 0 * t, 0 * t, 2 * math.log(5000.0) * (0.01 * 5000.0**t) ** 2


def edm(t):
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    return 0 * t, 0 * t, 14 * (low + t * (high - low)) ** 13 * (high - low)


def cosine(t):
    angle = math.pi * t / 2
    return -math.pi / 2 * torch.tan(angle), 0 * t, math.pi * torch.tan(angle)


def rectified_flow(t):
    return -1 / (1 - t), 0 * t, 2 * t / (1 - t)


def discrete(t):
    r"""log s in equal steps from log .01 to log 100: d log s/dt = log 10^4, alpha^2 = 1/(1 + s^2)."""
    rate = math.log(1e4)
    kept = (0.01 * (rate * t).exp()) ** 2
    return -rate * kept / (1 + kept), 0 * t, 2 * rate * kept / (1 + kept)


def gbm(t):
    return 0 * t, SCALE * (0.1 - 0.32 + 0 * t), (SCALE * 0.8) ** 2 + 0 * t


def gbm_in_time(t):
    volatility = 0.3 + 1.5 * t
    return 0 * t, 0.2 - 0.6 * t - volatility**2 / 2, volatility**2


def geometric_ou(t):
    beta = 0.1 + 19.9 * t
    return -beta / 2, beta / 2 * (SCALE * 0.4 - 1), SCALE**2 * beta


LEVELS = [1 / (1 + 0.01**2), 0.5, 1 / (1 + 100.0**2)]  # abar = 1/(1 + s^2)
# a process and the f, h, g^2 of its SDE in chart coordinates
EQUATIONS = {
    "vp": (VP(), vp),
    "sub_vp": (SubVP(), sub_vp),
    "quadratic_vp": (QuadraticVP(), quadratic_vp),
    "quadratic_sub_vp": (QuadraticSubVP(), quadratic_sub_vp),
    "ve": (VE(), ve),
    "edm": (EDM(), edm),
    "cosine": (Cosine(), cosine),
    "rectified_flow": (RectifiedFlow(), rectified_flow),
    "discrete": (DiscretePath(LEVELS), discrete),
    "gbm": (GeometricBrownianMotion(0.8, 0.1, offset=1.0, data_range=(0.0, 1.0)), gbm),
    "gbm_in_time": (GeometricBrownianMotion(Linear(0.3, 1.8), Linear(0.2, -0.4)), gbm_in_time),
    "geometric_ou": (GeometricOU(mean=0.4, offset=1.0, data_range=(0.0, 1.0)), geometric_ou),
    "multiplicative": (Multiplicative(VP(chart=Affine(1.5, 0.2)), data_range=(0.0, 1.0)), vp),
}
each = pytest.mark.parametrize("name", EQUATIONS)


def check_moments(sde: SDE, equation) -> None:
    r"""The moments of a process solve the equations with f, h, g^2 from data at t = 0."""

    left = iter(range(20_000))  # some hundreds are enough where f, h and g^2 are smooth

    def rate(t, moments):
        f, h, g2 = (float(c) for c in equation(torch.tensor(t, dtype=torch.float64)))
        assert math.isfinite(f + h + g2) and next(left, None) is not None, f"f, h or g^2 is not smooth near t = {t:.6g}"
        return f * moments[0], f * moments[1] + h, 2 * f * moments[2] + g2

    start = [float(part(0.0)) for part in (sde.alpha, sde.shift, sde.variance)]
    assert start == pytest.approx([1.0, 0.0, 0.0], abs=2e-4), "t = 0 is data"
    ends = solve_ivp(rate, (0.0, 0.98), start, "DOP853", T.numpy(), rtol=1e-9, atol=1e-13).y
    for found, exact in zip((sde.alpha(T), sde.shift(T), sde.variance(T)), ends, strict=True):
        torch.testing.assert_close(found, torch.from_numpy(exact), rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(sde.sigma(T) ** 2, sde.variance(T), rtol=1e-11, atol=1e-13)


def check_inverse(sde: SDE) -> None:
    r"""s = sigma/alpha grows with t, and `time_of` is its inverse, by a formula or by bisection."""
    s = sde.noise_ratio(T)
    assert bool((s.diff() > 0).all())
    torch.testing.assert_close(s, sde.sigma(T) / sde.alpha(T), rtol=1e-11, atol=0)
    torch.testing.assert_close(sde.time_of(s), T, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(Path._time_of(sde, s), sde._time_of(s), rtol=1e-9, atol=1e-12)


@each
def test_moments_solve_the_equations_of_the_literature(name):
    check_moments(*EQUATIONS[name])


@each
def test_coefficients_are_those_of_the_literature(name):
    sde, equation = EQUATIONS[name]
    for found, exact in zip(sde.coefficients(T), equation(T), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-12)


@each
def test_diffusion_is_the_growth_of_the_noise_ratio(name):
    # g^2 = alpha^2 d(s^2)/dt, a second route to g
    sde, t = EQUATIONS[name][0], T.clone().requires_grad_()
    (growth,) = torch.autograd.grad((sde.noise_ratio(t) ** 2).sum(), t)
    torch.testing.assert_close(sde.coefficients(T)[2], sde.alpha(T) ** 2 * growth, rtol=1e-9, atol=1e-12)


@each
def test_time_of_inverts_the_noise_ratio(name):
    check_inverse(EQUATIONS[name][0])


@pytest.mark.parametrize("name", options("sde"))
def test_a_process_of_the_configuration_solves_its_own_equations(name):
    sde = build(node_of("sde", name))
    check_moments(sde, sde.coefficients)
    check_inverse(sde)


@pytest.mark.parametrize("name", sorted({*EQUATIONS} - {"discrete"}))  # its levels are described by a digest
def test_a_process_is_described_by_its_arguments(name):
    described = plain(EQUATIONS[name][0])
    assert plain(build(described)) == described


def missing(equations) -> list[str]:
    covered = {type(sde) for sde, _ in equations.values()}
    return uncovered(SDE, covered, "add its f, h, g^2 to EQUATIONS in tests/laws/test_processes.py")


def test_every_process_has_its_equation():
    assert not missing(EQUATIONS)
