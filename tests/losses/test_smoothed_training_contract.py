r"""What every loss of smoothed classifiers keeps: samples apart, modes and statistics of the network, gradients."""

import math

import pytest
import torch
from losses.test_classification import Linear, batch
from smoothed import SIGMA, draws, keys
from torch import nn

from scoregen.losses import MACER, SmoothAdv, SmoothMix
from scoregen.losses.ascent import evaluating

KINDS = [SmoothAdv, MACER, SmoothMix]
each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@each
def test_a_sample_keeps_its_loss_in_another_batch(kind):
    model, x, label = batch()
    whole = kind(SIGMA)(model, x, label, keys())
    part = kind(SIGMA)(model, x[4:], label[4:], keys([4, 5]))
    torch.testing.assert_close(part, whole[4:], rtol=1e-9, atol=0)


class Watched(nn.Module):
    r"""Batch norm and dropout, and one part that is frozen in evaluation mode; notes the mode of each call."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Linear(4, 3)
        self.frozen = nn.BatchNorm2d(1).eval()
        self.modes = []

    def forward(self, x):
        self.modes.append(self.norm.training)
        return self.head(self.drop(self.frozen(self.norm(x)).flatten(1)))


@pytest.mark.parametrize("loss", [SmoothAdv(SIGMA), SmoothMix(SIGMA)], ids=lambda loss: type(loss).__name__)
def test_the_attack_sees_an_evaluated_network_and_leaves_its_statistics_and_modes(loss):
    torch.manual_seed(0)
    _, x, label = batch()
    model = Watched().double()
    loss(model, x, label, keys()).sum().backward()
    trained = 2 if isinstance(loss, SmoothMix) else 1
    assert model.modes == [False] * loss.attack_steps + [True] * trained
    assert int(model.norm.num_batches_tracked) == trained and int(model.frozen.num_batches_tracked) == 0
    assert model.training and model.norm.training and model.drop.training and not model.frozen.training


def test_modes_come_back_after_an_error():
    model = Watched()
    with pytest.raises(RuntimeError, match="network"), evaluating(model):
        raise RuntimeError("of the network")
    assert model.norm.training and not model.frozen.training


@each
def test_parameters_have_the_gradient_of_the_loss_alone(kind):
    r"""The attacked points are constants: the gradient is that of a loss with them given."""
    model, x, label = batch()
    model.weight.requires_grad_()
    loss = kind(SIGMA)
    loss(model, x, label, keys()).sum().backward()
    assert model.weight.grad is not None
    expected = model.weight.grad.clone()
    if kind is SmoothAdv:
        noise = draws(2)
        points = loss.ascent()(model, x, label, noise)
        model.weight.grad = None
        logits = model((points + noise).flatten(0, 1))
        (nn.functional.cross_entropy(logits, label.repeat(2), reduction="sum") / 2).backward()
        torch.testing.assert_close(model.weight.grad, expected)


@each
def test_weights_that_autocast_has_cast_for_the_attack_keep_their_gradients(kind):
    torch.manual_seed(0)
    _, x, label = batch()
    network, found = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            kind(SIGMA)(network, x.float(), label, keys()).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
        network.zero_grad()
    assert float((found[1] - found[0]).norm() / found[0].norm()) < 0.1  # bfloat16 has 8 bits


@each
def test_its_value_without_gradients_is_the_same(kind):
    model, x, label = batch()
    with torch.no_grad():
        held_out = kind(SIGMA)(model, x, label, keys())
    assert not held_out.requires_grad
    torch.testing.assert_close(held_out, kind(SIGMA)(model, x, label, keys()))


@each
def test_certain_logits_keep_finite_gradients(kind):
    x = torch.ones(2, 1, 2, 2)
    weight = (1e3 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0))).requires_grad_()
    loss = kind(SIGMA)(Linear(weight), x, torch.tensor([0, 1]), torch.Generator().manual_seed(1))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(weight.grad).all()


@pytest.mark.parametrize(
    ("loss", "comparable"),
    [
        (SmoothAdv(SIGMA), False),
        (SmoothAdv(SIGMA, warmup=0.0), True),
        (MACER(SIGMA), True),
        (MACER(SIGMA, deferred=0.2), False),
        (SmoothMix(SIGMA), False),
        (SmoothMix(SIGMA, warmup=0), True),
    ],
)
def test_values_of_a_strength_that_grows_do_not_compare(loss, comparable):
    assert loss.comparable == comparable


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SmoothAdv(0.0), "Use CrossEntropy without noise"),
        (lambda: SmoothAdv(0.5, eps=-1.0), "eps must be >= 0, got eps=-1.0"),
        (lambda: SmoothAdv(0.5, attack_steps=0), "attack_steps must be a whole number >= 1, got attack_steps=0"),
        (lambda: SmoothAdv(0.5, data_range=(1.0, 0.0)), r"data_range must be \[least, largest\]"),
        (lambda: SmoothMix(0.5, data_range=(0.0, math.inf)), "data_range must be finite"),
        (lambda: SmoothMix(0.5, step_size=0.0), "step_size must be > 0 and finite"),
        (lambda: MACER(0.5, gamma=10.0), r"gamma must lie in \(0, 9\], got gamma=10.0"),
        (lambda: MACER(0.5, beta=0.0), "beta must be > 0 and finite"),
        (lambda: MACER(0.5)(*batch()[:2]), "label must be given"),
    ],
)
def test_bad_arguments_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
