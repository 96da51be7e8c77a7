r"""The SDEs in data space: Ito's formula, reversal, perturbation and prior, for every process."""

import math

import numpy as np
import pytest
import torch

from scoregen.sde import (
    EDM,
    VE,
    VP,
    Affine,
    Cosine,
    GeometricBrownianMotion,
    GeometricOU,
    Linear,
    Multiplicative,
    RectifiedFlow,
    SubVP,
)

PROCESSES = {
    "vp": VP(),
    "sub_vp": SubVP(),
    "ve": VE(0.01, 5.0),
    "edm_image": EDM(0.002, 8.0, chart=Affine(2.0, -1.0)),
    "cosine": Cosine(),
    "rectified_flow": RectifiedFlow(),
    "gbm": GeometricBrownianMotion(0.8, 0.1, offset=0.5),
    "gbm_time_dependent": GeometricBrownianMotion(Linear(0.3, 1.8), Linear(0.2, -0.4), data_range=(0.5, 3.0)),
    "geometric_ou": GeometricOU(mean=0.4, offset=0.2, data_range=(0.0, 1.0)),
    "multiplicative": Multiplicative(VP(chart=Affine(1.5, 0.2)), offset=1.0, data_range=(0.0, 1.0)),
}
each = pytest.mark.parametrize("sde", PROCESSES.values(), ids=PROCESSES.keys())
X = torch.linspace(0.2, 1.9, 7, dtype=torch.float64)[:, None]
NODES, WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(40))
WEIGHTS = WEIGHTS / WEIGHTS.sum()
TIME = 0.37


def gradient(function, at):
    r"""The derivative of an elementwise function; zero for a constant one."""
    at = at.clone().requires_grad_()
    value = function(at).sum()
    return torch.autograd.grad(value, at)[0] if value.requires_grad else torch.zeros_like(at)


def conditional_moments(sde, delta):
    r"""E and Var of x_{t+delta} given x_t = X, by quadrature over the exact transition kernel in chart coordinates."""
    t, r = TIME, TIME + delta
    ratio = sde.alpha(r) / sde.alpha(t)
    y = ratio * (sde.to_chart(X) - sde.shift(t)) + sde.shift(r)
    std = (sde.sigma(r) ** 2 - ratio**2 * sde.sigma(t) ** 2).sqrt()
    x = sde.from_chart(y + std * NODES)
    mean = (x * WEIGHTS).sum(1, keepdim=True)
    return mean, ((x - mean) ** 2 * WEIGHTS).sum(1, keepdim=True)


@each
def test_drift_and_diffusion_are_the_rates_of_the_transition_kernel(sde):
    # the rate at delta -> 0 by two steps of Richardson's extrapolation
    rates = [[(m - X) / d, v / d] for d in (4e-4, 2e-4, 1e-4) for m, v in [conditional_moments(sde, d)]]
    for i, expected in enumerate((sde.drift(X, TIME), sde.diffusion(X, TIME) ** 2)):
        a, b, c = (rate[i] for rate in rates)
        once = 2 * b - a, 2 * c - b
        torch.testing.assert_close((4 * once[1] - once[0]) / 3, expected, rtol=2e-6, atol=2e-6)


@each
def test_probability_flow_carries_the_normal_marginals(sde):
    # for y_0 ~ N(m, v) the flow map is affine in y; its velocity is the ODE's
    m, v = 0.3, 0.2
    t = torch.tensor(TIME, dtype=torch.float64)

    def law(t):
        return sde.alpha(t) * m + sde.shift(t), (sde.alpha(t) ** 2 * v + sde.sigma(t) ** 2).sqrt()

    mean, std = law(t)
    y = sde.to_chart(X)
    z = (y - mean) / std

    def position(t):
        mean, std = law(t)
        return sde.from_chart(mean + std * z)

    velocity = torch.autograd.functional.jacobian(position, t)
    score = -(y - mean) / std**2
    torch.testing.assert_close(sde.reverse_drift(X, TIME, score, stochastic=False), velocity, rtol=1e-9, atol=1e-10)


@each
def test_reversal_turns_the_probability_current(sde):
    # Anderson: reverse drift = forward drift - G^2 grad log p - (G^2)', with the score of the data density p
    y_score = torch.linspace(-1.0, 2.0, 7, dtype=torch.float64)[:, None]
    g2 = sde.diffusion(X, TIME) ** 2
    g2_slope = gradient(lambda x: sde.diffusion(x, TIME) ** 2, X)
    log_det_slope = gradient(sde.log_det, X)
    slope = sde.chart.inverse_derivatives(sde.to_chart(X))[0]
    data_score = y_score / slope + log_det_slope
    expected = sde.drift(X, TIME) - g2 * data_score - g2_slope
    torch.testing.assert_close(sde.reverse_drift(X, TIME, y_score), expected, rtol=1e-10, atol=1e-10)


@each
def test_perturb_is_the_path_in_chart_coordinates(sde):
    eps = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None]
    t = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    x_t = sde.perturb(X, t, eps)
    y = sde.alpha(t)[:, None] * sde.to_chart(X) + sde.shift(t)[:, None] + sde.sigma(t)[:, None] * eps
    torch.testing.assert_close(sde.to_chart(x_t), y, rtol=1e-9, atol=1e-9)
    u, s = sde.to_u(x_t, t)
    torch.testing.assert_close(u, sde.to_chart(X) + s[:, None] * eps, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(sde.from_u(u, t), x_t, rtol=1e-9, atol=1e-9)


@each
def test_prior_density_integrates_to_one(sde):
    sde.with_moments(0.3, 0.2)
    try:
        mean = (sde.alpha(1.0) * 0.3 + sde.shift(1.0)).item()
        std = math.sqrt((sde.alpha(1.0) ** 2 * 0.2 + sde.sigma(1.0) ** 2).item())
        y = torch.linspace(mean - 9 * std, mean + 9 * std, 4001, dtype=torch.float64)[:, None]
        x = sde.from_chart(y)
        density = sde.prior_log_prob(x).exp()
        assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=5e-5)
        first = torch.trapezoid(density * sde.to_chart(x)[:, 0], x[:, 0]).item()
        assert first == pytest.approx(mean, abs=5e-4)
    finally:
        sde.with_moments(0.0, 0.0)


def test_prior_knows_the_moments_of_every_pixel():
    sde = GeometricBrownianMotion(0.8, offset=1.0)
    mean = torch.tensor([[0.1, 0.4], [0.6, 0.2]], dtype=torch.float64)
    var = torch.tensor([[0.01, 0.02], [0.2, 0.0]], dtype=torch.float64)
    sde.with_moments(mean, var)
    x = sde.prior_sample((40_000, 2, 2), torch.Generator().manual_seed(0), torch.float64)
    y = sde.to_chart(x)
    # 5 standard errors: false alarms below 1e-5 for the 8 numbers
    assert bool(((y.mean(0) - mean).abs() < 5 * ((var + 0.64) / 40_000).sqrt()).all())
    assert bool(((y.var(0) / (var + 0.64) - 1).abs() < 5 * math.sqrt(2 / 40_000)).all())
    expected = torch.distributions.LogNormal(mean, (var + 0.64).sqrt()).log_prob(x + 1).flatten(1).sum(1)
    torch.testing.assert_close(sde.prior_log_prob(x), expected)


def test_prior_from_pixel_moments_is_closer_to_the_marginal():
    # KL of the marginal (independent normal pixels) to the prior: 0 with moments of the pixel, above 0 with scalar ones
    sde = GeometricBrownianMotion(0.8, offset=1.0)
    mean = torch.tensor([0.1, 0.6], dtype=torch.float64)
    eps = torch.randn(20_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = sde.from_chart(mean + math.sqrt(0.65) * eps)
    pixel = sde.with_moments(mean, torch.full((2,), 0.01, dtype=torch.float64)).prior_log_prob(x).mean()
    scalar = sde.with_moments(0.35, 0.01 + 0.25**2).prior_log_prob(x).mean()
    expected = 2 * (math.log(0.7125 / 0.65) / 2)
    # the difference has standard deviation 0.2 a sample: 5 standard errors are 7e-3
    assert (pixel - scalar).item() == pytest.approx(expected, abs=7e-3)


@pytest.mark.parametrize("moments", [(0.0, -1.0), (math.nan, 1.0)], ids=["negative", "nan"])
def test_bad_moments_are_refused(moments):
    with pytest.raises(ValueError, match="moments must be finite with var >= 0"):
        VP().with_moments(*moments)


def test_times_off_the_path_are_refused():
    x = torch.ones(2, 3)
    for call in (lambda t: VP().perturb(x, t, x), lambda t: VP().to_u(x, t)):
        for t in (500, -0.1, math.nan):
            with pytest.raises(ValueError, match=r"t must lie in \[0, 1\]"):
                call(t)


@pytest.mark.parametrize("sde", [RectifiedFlow(), Cosine()], ids=lambda p: type(p).__name__)
def test_pure_noise_has_no_u_but_a_time(sde):
    with pytest.raises(ValueError, match="t must be below 1"):
        sde.to_u(torch.ones(2, 3), torch.tensor([0.5, 1.0]))
    assert sde.time_of(math.inf).item() == 1.0


@pytest.mark.parametrize("call", ["drift", "diffusion", "reverse", "from_u"])
def test_a_time_outside_the_process_is_named(call):
    x = torch.ones(1, 2)
    calls = {
        "drift": lambda t: VP().drift(x, t),
        "diffusion": lambda t: VP().diffusion(x, t),
        "reverse": lambda t: VP().reverse_drift(x, t, x),
        "from_u": lambda t: VP().from_u(x, t),
    }
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1\]"):
        calls[call](2.0)


def test_a_drift_without_a_limit_is_named():
    with pytest.raises(ValueError, match=r"t must be inside \(0, 1\) for RectifiedFlow"):
        RectifiedFlow().drift(torch.ones(1, 2), 1.0)


def test_moments_have_one_shape():
    sde = VE().with_moments(0.0, torch.ones(3))
    assert sde.data_mean.shape == sde.data_var.shape == (3,)
    with pytest.raises(ValueError, match=r"shape of one sample, got \(2,\) and \(3,\)"):
        VE().with_moments(torch.zeros(2), torch.ones(3))
