r"""Smoothness penalties: estimators against Jacobians, gradients against differences, the running mean, processes."""

import math

import pytest
import torch
from oracles import Independent
from smooth import LEVELS, QUANTILE, B, D, aimed, data, denoiser, draws, jacobians, witnessed

from scoregen.losses import (
    VJP,
    DenoisingScoreMatching,
    FiniteDifference,
    JacobianPenalty,
    StepwiseVariation,
)
from scoregen.rng import randn
from scoregen.sde import EDM, VE, VP, Cosine, GeometricBrownianMotion, GeometricOU, Multiplicative, RectifiedFlow, SubVP
from scoregen.sde.path import expand

PROCESSES = {
    "vp": VP(),
    "subvp": SubVP(),
    "ve": VE(0.01, 50.0),
    "edm": EDM(),
    "cosine": Cosine(),
    "rectified flow": RectifiedFlow(),
    "gbm": GeometricBrownianMotion(0.8, offset=1.0, data_range=(0.0, 1.0)),
    "gbm with drift": GeometricBrownianMotion(0.8, 0.9, offset=1.0, data_range=(0.0, 1.0)),
    "geometric ou": GeometricOU(offset=1.0, mean=0.3, data_range=(0.0, 1.0)),
    "multiplicative": Multiplicative(EDM(), offset=1.0, data_range=(0.0, 1.0)),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_estimators_are_the_jacobian(name):
    r"""Reverse mode to rounding, differences of h = 1e-6 to O(h) and rounding / h."""
    model = denoiser(PROCESSES[name])
    witness, found, v = witnessed(model, VJP())
    jacobian = jacobians(model, witness.u, witness.s)
    expected = torch.einsum("bij,bi->bj", jacobian, v).norm(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    _, found, v = witnessed(model, FiniteDifference(1e-6))
    expected = torch.einsum("bij,bj->bi", jacobian, v).norm(dim=1)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=0)


@pytest.mark.parametrize("name", ["vp", "edm", "gbm"])
def test_the_error_of_the_difference_falls_with_its_step(name):
    r"""O(h): the order in the mean over samples, from h = .004 to .001."""
    model = denoiser(PROCESSES[name])
    witness, _, v = witnessed(model, VJP())
    expected = torch.einsum("bij,bj->bi", jacobians(model, witness.u, witness.s), v).norm(dim=1).detach()
    errors = [(witnessed(model, FiniteDifference(h))[1].detach() / expected - 1).abs().mean() for h in (0.004, 0.001)]
    assert math.log(errors[0] / errors[1], 4) == pytest.approx(1, abs=0.1)
    assert errors[1] < 2e-3


@pytest.mark.parametrize("name", ["gbm", "gbm with drift", "geometric ou", "multiplicative"])
def test_log_space_jacobian_is_that_of_data_space_by_the_chain_rule(name):
    r"""x_0 = psi(D), x_t = psi(y_t): d x_0/d x_t = psi'(D) alpha^-1 J_u / psi'(y_t)."""
    sde = PROCESSES[name]
    model = denoiser(sde)
    t, s = torch.tensor(0.4, dtype=torch.float64), sde.noise_ratio(0.4)
    x_t = sde.perturb(data(1), t, randn((1, D), draws(1), torch.float64))

    def denoised(x):
        return sde.from_chart(model.denoised(x[None], t)[0])[0]

    found = torch.func.jacrev(denoised)(x_t[0])
    u, _ = sde.to_u(x_t, t)
    in_u = torch.func.jacrev(lambda point: model(point[None], s)[0])(u[0])
    outer = sde.chart.inverse_derivatives(model(u, s))[0][0]
    inner = sde.chart.inverse_derivatives(sde.to_chart(x_t))[0][0]
    torch.testing.assert_close(found, outer[:, None] * in_u / sde.alpha(t) / inner[None, :], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weight", ["paper", "eq8", "latent"])
@pytest.mark.parametrize("name", ["vp", "edm", "geometric ou"])
def test_the_loss_is_the_formula_written_out(name, weight):
    r"""base + lambda (w |J_x^T v| - a)^2 with J_x = J_u/alpha; the first step has no a and no penalty, and gives it."""
    sde = PROCESSES[name]
    model = denoiser(sde)
    base = DenoisingScoreMatching(LEVELS)
    loss = StepwiseVariation(base, weight, "global", "vjp", strength=0.3)
    loss.at(0, 2)
    first = loss(model, data(), None, draws(), QUANTILE)
    loss.at(1, 2)
    found = loss(model, data(), None, draws(), QUANTILE)
    g = draws()
    expected = base(model, data(), None, g, QUANTILE)
    v = randn((B, D), g, torch.float64) / math.sqrt(D)
    y, s = sde.to_chart(data()), LEVELS(sde, QUANTILE)
    u = y + expand(s, y) * randn((B, D), draws(), torch.float64)
    t = sde.time_of(s)
    w = {"paper": sde.sigma(t) ** 2, "eq8": torch.ones(B).double(), "latent": sde.alpha(t)}[weight]
    q = w * torch.einsum("bij,bi->bj", jacobians(model, u, s) / sde.alpha(t)[:, None, None], v).norm(dim=1)
    torch.testing.assert_close(first, expected, rtol=0, atol=0)
    torch.testing.assert_close(loss.a, q.mean()[None].float())
    torch.testing.assert_close(found, expected + 0.3 * (q - q.mean()) ** 2, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("estimator", "tolerance"), [("vjp", 1e-6), ("finite_difference", 1e-6)])
@pytest.mark.parametrize("kind", [StepwiseVariation, JacobianPenalty])
def test_parameter_gradient_through_layer_normalisation(estimator, tolerance, kind):
    r"""Against central differences of the loss, O(h^2) with h = 1e-5; a is fixed before."""
    model, loss = denoiser(), kind(DenoisingScoreMatching(LEVELS), estimator=estimator, strength=2.0)
    if kind is StepwiseVariation:
        aimed(loss)

    def value():
        loss.step = 0
        return loss(model, data(), None, draws(), QUANTILE).sum()

    value().backward()
    parameters = [p for p in model.parameters() if p.grad is not None]
    torch.manual_seed(1)
    directions = [torch.randn_like(p) for p in parameters]
    slope = sum((p.grad * d).sum() for p, d in zip(parameters, directions, strict=True))
    values = []
    for h in (1e-5, -2e-5):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p += h * d
        values.append(value().detach())
    assert float(slope) == pytest.approx(float((values[0] - values[1]) / 2e-5), rel=tolerance)


@pytest.mark.parametrize("name", ["vp", "ve", "gbm", "geometric ou"])
def test_normal_data_have_kappa(name):
    r"""Isotropic normal data of deviation sd: D is linear, both estimators give |v| kappa in x coordinates."""
    sde, sd = PROCESSES[name], 0.7
    oracle = Independent(0.2, sd**2, sde)
    oracle.num_classes, oracle.sigma_data = None, sd
    for estimator in (VJP(), FiniteDifference()):
        witness, found, v = witnessed(oracle, estimator)
        t = sde.time_of(witness.s)
        kappa = sde.alpha(t) * sd**2 / (sde.alpha(t) ** 2 * sd**2 + sde.sigma(t) ** 2)
        torch.testing.assert_close(found.detach(), sde.alpha(t) * kappa * v.norm(dim=1), rtol=1e-5, atol=0)
        loss = JacobianPenalty(DenoisingScoreMatching(LEVELS), 0.5, estimator)
        g = draws()
        base = DenoisingScoreMatching(LEVELS)(oracle, data(), None, g, QUANTILE)
        v = randn((B, D), g, torch.float64) / math.sqrt(D)
        penalty = loss(oracle, data(), None, draws(), QUANTILE) - base
        torch.testing.assert_close(penalty, 0.5 * v.square().sum(1), rtol=1e-5, atol=1e-9)


def test_a_shift_changes_nothing():
    plain, moved = PROCESSES["gbm"], PROCESSES["gbm with drift"]
    assert float(moved.shift(0.5)) != float(plain.shift(0.5))
    values = []
    for sde in (plain, moved):
        loss = aimed(StepwiseVariation(DenoisingScoreMatching(LEVELS), "eq8"))
        values.append(loss(denoiser(sde), data(), None, draws(), QUANTILE))
    torch.testing.assert_close(*values, rtol=1e-9, atol=0)
