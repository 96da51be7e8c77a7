r"""Inverse problems against posteriors in closed form."""

import math

import numpy as np
import pytest
import torch
from oracles import gaussian, standard_mixture

from scoregen.models import (
    ClassifierFreeGuidance,
    Inpainting,
    LinearObservation,
    MatrixObservation,
    PiGDM,
    Replacement,
)
from scoregen.models.observation import conjugate_gradients
from scoregen.samplers import RK4, Ancestral, Heun, log_likelihood
from scoregen.sde import EDM, Affine, Cosine, GeometricBrownianMotion

SD, D, NOISE = 0.6, 4, 0.05
MEAN = torch.tensor([0.3, -0.2, 0.1, 0.5]).double()
MATRIX = torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.5, 0.0, 1.0, 1.0]]).double()
MASK = torch.tensor([True, False, True, False])


def posterior_mean(u: torch.Tensor, s: float, operator: torch.Tensor, z: torch.Tensor, noise: float) -> torch.Tensor:
    r"""E[y_0 | u, z] for y_0 ~ N(MEAN, SD^2 I), z = operator y_0 + noise, by precisions."""
    eye = torch.eye(D).double()
    precision = eye / SD**2 + eye / s**2 + operator.T @ operator / noise**2
    information = MEAN / SD**2 + u / s**2 + z @ operator / noise**2
    return torch.linalg.solve(precision, information.T).T


def normal(sde):
    return gaussian(MEAN, SD**2 * torch.eye(D).double(), sde)


@pytest.fixture
def state() -> torch.Tensor:
    return torch.randn(5, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


CHARTS = pytest.mark.parametrize("chart", [Affine(), Affine(2.0, -1.0)], ids=["identity", "affine"])
LEVELS = pytest.mark.parametrize("s", [0.05, 0.7, 20.0])


@CHARTS
@LEVELS
def test_inpainting_of_normal_data_is_the_posterior_mean(state, chart, s):
    x = torch.linspace(0.1, 0.9, D).double()
    guided = PiGDM(normal(EDM(chart=chart)), Inpainting(x, MASK, NOISE), SD)
    exact = posterior_mean(state, s, torch.eye(D).double()[MASK], chart.forward(x)[MASK], NOISE * chart.scale)
    torch.testing.assert_close(guided(state, s), exact)


@CHARTS
@LEVELS
def test_a_matrix_observation_of_normal_data_is_the_posterior_mean(state, chart, s):
    z = torch.tensor([0.4, 1.1]).double()
    guided = PiGDM(normal(EDM(chart=chart)), MatrixObservation(z, MATRIX, NOISE), SD)
    # z = A x and y = scale x + shift: A/scale acts on y, and z + A 1 shift/scale is what it observes
    shifted = z + MATRIX.sum(1) * chart.shift / chart.scale
    exact = posterior_mean(state, s, MATRIX / chart.scale, shifted, NOISE)
    torch.testing.assert_close(guided(state, s), exact)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_conjugate_gradients_agree_with_the_matrix(state, noise):
    z = torch.tensor([0.4, 1.1]).double()
    denoiser = standard_like()
    explicit = PiGDM(denoiser, MatrixObservation(z, MATRIX, noise), SD)(state, 0.4)
    if noise:
        functions = LinearObservation(z[None], lambda x: x @ MATRIX.T, lambda z: z @ MATRIX, noise, tolerance=1e-12)
        torch.testing.assert_close(PiGDM(denoiser, functions, SD)(state, 0.4), explicit)
    else:
        mask = MatrixObservation(MEAN[MASK], torch.eye(D).double()[MASK])
        same = Inpainting(MEAN, MASK)
        torch.testing.assert_close(PiGDM(denoiser, mask, SD)(state, 0.4), PiGDM(denoiser, same, SD)(state, 0.4))


def standard_like():
    r"""Correlated normal data in four dimensions, for which Pi-GDM is an approximation."""
    root = torch.randn(D, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return gaussian(MEAN, root @ root.T / D + 0.1 * torch.eye(D).double(), EDM())


def test_an_image_operator_runs_on_image_shapes():
    # mean pooling of 4x4 images; its adjoint spreads; the same as the explicit matrix
    pool = lambda x: torch.nn.functional.avg_pool2d(x, 2)  # noqa: E731
    spread = lambda z: torch.nn.functional.interpolate(z, scale_factor=2) / 4  # noqa: E731
    basis = torch.eye(16).double().reshape(16, 1, 4, 4)
    matrix = pool(basis).reshape(16, 4).T
    u = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    class Shrink:
        sde = EDM(chart=Affine(2.0, -1.0))

        def __call__(self, u, s, label=None):
            return u / (1 + s**2)

    functions = PiGDM(Shrink(), LinearObservation(z, pool, spread, 0.1, tolerance=1e-10), 1.0)(u, 0.5)
    explicit = PiGDM(Shrink(), MatrixObservation(z.flatten(1), matrix, 0.1), 1.0)(u, 0.5)
    torch.testing.assert_close(functions, explicit)


def test_conjugate_gradients_solve_a_system_of_each_sample():
    root = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = root @ root.T + torch.eye(6).double()
    target = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    target[2] = 0
    solution = conjugate_gradients(lambda z: z @ matrix, target, tolerance=1e-12)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, target.T).T)


def test_inpainting_on_a_log_chart_observes_log_values():
    sde = GeometricBrownianMotion(volatility=3.0, offset=0.1)
    x = torch.tensor([1.2, -7.0, 0.8, float("nan")]).double()  # what stands at unknown places is ignored
    u = torch.randn(5, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    guided = PiGDM(normal(sde), Inpainting(x, MASK, NOISE), SD)(u, 0.7)
    known = (x + 0.1)[MASK]
    # noise to first order: d log(x + c) = dx / (x + c)
    operator = torch.eye(D).double()[MASK] * (known / NOISE)[:, None]
    exact = posterior_mean(u, 0.7, operator, known.log() * known / NOISE, 1.0)
    torch.testing.assert_close(guided, exact)


def posterior_of_x2(z: float, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Weights, means and variances of x2 given x1 + noise = z under the standard mixture."""
    mixture = standard_mixture()
    total = mixture.covariances[:, 0, 0] + noise**2
    log_weights = mixture.weights.log() - total.log() / 2 - (z - mixture.means[:, 0]) ** 2 / total / 2
    gain = mixture.covariances[:, 1, 0] / total
    means = mixture.means[:, 1] + gain * (z - mixture.means[:, 0])
    return log_weights.softmax(0), means, mixture.covariances[:, 1, 1] - gain * mixture.covariances[:, 1, 0]


def distance_to_posterior(samples: torch.Tensor, z: float, noise: float) -> float:
    r"""W1 between draws of x2 and its exact posterior, by quantiles."""
    from scipy.stats import norm

    weights, means, variances = (v.numpy() for v in posterior_of_x2(z, noise))
    grid = np.linspace(-3, 3, 6001)
    exact = (weights * norm.cdf(grid[:, None], means, np.sqrt(variances))).sum(1)
    empirical = np.searchsorted(np.sort(samples.numpy()), grid, side="right") / len(samples)
    return float(np.abs(exact - empirical).sum() * (grid[1] - grid[0]))


def test_the_posterior_oracle():
    weights, means, variances = posterior_of_x2(0.7, 0.02)
    mean = (weights * means).sum()
    assert mean.item() == pytest.approx(0.170, abs=5e-4)
    assert (weights * (variances + means**2)).sum().sub(mean**2).sqrt().item() == pytest.approx(0.727, abs=5e-4)


def samples_of_x2(wrapper, sampler) -> torch.Tensor:
    start = 80 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = sampler(wrapper, start=(start, 1.0), generator=torch.Generator().manual_seed(2))
    assert (x[:, 0] - 0.7).abs().mean() < 0.03
    return x[:, 1]


def test_pi_gdm_samples_the_posterior_and_replacement_does_not():
    mixture = standard_mixture()
    observation = Inpainting(torch.tensor([[0.7, 0.0]]).double(), torch.tensor([True, False]), 0.02)
    guided = samples_of_x2(PiGDM(mixture, observation, 0.5), Ancestral(64))
    # .015 in the reference; the floor of 4000 draws is .01
    assert distance_to_posterior(guided, 0.7, 0.02) < 0.03
    replaced = samples_of_x2(Replacement(mixture, observation), Ancestral(64))
    assert 0.15 < distance_to_posterior(replaced, 0.7, 0.02) < 0.3


def test_replacement_keeps_known_values_and_the_rest_of_the_denoiser(state):
    denoiser = standard_like()
    x = torch.linspace(0.1, 0.9, D).double()
    replaced = Replacement(denoiser, Inpainting(x, MASK))(state, 0.5)
    torch.testing.assert_close(replaced, torch.where(MASK, x, denoiser(state, 0.5)))


def test_guided_denoisers_have_exact_likelihoods(state):
    # differentiating through the backward pass: the posterior of one normal value given another is normal
    sde, noise = EDM(0.01, 50.0), 0.2
    prior = gaussian(torch.zeros(2).double(), SD**2 * torch.eye(2).double(), sde)
    guided = PiGDM(prior, Inpainting(torch.tensor([0.5, 0.0]).double(), torch.tensor([True, False]), noise), SD)
    gain = SD**2 / (SD**2 + noise**2)
    mean, variance = torch.tensor([0.5 * gain, 0.0]).double(), torch.tensor([SD**2 * (1 - gain), SD**2]).double()
    sde.with_moments(mean, variance)
    exact = gaussian(mean, torch.diag(variance)).log_prob(state[:, :2], 0.01)
    result = log_likelihood(guided, state[:, :2], solver=RK4(128))
    torch.testing.assert_close(result.log_prob, exact, atol=1e-4, rtol=1e-4)


def test_pi_gdm_runs_without_gradients_and_in_inference_mode(state):
    guided = PiGDM(normal(EDM()), Inpainting(MEAN, MASK, NOISE), SD)
    plain = guided(state, 0.5)
    with torch.inference_mode():
        assert torch.equal(guided(state, 0.5), plain)
    assert not plain.requires_grad
    with torch.no_grad():
        assert Heun(4)(guided, start=(state, 0.5)).shape == state.shape


def test_bad_arguments_are_refused(state):
    observation = Inpainting(MEAN, MASK)
    with pytest.raises(ValueError, match="sigma_data must be > 0, got sigma_data=None"):
        PiGDM(ClassifierFreeGuidance(normal(EDM()), 2.0), observation)
    with pytest.raises(ValueError, match="noise must be >= 0"):
        Inpainting(MEAN, MASK, -1.0)
    with pytest.raises(ValueError, match=r"mask of shape \(3,\) and x of shape \(4,\)"):
        Inpainting(MEAN, MASK[:3])
    with pytest.raises(ValueError, match=r"matrix must be \(M, D\)"):
        MatrixObservation(MEAN, MATRIX)
    with pytest.raises(ValueError, match="noise must be > 0 for conjugate gradients"):
        LinearObservation(MEAN, torch.abs, torch.abs, 0.0)
    with pytest.raises(TypeError, match="Replacement needs an Inpainting"):
        Replacement(normal(EDM()), MatrixObservation(MEAN[:2], MATRIX))
    with pytest.raises(TypeError, match="MatrixObservation needs an affine chart"):
        PiGDM(normal(GeometricBrownianMotion()), MatrixObservation(MEAN[:2], MATRIX), SD)(state, 0.5)
    for one in (Inpainting(state[:3], MASK), MatrixObservation(state[:3, :2], MATRIX, 0.1)):
        with pytest.raises(ValueError, match="of 1 or 5 samples, the batch of the denoiser, got 3"):
            PiGDM(normal(EDM()), one, SD)(state, 0.5)
    with pytest.raises(ValueError, match="s must be the same for the whole batch"):
        PiGDM(normal(Cosine()), observation, SD)(state, torch.linspace(0.1, 0.5, 5))
    assert math.isclose(PiGDM(normal(EDM()), observation, 0.25).sigma_data, 0.25)


def test_dependent_rows_without_noise_are_refused():
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    with pytest.raises(ValueError, match="matrix must have independent rows where noise is 0"):
        MatrixObservation(torch.zeros(1, 2), rows)
    assert MatrixObservation(torch.zeros(1, 2), rows, noise=0.1)
