r"""Priors of normal laws, against their closed forms: 12 numbers, 7 observations, noise .1."""

import math

import pytest
import torch
from oracles import Independent, gaussian

from scoregen.losses.noise_levels import LogUniform
from scoregen.losses.weightings import DataWeighting, EDMWeighting
from scoregen.models import MLP, Denoiser, Inpainting, LinearObservation, MatrixObservation
from scoregen.priors import Annealed, GaussianDenoiser, ScorePrior, fixed_point, reliability, residual_mask
from scoregen.sde import EDM, Affine, Log

N, M, NOISE = 12, 7, 0.1


def problem():
    r"""Mean, covariance, matrix and observed numbers of a normal law."""
    g = torch.Generator().manual_seed(3)
    vectors = torch.linalg.qr(torch.randn(N, N, generator=g, dtype=torch.float64))[0]
    values = torch.logspace(math.log10(2), -2, N, dtype=torch.float64)
    covariance = (vectors * values) @ vectors.T
    mean = torch.randn(N, generator=g, dtype=torch.float64)
    matrix = torch.randn(M, N, generator=g, dtype=torch.float64)
    truth = mean + vectors @ (values.sqrt() * torch.randn(N, generator=g, dtype=torch.float64))
    z = matrix @ truth + NOISE * torch.randn(M, generator=g, dtype=torch.float64)
    return mean, covariance, matrix, z


MEAN, COVARIANCE, MATRIX, Z = problem()
OBSERVATION = MatrixObservation(Z, MATRIX, NOISE)
EXACT = GaussianDenoiser(MEAN, COVARIANCE, EDM(1e-3, 80.0))
EYE = torch.eye(N, dtype=torch.float64)


def answer(precision: torch.Tensor) -> torch.Tensor:
    r"""m + (A'A/noise^2 + P)^{-1} A' (z - A m)/noise^2."""
    right = MATRIX.T @ (Z - MATRIX @ MEAN) / NOISE**2
    return MEAN + torch.linalg.solve(MATRIX.T @ MATRIX / NOISE**2 + precision, right)


def ridge(s: float) -> torch.Tensor:
    return answer(torch.linalg.inv(COVARIANCE + s**2 * EYE))


POSTERIOR = answer(torch.linalg.inv(COVARIANCE))


def test_the_normal_denoiser_is_the_posterior_mean_of_its_law():
    u = torch.randn(5, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(EXACT(u, 0.3), gaussian(MEAN, COVARIANCE)(u, 0.3), rtol=0, atol=1e-12)
    levels = torch.tensor([0.1, 0.2, 0.3, 1.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(EXACT(u, levels)[3], EXACT(u, 1.0)[3], rtol=0, atol=1e-12)
    torch.testing.assert_close(EXACT.covariance, COVARIANCE, rtol=0, atol=1e-12)


def test_the_normal_law_of_data_is_fitted_in_chart_coordinates():
    x = torch.rand(50, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = GaussianDenoiser.fit(x, EDM(chart=Affine(2.0, -1.0)), shrinkage=0.25)
    y = (2 * x - 1).flatten(1)
    covariance = torch.cov(y.T)
    wanted = 0.75 * covariance + 0.25 * covariance.trace() / 4 * torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(found.covariance, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.mean, y.mean(0).reshape(1, 2, 2), rtol=0, atol=1e-12)
    assert found.shape == (1, 2, 2)
    assert found.sigma_data == pytest.approx(math.sqrt(covariance.trace() / 4), rel=1e-12)


OBSERVATIONS = {
    "matrix": (OBSERVATION, MATRIX),
    "functions": (LinearObservation(Z[None], lambda x: x @ MATRIX.T, lambda z: z @ MATRIX, NOISE), MATRIX),
}


@pytest.mark.parametrize("observation", [pair[0] for pair in OBSERVATIONS.values()], ids=list(OBSERVATIONS))
def test_the_posterior_mean_is_the_ridge_solution(observation):
    found = EXACT.posterior_mean(observation, 2, tolerance=1e-12)
    torch.testing.assert_close(found, POSTERIOR.expand(2, N), rtol=0, atol=1e-8)


def test_known_values_of_images_give_the_conditional_mean():
    law = GaussianDenoiser(MEAN.reshape(1, 3, 4), COVARIANCE, EDM(chart=Affine(2.0, -1.0)))
    x = torch.rand(1, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.arange(N).reshape(1, 3, 4) < 5
    known, y, noise = mask.flatten(), (2 * x - 1).flatten(), 2 * 0.05
    gain = COVARIANCE[:, known] @ torch.linalg.inv(COVARIANCE[known][:, known] + noise**2 * torch.eye(5).double())
    wanted = (MEAN + gain @ (y - MEAN)[known] + 1) / 2
    found = law.posterior_mean(Inpainting(x, mask, 0.05), 1, tolerance=1e-12)
    torch.testing.assert_close(found.flatten(), wanted, rtol=0, atol=1e-8)


def slope(x: torch.Tensor) -> torch.Tensor:
    r"""The gradient of the data term."""
    return (x @ MATRIX.T - Z) @ MATRIX / NOISE**2


@pytest.mark.parametrize("s", [0.3, 0.1, 0.03])
def test_red_stops_at_the_ridge_solution_for_the_noisy_covariance(s):
    prior, x = ScorePrior(EXACT, s), ridge(s)[None]
    assert float((slope(x) + prior.gradient(x)).abs().max()) < 1e-8
    torch.testing.assert_close(fixed_point(prior, OBSERVATION, x, steps=1), x, rtol=0, atol=1e-10)


def test_descent_and_fixed_point_reach_one_point():
    s = 1.0
    prior, x = ScorePrior(EXACT, s), MEAN[None]
    metric = torch.linalg.inv(MATRIX.T @ MATRIX / NOISE**2 + EYE / s**2)  # at least the curvature everywhere
    for _ in range(60):
        x = x - (slope(x) + prior.gradient(x)) @ metric
    torch.testing.assert_close(x[0], ridge(s), rtol=0, atol=1e-6)
    walked = fixed_point(prior, OBSERVATION, MEAN[None], steps=60)
    torch.testing.assert_close(walked[0], ridge(s), rtol=0, atol=1e-8)


def test_the_weight_of_the_prior_multiplies_its_precision():
    wanted = answer(2.5 * torch.linalg.inv(COVARIANCE + 0.09 * EYE))[None]
    for weighting, weight in ((None, 2.5), (DataWeighting(), 2.5 / 0.09)):
        prior = ScorePrior(EXACT, 0.3, weighting=weighting)
        found = fixed_point(prior, OBSERVATION, wanted, steps=1, weight=weight)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_annealing_reaches_the_posterior_mean_with_an_error_of_order_two():
    errors = {s: float((ridge(s) - POSTERIOR).norm()) for s in (0.1, 0.03, 0.01)}
    assert abs(errors[0.1] / errors[0.03] - 9) < 2
    assert errors[0.01] < 2e-3
    found = fixed_point(ScorePrior(EXACT, Annealed(0.3, 0.01)), OBSERVATION, MEAN[None], steps=300)[0]
    assert float((found - POSTERIOR).norm()) < 0.05 * float((ridge(0.3) - POSTERIOR).norm())


def test_the_mean_of_distillation_is_the_field_of_the_noisy_law():
    s, draws = 0.3, 100_000
    prior = ScorePrior(EXACT, s, weighting=DataWeighting(), draws=1)
    x = (MEAN + 0.5).expand(draws, N)
    found = prior.gradient(x, torch.Generator().manual_seed(0))
    wanted = s**2 * torch.linalg.solve(COVARIANCE + s**2 * EYE, x[0] - MEAN)
    assert bool(((found.mean(0) - wanted).abs() < 4.5 * found.std(0) / math.sqrt(draws)).all())
    smooth = s * EXACT.covariance @ torch.linalg.inv(COVARIANCE + s**2 * EYE)  # of eps in D(x + s eps)
    torch.testing.assert_close(found.std(0), (smooth**2).sum(1).sqrt(), rtol=0.02, atol=0)


def test_several_levels_are_averaged_with_their_weights():
    levels = (0.1, 0.5, 2.0)
    prior = ScorePrior(EXACT, levels)
    precision = sum(torch.linalg.inv(COVARIANCE + s**2 * EYE) for s in levels) / 3
    x = answer(precision)[None]
    torch.testing.assert_close(fixed_point(prior, OBSERVATION, x, steps=1), x, rtol=0, atol=1e-10)
    assert float((slope(x) + prior.gradient(x)).abs().max()) < 1e-8


def test_a_law_of_levels_is_drawn_for_each_sample():
    sde = EDM(0.1, 1.0)
    prior = ScorePrior(Independent(0.0, 1.0, sde), LogUniform(), draws=1, weighting=DataWeighting())
    x = torch.full((40_000, 1), 2.0, dtype=torch.float64)
    found = prior.gradient(x, torch.Generator().manual_seed(0))
    # E 2 s^2/(1 + s^2) of log s uniform on (log .1, 0)
    wanted = math.log((1 + 1) / (1 + 0.01)) / math.log(10)
    assert abs(float(found.mean()) - wanted) < 4.5 * float(found.std()) / 200


def test_the_loss_has_the_field_as_its_gradient_and_leaves_the_network_alone():
    network = Denoiser(MLP((N,), width=8, depth=1), EDM()).double()
    prior = ScorePrior(network, 0.5)
    x = torch.randn(3, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    loss = prior.loss(x)
    loss.backward()
    torch.testing.assert_close(x.grad, prior.gradient(x), rtol=0, atol=1e-12)
    assert loss.item() == pytest.approx(float(prior.gradient(x).square().sum()) / 2)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_with_the_weight_of_noise_the_field_is_the_score():
    u = torch.randn(4, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    (score,) = torch.autograd.grad(gaussian(MEAN, COVARIANCE).log_prob(u, 0.4).sum(), u)
    torch.testing.assert_close(ScorePrior(EXACT, 0.4).gradient(u), -score, rtol=0, atol=1e-10)


@pytest.mark.parametrize("chart", [Affine(2.0, -1.0), Log(0.25)], ids=["affine", "log"])
def test_the_field_is_in_the_units_of_the_data(chart):
    law = Independent(0.2, 0.3, EDM(chart=chart))
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).add(0.1).requires_grad_()
    y = chart.forward(x)
    (wanted,) = torch.autograd.grad(((y - 0.2) ** 2 / (2 * (0.3 + 0.04))).sum(), x)
    torch.testing.assert_close(ScorePrior(law, 0.2).gradient(x), wanted, rtol=0, atol=1e-10)
    denoised = chart.inverse(0.2 + 0.3 / 0.34 * (y.detach() - 0.2))
    torch.testing.assert_close(ScorePrior(law, 0.2).proximal_target(x.detach()), denoised, rtol=0, atol=1e-12)


def test_a_field_of_sizes_is_odd():
    prior = ScorePrior(Independent(0.5, 0.2), 0.3, transform=torch.abs)
    x = torch.tensor([[-0.7, 0.0, 0.4]], dtype=torch.float64)
    found = prior.gradient(x)
    torch.testing.assert_close(prior.gradient(-x), -found, rtol=0, atol=0)
    torch.testing.assert_close(found, x.sign() * (x.abs() - 0.5) / (0.2 + 0.09), rtol=0, atol=1e-12)


@pytest.mark.parametrize("variance", [0.01, 1.0], ids=["tight", "loose"])
def test_the_residual_is_large_where_the_prior_is_tight(variance):
    s, x = 0.5, torch.zeros(200, 50, dtype=torch.float64)
    found = ScorePrior(Independent(0.0, variance), s).residual(
        x, s, draws=2, generator=torch.Generator().manual_seed(0)
    )
    wanted = math.sqrt(2 / math.pi) * s**2 / (variance + s**2)
    assert float(found.mean()) == pytest.approx(wanted, rel=0.025)  # 4.6 standard errors


def test_masks_and_maps_are_functions_of_the_residual():
    s, d = 0.1, 2.0
    prior = ScorePrior(Independent(0.0, torch.tensor([1e-4, 1.0])), s)
    x = torch.tensor([[0.0, 0.0], [d, d]], dtype=torch.float64)
    mask, map_ = (f(prior, x, s, 1000, torch.Generator().manual_seed(0)) for f in (residual_mask, reliability))
    shrunk = s**2 / (torch.tensor([1e-4, 1.0]) + s**2)
    # at 0 E|u - D|/(2 s E|u|) is shrunk/(2 s), at d nearly so: u/E|u| has mean 1
    root = (shrunk / (2 * s)).sqrt()
    torch.testing.assert_close(mask[:, 0].float(), (root[0] - root[1]).expand(2), rtol=0.04, atol=0)  # 1 %: an error
    assert mask[:, 1].tolist() == [0.0, 0.0]
    assert map_[0].tolist() == pytest.approx([1.0, 1.0], abs=0.1)  # .99 of the noise is taken off: within 4 errors
    assert map_[1].tolist() == pytest.approx([math.sqrt(2 / math.pi) * s / (0.990099 * d), 1.0], rel=0.02)


def test_what_would_mean_nothing_is_refused():
    with pytest.raises(ValueError, match=r"draws must be >= 1 for a law of levels"):
        ScorePrior(EXACT, LogUniform())
    with pytest.raises(ValueError, match=r"levels must lie between noise_ratio\(0\)=0.001"):
        ScorePrior(EXACT, 1e-4)
    with pytest.raises(ValueError, match=r"levels must name a noise ratio"):
        ScorePrior(EXACT, [])
    with pytest.raises(ValueError, match=r"high must be >= 0.5, got high=0.1"):
        Annealed(0.1, 0.5)
    with pytest.raises(ValueError, match=r"name the step, prior.at"):
        ScorePrior(EXACT, Annealed(0.5, 0.1)).gradient(MEAN[None])
    with pytest.raises(ValueError, match=r"transform must be None"):
        fixed_point(ScorePrior(EXACT, 0.1, transform=torch.abs), OBSERVATION, MEAN[None])
    with pytest.raises(ValueError, match=r"levels must be numbers or Annealed for fixed_point"):
        fixed_point(ScorePrior(EXACT, LogUniform(), draws=1), OBSERVATION, MEAN[None])
    with pytest.raises(ValueError, match=r"weighting must be > 0 and finite, got nan of EDMWeighting"):
        ScorePrior(Independent(0.0, 1.0), 0.1, weighting=EDMWeighting()).gradient(MEAN[None])
    with pytest.raises(ValueError, match=r"observation must have noise > 0"):
        EXACT.posterior_mean(MatrixObservation(Z, MATRIX), 1)
    with pytest.raises(ValueError, match=r"covariance must be \(12, 12\)"):
        GaussianDenoiser(MEAN, COVARIANCE[:3, :3], EDM())
    with pytest.raises(ValueError, match=r"no negative eigenvalues"):
        GaussianDenoiser(MEAN, -COVARIANCE, EDM())
    with pytest.raises(ValueError, match=r"must be symmetric"):
        GaussianDenoiser(MEAN, COVARIANCE + EYE.roll(1, 0), EDM())


def test_a_start_far_from_the_data_is_told():
    with pytest.warns(UserWarning, match=r"times as far from D as noise of the first level"):
        fixed_point(ScorePrior(EXACT, 0.1), OBSERVATION, MEAN[None] + 10, steps=1)
