r"""Likelihoods by the probability-flow ODE against closed forms."""

import math

import pytest
import torch
from oracles import Mixture, gaussian, standard_mixture

from scoregen.metrics import bits_per_dim
from scoregen.samplers import RK2, RK4, RK45, likelihood, log_likelihood
from scoregen.samplers.ode import gregory_weights
from scoregen.sde import EDM, VE, VP, Affine, Cosine, GeometricBrownianMotion, Multiplicative


def moments(mixture: Mixture) -> tuple[torch.Tensor, torch.Tensor]:
    weights = mixture.weights[:, None]
    mean = (weights * mixture.means).sum(0)
    second = torch.diagonal(mixture.covariances, dim1=1, dim2=2) + mixture.means**2
    return mean, (weights * second).sum(0) - mean**2


def with_moments(mixture: Mixture) -> Mixture:
    mixture.sde.with_moments(*moments(mixture))
    return mixture


def one_dimensional(sde, means=(0.05, 0.55), deviations=(0.08, 0.05)) -> Mixture:
    covariances = torch.tensor([[[d**2]] for d in deviations], dtype=torch.float64)
    means = torch.tensor([[m] for m in means], dtype=torch.float64)
    return with_moments(Mixture(torch.tensor([0.6, 0.4], dtype=torch.float64), means, covariances, sde))


@pytest.fixture
def points() -> torch.Tensor:
    return standard_mixture().sample(256, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("solver", "bound", "calls"),
    [(RK4(64), 1.5 * 4.9e-5, 257), (RK45(1e-5), 3.9e-5, 210), (RK45(1e-4), 2.5e-4, 150)],
    ids=["rk4-64", "rk45-1e-5", "rk45-1e-4"],
)
def test_mean_error_on_the_standard_mixture(points, solver, bound, calls):
    mixture = with_moments(standard_mixture())
    result = log_likelihood(mixture, points, solver=solver)
    assert (result.log_prob - mixture.log_prob(points, 0.002)).abs().mean() < bound
    assert result.calls <= calls
    assert bool((result.standard_error == 0).all())


@pytest.mark.parametrize(("solver", "order"), [(RK2, 2), (RK4, 4)], ids=["rk2", "rk4"])
def test_order_of_the_solver(points, solver, order):
    # normal data, whose prior is exact: what is left is the error of the solver
    mean, covariance = torch.zeros(2).double(), torch.diag(torch.tensor([0.3, 0.05])).double()
    normal = with_moments(gaussian(mean, covariance, EDM(0.01, 20.0)))
    exact = normal.log_prob(points, 0.01)
    coarse, fine = (
        (log_likelihood(normal, points, solver=solver(n)).log_prob - exact).abs().max().log2() for n in (64, 128)
    )
    assert coarse - fine == pytest.approx(order, abs=0.25)


def test_rk45_error_follows_the_tolerance(points):
    normal = with_moments(gaussian(torch.zeros(2).double(), 0.2 * torch.eye(2).double()))
    exact = normal.log_prob(points, 0.002)
    for tolerance in (1e-4, 1e-6):
        error = (log_likelihood(normal, points, solver=RK45(tolerance)).log_prob - exact).abs().max()
        # some twenty steps, each with a local error of the order of the tolerance
        assert error < 100 * tolerance


def test_heun_error_table_on_a_log_normal_mixture():
    # largest error at 20, 40, 80, 160 steps; log-times from 1e-4 to 1
    mixture, s_min = one_dimensional(GeometricBrownianMotion(volatility=3.0)), 3e-2
    x = mixture.sample(256, torch.Generator().manual_seed(1)).exp()
    exact = mixture.log_prob(x.log(), s_min) - x.log().sum(1)
    for steps, reference in ((20, 0.12), (40, 0.031), (80, 0.0078), (160, 0.0020)):
        result = log_likelihood(mixture, x, solver=RK2(steps), s_min=s_min)
        assert (result.log_prob - exact).abs().max().item() == pytest.approx(reference, rel=0.25)


@pytest.mark.parametrize(
    "sde",
    [
        EDM(chart=Affine(2.0, -1.0)),
        VP(chart=Affine(2.0, -1.0)),
        Cosine(chart=Affine(0.5, 0.2)),
        GeometricBrownianMotion(volatility=2.0, offset=0.1),
        Multiplicative(VE(0.01, 20.0), offset=0.5, data_range=(0.0, 3.0)),
    ],
    ids=["edm", "vp", "cosine", "gbm", "multiplicative"],
)
def test_density_in_data_units_for_every_chart(sde):
    # one normal component, so that the prior is exact; its density in x by the change of variables, by hand
    mean, variance = torch.tensor([0.3]).double(), torch.tensor([[0.04]]).double()
    normal = with_moments(gaussian(mean, variance, sde))
    y = mean + 0.2 * torch.linspace(-3, 3, 41).double()[:, None]
    x = sde.from_chart(y)
    step = 1e-6
    slope = (sde.to_chart(x + step) - sde.to_chart(x - step))[:, 0] / (2 * step)
    spread = 0.04 + sde.s_min**2
    exact = -((y - mean)[:, 0] ** 2) / (2 * spread) - math.log(2 * math.pi * spread) / 2 + slope.log()
    result = log_likelihood(normal, x, solver=RK4(96))
    torch.testing.assert_close(result.log_prob, exact, atol=2e-4, rtol=0)


def test_density_of_a_log_chart_integrates_to_one():
    mixture = one_dimensional(GeometricBrownianMotion(volatility=4.0, offset=0.5), deviations=(0.2, 0.1))
    x = torch.linspace(-0.49, 3.0, 1500).double()[:, None]
    density = log_likelihood(mixture, x, solver=RK4(64)).log_prob.exp()
    assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=1e-3)


def test_hutchinson_is_unbiased_and_its_standard_error_covers(points):
    mixture = with_moments(standard_mixture())
    solver = RK4(32)
    exact = log_likelihood(mixture, points, solver=solver).log_prob
    generator = torch.Generator().manual_seed(3)
    result = log_likelihood(mixture, points, solver=solver, probes=32, generator=generator)
    z = (result.log_prob - exact) / result.standard_error
    # 256 independent points: |mean| < 4/16, mean square 1 +- 4 sqrt(2/256) Student tails aside; false alarm 1e-4
    assert z.mean().abs() < 0.25
    assert 0.6 < z.square().mean() < 1.6
    # about one nat a point and probe in two dimensions
    assert 0.9 < (result.standard_error * math.sqrt(32)).mean() < 1.1


def test_one_probe_has_no_standard_error_and_keys_its_draws_by_sample(points):
    mixture, solver = with_moments(standard_mixture()), RK4(8)

    def run(x, seeds):
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        return log_likelihood(mixture, x, solver=solver, probes=1, generator=generators)

    whole, part = run(points[:4], [0, 1, 2, 3]), run(points[2:4], [2, 3])
    assert bool(whole.standard_error.isnan().all())
    torch.testing.assert_close(whole.log_prob[2:], part.log_prob, atol=1e-12, rtol=0)


def test_the_prior_without_moments_is_the_wide_normal_law(points):
    mixture = standard_mixture()
    plain = log_likelihood(mixture, points, solver=RK4(64)).log_prob
    exact = mixture.log_prob(points, 0.002)
    # N(0, s_max^2) instead of p_{s_max}: off by about |E y_0| / s_max
    assert 1e-4 < (plain - exact).abs().mean() < 0.4 / 80


def test_bits_per_dim_of_discrete_data_agree_with_the_metric(points):
    mixture = with_moments(standard_mixture())
    result = log_likelihood(mixture, points[:8], solver=RK4(16), levels=256)
    torch.testing.assert_close(result.bits_per_dim, bits_per_dim(result.log_prob, 2))
    continuous = log_likelihood(mixture, points[:8], solver=RK4(16))
    torch.testing.assert_close(result.bits_per_dim - continuous.bits_per_dim, torch.full((8,), 8.0).double())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probes": -1}, "probes must be a whole number >= 0"),
        ({"levels": 1}, "levels must be >= 2"),
        ({"s_min": 3.0, "s_max": 2.0}, "0 < s_min < s_max"),
    ],
)
def test_bad_arguments_are_refused(points, arguments, message):
    with pytest.raises(ValueError, match=message):
        log_likelihood(standard_mixture(), points, **arguments)


@pytest.mark.parametrize("solver", [RK2, RK4])
def test_solvers_refuse_no_steps(solver):
    with pytest.raises(ValueError, match="steps must be a whole number >= 1"):
        solver(0)


def test_rk45_says_when_it_cannot_go_on():
    with pytest.raises(RuntimeError, match="larger tolerance"):
        RK45(1e-6)(lambda tau, y: y / (0.5 - tau) ** 4, torch.ones(1, 1).double(), 0.0, 1.0)
    with pytest.raises(ValueError, match="tolerance must be > 0"):
        RK45(0.0)


@pytest.mark.parametrize("steps", [8, 9, 64])
def test_the_rule_for_the_divergence_is_exact_for_polynomials_of_degree_five(steps):
    weights = torch.tensor(gregory_weights(steps), dtype=torch.float64) / steps
    x = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    for degree in range(6):
        assert (weights * x**degree).sum().item() == pytest.approx(1 / (degree + 1), abs=1e-13)
    assert abs((weights * x**6).sum().item() - 1 / 7) > 1e-13


def test_the_divergence_is_taken_once_a_step(points, monkeypatch):
    r"""It costs as many backward passes as a sample has numbers."""
    taken = []
    exact = likelihood.exact_divergence
    monkeypatch.setattr(likelihood, "exact_divergence", lambda *given: taken.append(1) or exact(*given))
    assert log_likelihood(with_moments(standard_mixture()), points[:4]).calls == 257 and len(taken) == 65
