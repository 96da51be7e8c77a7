r"""Exponentiated gradient descent: mirror descent for the entropy, signs, and descent."""

import math
import re
from pathlib import Path

import pytest
import torch

from scoregen.config import build
from scoregen.samplers import dale_langevin_step
from scoregen.training import ExponentiatedGradient

X = torch.tensor([0.01, 0.5, 1.0, 7.0, -0.2, -3.0], dtype=torch.float64)
GRADIENT = torch.tensor([3.0, -2.0, 0.0, 0.4, 5.0, -1.0], dtype=torch.float64)


def stepped(x, gradient, lr):
    x = x.clone().requires_grad_()
    x.grad = gradient.clone()
    ExponentiatedGradient([x], lr).step()
    return x.detach()


def test_a_step_is_the_mirror_step_of_the_entropy():
    # the mirror step solves grad phi(z) = grad phi(x) - lr g with phi = sum x log x - x, by automatic differentiation
    lr = 0.3
    x, gradient = X[:4], GRADIENT[:4]

    def mirror(z):
        z = z.detach().requires_grad_()
        (dual,) = torch.autograd.grad((z * z.log() - z).sum(), z)
        return dual

    torch.testing.assert_close(mirror(stepped(x, gradient, lr)), mirror(x) - lr * gradient)


def test_a_step_minimises_the_linearised_loss_plus_the_bregman_divergence():
    lr = 0.3
    x, gradient = X[:4], GRADIENT[:4]

    def objective(z):
        return (lr * gradient * z + z * (z / x).log() - z + x).sum()

    z = stepped(x, gradient, lr)
    best = objective(z)
    for i in range(4):
        for factor in (0.99, 1.01):
            other = z.clone()
            other[i] *= factor
            # exactly z (f log f - f + 1) above the minimum
            excess = z[i] * (factor * math.log(factor) - factor + 1)
            assert (objective(other) - best).item() == pytest.approx(excess.item(), rel=1e-8)


def test_signs_are_kept_at_any_rate_and_mirrored_parameters_move_alike():
    for lr in (0.01, 1.0, 50.0):
        assert stepped(X, GRADIENT, lr).sign().tolist() == X.sign().tolist()
    torch.testing.assert_close(stepped(-X, -GRADIENT, 0.3), -stepped(X, GRADIENT, 0.3))
    assert stepped(torch.zeros(1), torch.ones(1), 1.0).item() == 0


def test_it_descends_for_both_signs():
    # d f = -lr sum |x| grad^2 to first order
    lr, target = 1e-6, torch.linspace(-1, 1, 6, dtype=torch.float64)
    x = X.clone().requires_grad_()
    optimizer = ExponentiatedGradient([x], lr)

    def loss():
        optimizer.zero_grad()
        value = ((x - target) ** 2).sum()
        value.backward()
        return value

    before = optimizer.step(loss).item()
    after = ((x - target) ** 2).sum().item()
    slope = (X.abs() * (2 * (X - target)) ** 2).sum().item()
    assert (after - before) / lr == pytest.approx(-slope, rel=1e-4)


def test_it_is_a_dale_langevin_step_without_noise():
    # X exp(dv (1 + h)): dv is the rate and -(1 + h) the gradient, with mu = vol^2/2
    h, lr = GRADIENT[:4], 0.1
    langevin = dale_langevin_step(X[:4], h, 1.0, 0.5, lr, torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(langevin, stepped(X[:4], -(1 + h), lr))


def test_the_example_of_the_docs_finds_the_sparse_solution():
    page = (Path(__file__).parents[2] / "docs" / "multiplicative.md").read_text().split("## Exponentiated gradient")[1]
    names: dict = {}
    exec(compile(re.search(r"```python\n(.*?)```", page, re.S)[1], "multiplicative.md", "exec"), names)
    multiplicative, additive = names["errors"]
    assert multiplicative < 0.05 and additive > 0.7
    assert torch.equal(names["multiplicative"].sign(), names["signs"])
    assert not torch.equal(names["additive"].sign(), names["signs"])


def test_a_configuration_makes_it_and_a_schedule_drives_it():
    make = build({"_target_": "scoregen.training.ExponentiatedGradient", "_partial_": True, "lr": 0.5})
    x = torch.tensor([2.0], requires_grad=True)
    optimizer = make([x])
    optimizer.param_groups[0]["lr"] *= 0.2  # as the training loop does
    x.grad = torch.tensor([3.0])
    optimizer.step()
    assert x.item() == pytest.approx(2 * math.exp(-0.1 * 3), rel=1e-6)


def test_a_bad_rate_is_named():
    with pytest.raises(ValueError, match="lr must be > 0"):
        ExponentiatedGradient([torch.ones(1)], lr=0.0)
