import math

import pytest
import torch
from torch import nn

from scoregen.losses.classification import ConsistencyRegularization, CrossEntropy
from scoregen.rng import generators, randn


class Linear(nn.Module):
    r"""Logits W x, recording its inputs."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.seen = weight, []

    def forward(self, x):
        self.seen.append(x)
        return x.flatten(1) @ self.weight.T


def batch(n=6, d=4, classes=3):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, 2, 2, generator=g, dtype=torch.float64)
    weight = 3 * torch.randn(classes, d, generator=g, dtype=torch.float64)
    return Linear(weight), x, torch.arange(n) % classes


def softmax(logits):
    top = max(logits)
    parts = [math.exp(v - top) for v in logits]
    return [p / sum(parts) for p in parts]


def test_cross_entropy_is_the_smoothed_log_loss():
    r"""(1 - a)(-log p_label) + a mean_k(-log p_k), written out."""
    model, x, label = batch()
    found = CrossEntropy(label_smoothing=0.2)(model, x, label)
    for i, logits in enumerate((x.flatten(1) @ model.weight.T).tolist()):
        costs = [-math.log(p) for p in softmax(logits)]
        assert float(found[i]) == pytest.approx(0.8 * costs[label[i]] + 0.2 * sum(costs) / 3, abs=1e-12)


def test_noise_has_the_stated_size_in_units_of_the_input():
    r"""20,000 draws: standard deviation within 5 standard errors, sigma / sqrt(2 n)."""
    model, _, _ = batch()
    x = torch.full((5000, 1, 2, 2), 0.5).double()
    label = torch.zeros(5000)
    CrossEntropy(noise_sigma=0.25)(model, x, label, torch.Generator().manual_seed(0))
    noise = model.seen[0] - x
    assert float(noise.std()) == pytest.approx(0.25, abs=5 * 0.25 / (2 * noise.numel()) ** 0.5)
    assert float(noise.mean()) == pytest.approx(0, abs=5 * 0.25 / noise.numel() ** 0.5)


def test_consistency_agrees_with_the_sums_written_out():
    model, x, label = batch()
    keys = generators(0, 1, 2, range(6))
    m, sigma, lbd, eta = 3, 0.5, 7.0, 0.4
    loss = ConsistencyRegularization(sigma, num_noises=m, lbd=lbd, eta=eta)
    found = loss(model, x, label, keys)
    eps = randn((6, m, 1, 2, 2), generators(0, 1, 2, range(6)), torch.float64)
    for i in range(6):
        p = [softmax(((x[i] + sigma * e).flatten() @ model.weight.T).tolist()) for e in eps[i]]
        mean = [sum(q[k] for q in p) / m for k in range(3)]
        cross_entropy = sum(-math.log(q[label[i]]) for q in p) / m
        divergence = sum(sum(mean[k] * math.log(mean[k] / q[k]) for k in range(3)) for q in p) / m
        entropy = -sum(v * math.log(v) for v in mean)
        assert float(found[i]) == pytest.approx(cross_entropy + lbd * divergence + eta * entropy, abs=1e-12)


def test_consistency_of_a_constant_classifier_is_its_entropy():
    r"""No dependence on the input: CE = H = log 3 and no divergence."""
    _, x, label = batch()
    found = ConsistencyRegularization(0.5, lbd=10.0, eta=0.5)(Linear(torch.zeros(3, 4).double()), x, label)
    torch.testing.assert_close(found, torch.full((6,), 1.5 * math.log(3)).double())


@pytest.mark.parametrize(
    "loss", [CrossEntropy(noise_sigma=0.5), ConsistencyRegularization(0.5)], ids=["cross entropy", "consistency"]
)
def test_a_sample_keeps_its_noise_in_another_batch(loss):
    model, x, label = batch()
    whole = loss(model, x, label, generators(0, 1, 2, range(6)))
    part = loss(model, x[4:], label[4:], generators(0, 1, 2, [4, 5]))
    torch.testing.assert_close(part, whole[4:], rtol=1e-12, atol=0)


def test_confident_logits_keep_finite_gradients():
    x = torch.ones(2, 1, 2, 2)
    weight = (1e3 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0))).requires_grad_()
    loss = ConsistencyRegularization(0.5)(Linear(weight), x, torch.tensor([0, 1]), torch.Generator().manual_seed(1))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: CrossEntropy(noise_sigma=-1.0), "noise_sigma must be >= 0, got noise_sigma=-1.0"),
        (lambda: CrossEntropy(label_smoothing=1.0), r"label_smoothing must lie in \[0, 1\), got label_smoothing=1\.0"),
        (lambda: ConsistencyRegularization(0.0), "Use CrossEntropy"),
        (
            lambda: ConsistencyRegularization(0.5, num_noises=1),
            "num_noises must be a whole number >= 2, got num_noises=1",
        ),
        (lambda: ConsistencyRegularization(0.5, lbd=-1.0), "lbd must be >= 0, got lbd=-1.0"),
        (lambda: CrossEntropy()(*batch()[:2]), "label must be given"),
    ],
    ids=["negative noise", "smoothing", "no noise", "one noise", "negative weight", "no label"],
)
def test_bad_arguments_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
