r"""Optimal-transport pairing: the assignment, that it changes nothing but the pairing, labels, generators."""

from itertools import permutations

import pytest
import torch

from scoregen.losses import (
    ConsistencyDistillation,
    ConsistencyTuning,
    CrossEntropy,
    DenoisingScoreMatching,
    FlowMap,
    Loss,
    OptimalTransportPairing,
    StepwiseVariation,
)
from scoregen.losses.pairing import assignment
from scoregen.models import Denoiser, FlatMLP
from scoregen.rng import generators, randn
from scoregen.sde import EDM, GeometricBrownianMotion
from scoregen.sde.path import expand

B = 6


def data(n=B, seed=0):
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Seen(Loss):
    r"""Keeps the data that it was given."""

    def forward(self, model, x_0, label=None, generator=None, quantile=None):
        y = model.sde.to_chart(x_0)
        eps = randn(y.shape, generator, y.dtype)
        s = torch.full((len(y),), 0.5, dtype=torch.float64)
        self.y, self.eps, self.label = y, eps, label
        return model(y + expand(s, y) * eps, s, label).flatten(1).sum(1)


def model(sde=None, num_classes=None):
    torch.manual_seed(0)
    return Denoiser(FlatMLP((2,), 8, 1, num_classes), sde or EDM()).double()


@pytest.mark.parametrize("seed", range(3))
def test_assignment_is_the_best_of_all_permutations(seed):
    y, noise = data(seed=seed), data(seed=seed + 10)
    costs = {p: float((y[list(p)] - noise).square().sum()) for p in permutations(range(B))}
    assert costs[tuple(assignment(y, noise).tolist())] == min(costs.values())


def test_assignment_within_labels_is_the_best_of_those():
    y, noise, label = data(), data(seed=10), torch.tensor([0, 1, 0, 1, 1, 2])
    costs = {}
    for p in permutations(range(B)):
        if (label[list(p)] == label).all():
            costs[p] = float((y[list(p)] - noise).square().sum())
    assert costs[tuple(assignment(y, noise, label).tolist())] == min(costs.values())


@pytest.mark.parametrize("sde", [EDM(), GeometricBrownianMotion(0.8, offset=1.0)], ids=["edm", "gbm"])
def test_data_are_permuted_and_the_noise_is_what_it_was(sde):
    inner, plain = Seen(), Seen()
    OptimalTransportPairing(inner)(model(sde), data(), None, generators(0, 1, 0, range(B)))
    plain(model(sde), data(), None, generators(0, 1, 0, range(B)))
    assert torch.equal(inner.eps, plain.eps)
    assert torch.equal(inner.y, plain.y[assignment(plain.y, plain.eps)])
    assert (inner.y - inner.eps).square().sum() < (plain.y - plain.eps).square().sum()


def test_labels_travel_with_their_data():
    inner, label = Seen(), torch.tensor([0, 1, 0, 1, 1, 2])
    OptimalTransportPairing(inner)(model(num_classes=3), data(), label, generators(0, 1, 0, range(B)))
    pairs = {(tuple(x), int(k)) for x, k in zip(data().tolist(), label, strict=True)}
    assert {(tuple(x), int(k)) for x, k in zip(inner.y.tolist(), inner.label, strict=True)} == pairs
    assert torch.equal(inner.label, label)


@pytest.mark.parametrize(
    "draws", [lambda: generators(0, 1, 0, range(B)), lambda: None, lambda: 5], ids=["list", "global", "one"]
)
def test_the_dry_run_uses_up_no_randomness(draws):
    r"""The value is that of the base loss on the permuted data with the same generators."""
    found = []
    for paired in (True, False):
        torch.manual_seed(3)
        g = draws()
        g = torch.Generator().manual_seed(g) if isinstance(g, int) else g
        base, quantile = DenoisingScoreMatching(), torch.linspace(0, 0.9, B)
        if paired:
            loss = OptimalTransportPairing(base)
            order = loss.order(model(), data(), None, g, quantile)
            torch.manual_seed(3)
            found.append(loss(model(), data(), None, g, quantile))
        else:
            torch.manual_seed(0)
            m = model()
            torch.manual_seed(3)
            found.append(base(m, data()[order], None, g, quantile))
    # model() seeds the global generator, which the draws without one come from
    if draws() is not None:
        torch.testing.assert_close(*found, rtol=0, atol=0)
    else:
        assert sorted(order.tolist()) == list(range(B))


def test_it_nests_with_other_losses():
    quantile = torch.linspace(0, 0.9, B)
    for loss in (
        StepwiseVariation(OptimalTransportPairing(DenoisingScoreMatching())),
        OptimalTransportPairing(StepwiseVariation(DenoisingScoreMatching())),
        OptimalTransportPairing(ConsistencyTuning()),
    ):
        loss.at(0, 8)
        loss(model(), data(), None, generators(0, 1, 0, range(B)), quantile).sum().backward()
        assert loss.metrics()
    with pytest.raises(TypeError, match=r"base_loss must be a loss of scoregen\.losses, got int"):
        OptimalTransportPairing(3)


def test_a_loss_of_something_else_than_the_data_is_refused():
    class Halved(Loss):
        def forward(self, model, x_0, label=None, generator=None, quantile=None):
            return model(x_0[:, :1], torch.ones(len(x_0)), label).flatten(1).sum(1)

    with pytest.raises(TypeError, match="base_loss must call the denoiser with noisy data, got Halved"):
        OptimalTransportPairing(Halved())(model(), data())


def test_the_dry_run_calls_no_teacher():
    calls = []

    class Teacher(Denoiser):
        def forward(self, *arguments):
            calls.append(1)
            return super().forward(*arguments)

    teacher = Teacher(FlatMLP((2,), 8, 1), EDM()).double()
    OptimalTransportPairing(ConsistencyDistillation(teacher))(model(), data(), generator=generators(0, 1, 0, range(B)))
    assert len(calls) == 2


def test_a_loss_without_a_denoiser_is_refused():
    with pytest.raises(TypeError, match="base_loss must be the loss of a denoiser"):
        OptimalTransportPairing(CrossEntropy())(model(), data(), torch.zeros(B, dtype=torch.long))


def test_a_flow_map_is_refused_which_sorts_its_batch():
    with pytest.raises(TypeError, match="base_loss must keep the order of its batch, got FlowMap"):
        OptimalTransportPairing(FlowMap())
