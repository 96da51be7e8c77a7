r"""Learned uncertainty and adaptive levels against closed forms for a normal law."""

import math

import numpy as np
import pytest
import torch
from runs import assert_same_run
from tiny import TOY, train, weights

from scoregen.errors import UserError
from scoregen.losses import DataWeighting, DenoisingScoreMatching, LogNormal
from scoregen.losses.adaptive_levels import LEAST, MOST, AdaptiveLevels
from scoregen.losses.uncertainty import Uncertainty
from scoregen.sde import EDM
from scoregen.training import ExponentiatedGradient, Trainer

VAR, SD = 0.4, 0.6


class Gain(torch.nn.Module):
    r"""D = gain(s) u on normal data of mean 0; at shrink 1 the exact one, VAR/(VAR + s^2)."""

    num_classes, sigma_data, sde = None, SD, EDM()

    def __init__(self, shrink: float) -> None:
        super().__init__()
        self.shrink = torch.nn.Parameter(torch.tensor(shrink, dtype=torch.float64))

    def forward(self, u, s, label=None):
        return self.shrink * (VAR / (VAR + s**2))[:, None] * u


def weight(s):
    return (s**2 + SD**2) / (s * SD) ** 2


def test_uncertainty_is_zero_at_the_start_and_fits_the_logarithm_of_the_loss():
    r"""E w |D - y|^2 = w v s^2/(v + s^2); least squares in u stands for the minimum of E e^{-u} + u, whose zero of the
    derivative is u = log E."""
    u, s = Uncertainty(), torch.logspace(-2, 1.2, 100, dtype=torch.float64)
    assert not u(s).any()
    exact = weight(s) * VAR * s**2 / (VAR + s**2)
    optimizer = torch.optim.LBFGS(u.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = (exact * (-u(s)).exp() + u(s)).mean()
        value.backward()
        return value

    optimizer.step(closure)
    torch.testing.assert_close(u(s).double(), exact.log(), rtol=0, atol=0.02)


def test_features_of_the_uncertainty_are_those_of_a_gaussian_kernel():
    r"""Random Fourier features cos(2 pi (f x + phi)) sqrt(2/n), f ~ N(0, 1), x = log(s)/4: their products are
    exp(-(2 pi (x - x'))^2/2). Here f are quantiles and phi equidistributed."""
    u, s = Uncertainty(512), torch.logspace(-1.5, 1.5, 7, dtype=torch.float64)
    features = torch.stack([torch.autograd.grad(u(one[None]).sum(), u.weight)[0] for one in s])
    x = s.log().float() / 4
    wanted = torch.exp(-((2 * math.pi * (x[:, None] - x)) ** 2) / 2)
    torch.testing.assert_close(features @ features.T, wanted, rtol=0, atol=0.05)


def test_the_loss_with_uncertainty_is_the_weighted_error_over_e_to_u_plus_u():
    plain, learned = DenoisingScoreMatching(label_dropout=0.0), DenoisingScoreMatching(None, None, 0.0, True)
    with torch.no_grad():
        learned.learned.weight.normal_(generator=torch.Generator().manual_seed(0))
    x, q = torch.randn(6, 1, dtype=torch.float64), torch.arange(6, dtype=torch.float64) / 6
    draws = [torch.Generator().manual_seed(1) for _ in range(3)]
    value, found = plain(Gain(0.8), x, generator=draws[0], quantile=q), learned(Gain(0.8), x, None, draws[1], q)
    u = learned.learned(LogNormal()(EDM(), q))
    torch.testing.assert_close(found, value * (-u).exp() + u)
    with torch.no_grad():  # held-out losses are those of the weighting
        assert torch.equal(learned(Gain(0.8), x, None, draws[2], q), value)


class Output(torch.nn.Module):
    r"""D = c_skip u + c_out F with an F that is known."""

    num_classes, sigma_data, sde = None, SD, EDM()

    def __init__(self, n) -> None:
        super().__init__()
        self.output = torch.linspace(-1, 2, n, dtype=torch.float64)[:, None].requires_grad_()

    def forward(self, u, s, label=None):
        square = (s**2 + SD**2)[:, None]
        return SD**2 / square * u + (s * SD)[:, None] / square.sqrt() * self.output


@pytest.mark.parametrize("uncertainty", [False, True])
def test_recorded_squares_are_those_of_the_gradient_in_the_networks_output(uncertainty, monkeypatch):
    r"""g = dL/dF by autograd, the loss of a sample without its share; |g|^2/4 for one element."""
    loss, seen = DenoisingScoreMatching(None, DataWeighting(), 0.0, uncertainty, "adaptive"), []
    if uncertainty:
        with torch.no_grad():
            loss.learned.weight.normal_(generator=torch.Generator().manual_seed(0))
    loss.adaptive.density = torch.tensor([0.5, 2.0, 1.0, 0.5]).repeat_interleave(8)
    monkeypatch.setattr(AdaptiveLevels, "record", lambda _, quantile, square: seen.append((quantile, square)))
    x, q, model = torch.randn(6, 1, dtype=torch.float64), (torch.arange(6) + 0.5).double() / 6, Output(6)
    value = loss(model, x, generator=torch.Generator().manual_seed(1), quantile=q)
    (slope,) = torch.autograd.grad(value.sum(), model.output)
    ((base, square),) = seen
    share = loss.adaptive(q)[1]
    torch.testing.assert_close(square.double(), (slope[:, 0] / share).square() / 4, rtol=1e-5, atol=0)
    torch.testing.assert_close(base, loss.adaptive(q)[0])
    fixed = DenoisingScoreMatching(None, DataWeighting(), 0.0, uncertainty)
    if uncertainty:
        fixed.learned = loss.learned
    plain = fixed(model, x, generator=torch.Generator().manual_seed(1), quantile=base)
    torch.testing.assert_close(value, share * plain)
    with torch.no_grad():  # held-out losses are of the base law
        held = [one(model, x, generator=torch.Generator().manual_seed(1), quantile=q) for one in (loss, fixed)]
    assert torch.equal(*held) and len(seen) == 1


def test_older_steps_count_less_and_each_step_once():
    levels = AdaptiveLevels(bins=2, rate=0.25)
    for square in (1.0, 3.0):
        for _ in range(2):  # micro-batches
            levels.record(torch.tensor([0.1]), torch.tensor([square]))
        levels.at(1)
    assert levels.sums[:, 0].tolist() == pytest.approx([0.75 * 0.25 * 2 + 0.25 * 6, 0.75 * 0.25 * 2 + 0.25 * 2])
    assert not levels.pending.any()


def changed(density) -> AdaptiveLevels:
    levels = AdaptiveLevels(bins=len(density))
    levels.density = torch.tensor(density, dtype=torch.float32)
    return levels


def test_the_expected_gradient_is_that_of_the_base_law():
    r"""Gauss-Legendre quadrature in each bin of the new law against that of the base law."""
    levels = changed([0.25, 1.3, 4.0, 0.7])
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(40))
    density = levels.density.double() / levels.density.double().mean()
    ends = torch.cat([torch.zeros(1, dtype=torch.float64), density.cumsum(0) / 4])
    even = torch.arange(5, dtype=torch.float64) / 4

    def integral(ends, law):
        low, width = ends[:-1, None], ends.diff()[:, None]
        q = (low + width * (nodes + 1) / 2).flatten()
        base, share = law(q)
        gain = Gain(0.8)
        s = LogNormal()(EDM(), base)
        # E over data and noise of d/d shrink of w |shrink k u - y|^2, k = v/(v + s^2)
        k = VAR / (VAR + s**2)
        gradient = 2 * weight(s) * (gain.shrink.item() * k**2 * (VAR + s**2) - k * VAR)
        return (share * gradient * (width * weights / 2).flatten()).sum()

    base = integral(even, lambda q: (q, torch.ones_like(q)))
    assert integral(ends, levels).item() == pytest.approx(base.item(), rel=1e-10)


def test_the_law_follows_the_root_of_the_second_moment_and_keeps_its_bounds():
    levels = AdaptiveLevels(bins=4, every=1, rate=1.0)
    q = torch.tensor([0.1, 0.3, 0.6, 0.8])
    levels.record(q, torch.tensor([1.0, 4.0, 9.0, 16.0]))
    levels.at(1)
    torch.testing.assert_close(levels.density, torch.tensor([0.4, 0.8, 1.2, 1.6]))
    levels.record(q, torch.tensor([1e-9, 1.0, 1.0, math.inf]))
    levels.at(2)
    assert levels.density[0].item() == pytest.approx(LEAST, rel=1e-5)
    assert levels.density.mean().item() == pytest.approx(1, rel=1e-6)
    many = AdaptiveLevels(bins=32, every=1, rate=1.0)
    many.record((torch.arange(32) + 0.5) / 32, torch.cat([torch.full((2,), 1e6), torch.ones(30)]))
    many.at(1)
    assert many.density.max().item() == pytest.approx(MOST, rel=1e-5)
    assert many.density.mean().item() == pytest.approx(1, rel=1e-6)


def test_the_law_changes_at_every_sixteenth_step_alone():
    levels = AdaptiveLevels()
    assert torch.equal(levels(torch.arange(8) / 8)[0], torch.arange(8) / 8)
    levels.record(torch.arange(64) / 64, torch.arange(64).float())
    levels.at(15)
    assert (levels.density == 1).all()
    levels.at(16)
    assert levels.density[0] < 1 < levels.density[-1]


def test_stratified_quantiles_stay_one_in_each_stratum():
    levels = changed([0.5, 2.0, 1.0, 0.5])
    base, share = levels((torch.arange(400, dtype=torch.float64) + 0.5) / 400)
    assert (base.diff() > 0).all()
    assert torch.bincount((base * 4).long()).tolist() == [50, 200, 100, 50]
    torch.testing.assert_close(share.mean(), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("options", [{"uncertainty": True}, {"levels": "adaptive"}], ids=["uncertainty", "adaptive"])
def test_the_minimiser_stays_the_posterior_mean(options):
    r"""The gradient at the exact D is 0 in expectation: within 5 standard errors (false alarm 6e-7)."""
    loss = DenoisingScoreMatching(None, None, 0.0, **options)
    if loss.learned is not None:
        with torch.no_grad():
            loss.learned.weight.normal_(generator=torch.Generator().manual_seed(0))
    else:
        loss.adaptive = changed([0.25, 0.5, 1.25, 2.0])
    generator, gradients = torch.Generator().manual_seed(0), []
    for shrink in (1.0, 0.9):
        model, x = Gain(shrink), math.sqrt(VAR) * torch.randn(20_000, 1, dtype=torch.float64, generator=generator)
        parts = loss(model, x, generator=generator).reshape(-1, 100).mean(0)
        found = torch.stack(
            [torch.autograd.grad(p, model.shrink, retain_graph=True)[0] for p in parts]
        )  # each over all levels
        gradients.append((found.mean() / found.std() * 10).item())
    assert abs(gradients[0]) < 5 < abs(gradients[1])


CHOICES = ["loss.uncertainty=true", "loss.levels=adaptive", "trainer.steps=36", "trainer.checkpoint_every=9"]


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    whole = train(tmp_path / "whole", *TOY, *CHOICES)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", *TOY, *CHOICES, preview={"_target_": "tiny.Kill", "every": 20})
    assert_same_run(whole, train(tmp_path / "killed", *TOY, *CHOICES, "trainer.resume=auto"))
    state = weights(whole)
    assert state["loss.learned.weight"].any() and (state["loss.adaptive.density"] != 1).any()


def test_micro_batches_are_one_step(tmp_path):
    whole, cut = (train(tmp_path / n, *TOY, *CHOICES, f"trainer.accumulate={n}") for n in ("1", "4"))
    a, b = weights(whole), weights(cut)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)


def test_multiplicative_steps_are_refused_for_a_weight_that_starts_at_zero():
    loss = DenoisingScoreMatching(uncertainty=True)
    with pytest.raises(
        UserError, match=r"loss\.uncertainty: must be false with trainer.optimizer ExponentiatedGradient"
    ):
        Trainer(1, optimizer=ExponentiatedGradient).make_optimizer(torch.nn.Linear(2, 2), loss)
