r"""Representation consistency: InfoNCE by hand, one noise a path, published schedules, processes and resuming."""

import math

import pytest
import torch
from representation_parts import TAU, Half, Same, two_sets
from torch import nn

from scoregen.losses import Momentum, RepresentationConsistency, Resolution
from scoregen.losses.representation import info_nce
from scoregen.rng import generators


def by_hand(queries, keys, tau=TAU):
    r"""-log softmax of the cosine of each query with its own key, in Python's floats."""
    losses = []
    for n, q in enumerate(queries.tolist()):
        cosines = [
            sum(a * b for a, b in zip(q, k, strict=True)) / (math.hypot(*q) * math.hypot(*k)) for k in keys.tolist()
        ]
        losses.append(-math.log(math.exp(cosines[n] / tau) / sum(math.exp(c / tau) for c in cosines)))
    return losses


def test_info_nce_is_the_log_loss_of_the_own_key():
    queries, keys = two_sets()
    assert info_nce(queries, keys, TAU).tolist() == pytest.approx(by_hand(queries, keys), abs=1e-12)


def test_info_nce_ignores_lengths_and_is_zero_for_keys_far_apart():
    queries, keys = two_sets()
    torch.testing.assert_close(info_nce(3 * queries, keys / 7, TAU), info_nce(queries, keys, TAU))
    eye = torch.eye(5, dtype=torch.float64)
    assert float(info_nce(eye, eye, 0.01).max()) < 1e-40


def test_autocast_does_not_round_the_logits():
    queries, keys = (v.float() for v in two_sets())
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(queries, keys, TAU)
    assert found.tolist() == pytest.approx(by_hand(queries, keys), rel=1e-5)


@pytest.mark.parametrize(
    ("step", "points"), [(0, 21), (1, 41), (431, 41), (432, 81), (999, 81)], ids=lambda value: str(value)
)
def test_the_grid_doubles_as_published(step, points):
    r"""K = 1000: K' = ceil(1000/log2 5) = 431; N - 1 = 20, 40, 80."""
    assert Resolution()(step, 1000) == points


def test_the_grid_of_times_is_even_in_the_seventh_root():
    loss = RepresentationConsistency(Same())
    loss.at(500, 1000)
    t = loss.times()
    roots = t ** (1 / 7)
    assert len(t) == 81
    assert (t[0].item(), t[-1].item()) == pytest.approx((80.0, 0.002), rel=1e-12)
    torch.testing.assert_close(roots.diff(), (roots[-1] - roots[0]).expand(80) / 80)


@pytest.mark.parametrize("step", [0, 10, 300, 1000])
def test_the_target_s_decay_follows_the_published_sigmoid(step):
    r"""2 sigmoid(z) - 1 = tanh(z/2), an independent form."""
    e = math.hypot(0.99 * math.sqrt(1 - step / 1000), 0.9999 * math.sqrt(step / 1000))
    c = math.tanh(7.5 * (e - 0.99) / 0.0099)
    assert Momentum()(step, 1000) == pytest.approx(0.9999 * c + 0.99 * (1 - c), abs=1e-14)


class Linear(nn.Module):
    r"""A representation that is linear in u and depends on t; the projection is linear too. Records its inputs."""

    def __init__(self, d=6):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(d, 4, dtype=torch.float64))
        self.outer = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
        self.seen = []

    def to_chart(self, x):
        return 2 * x - 1

    def represent(self, u, t):
        self.seen.append((u, float(t)))
        return torch.tanh(u @ self.weight) + t

    def project(self, representation):
        return representation @ self.outer


def prepared(step=2, **arguments):
    model = Linear()
    loss = RepresentationConsistency(Half(), Same(), **arguments)
    loss.begin(model)
    with torch.no_grad():
        model.outer.add_(1.0)
    loss.at(step, 10)
    return model, loss, torch.rand(5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_one_noise_serves_both_views_and_both_points_of_the_path():
    model, loss, x = prepared()
    loss(model, x, None, generators(0, 1, 2, range(5)))
    y, found = 2 * x - 1, model.seen
    (first, low), (second, same), (upper, t), (lower, below) = found
    eps = (second - y) / low
    assert low == same == 0.002
    torch.testing.assert_close((first - (x - 1)) / low, eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((upper - y) / t, eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((lower - y) / below, eps, rtol=1e-9, atol=1e-9)
    grid = loss.times().tolist()
    assert grid.index(t) + 1 == grid.index(below)


def test_the_loss_is_the_sum_of_its_three_terms():
    model, loss, x = prepared()
    found = loss(model, x, None, generators(0, 1, 2, range(5)))
    (first, low), (second, _), (upper, t), (lower, below) = model.seen
    online, target = ((lambda u, m=m: m.project(torch.tanh(u @ m.weight) + low)) for m in (model, loss.target))
    terms = [
        by_hand(online(first), target(second)),
        by_hand(online(second), target(first)),
        by_hand(torch.tanh(upper @ model.weight) + t, torch.tanh(lower @ model.weight) + below),
    ]
    assert found.tolist() == pytest.approx([sum(parts) for parts in zip(*terms, strict=True)], abs=1e-9)
    assert loss.metrics()["consistency"] == pytest.approx(sum(terms[2]) / 5, rel=1e-6)


def test_gradients_stop_at_the_keys():
    r"""With keys held fixed, the analytic gradient is that of the queries alone (finite differences)."""
    model, loss, x = prepared()
    draw = lambda: generators(0, 1, 2, range(5))  # noqa: E731
    loss(model, x, None, draw()).sum().backward()
    (first, low), (second, _), (upper, t), (lower, below) = model.seen[:4]
    keys = [loss.target.project(torch.tanh(u @ loss.target.weight) + low) for u in (first, second)]
    fixed = (torch.tanh(lower @ model.weight) + below).detach()

    def value():
        q = [model.project(torch.tanh(u @ model.weight) + low) for u in (first, second)]
        terms = by_hand(q[0], keys[1]), by_hand(q[1], keys[0]), by_hand(torch.tanh(upper @ model.weight) + t, fixed)
        return sum(map(sum, terms))

    for parameter in (model.weight, model.outer):
        for place in ((0, 1), (3, 2)):
            with torch.no_grad():
                parameter[place] += 1e-6
                high = value()
                parameter[place] -= 2e-6
                slope = (high - value()) / 2e-6
                parameter[place] += 1e-6
            assert parameter.grad[place].item() == pytest.approx(slope, abs=1e-6)
    assert all(p.grad is None for p in loss.target.parameters())


def test_the_target_moves_once_a_step_whatever_the_number_of_micro_batches():
    model, loss, x = prepared(step=0)
    start, now = loss.target.outer.clone(), model.outer.detach()
    loss(model, x)
    assert torch.equal(loss.target.outer, start)  # before the first step there is nothing to follow
    loss.at(1, 10)
    loss(model, x)
    loss(model, x)
    beta = Momentum()(0, 10)
    torch.testing.assert_close(loss.target.outer.detach(), beta * start + (1 - beta) * now)


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="last must be a whole number >= 5, got last=4"):
        Resolution(5, 4)
    with pytest.raises(ValueError, match=r"last must lie in \[0.9, 1\), got last=1.0"):
        Momentum(0.9, 1.0)
