r"""SmoothAdv, MACER and SmoothMix: on linear classifiers in closed form, and as parts of a training."""

import math
from statistics import NormalDist

import pytest
import torch
from losses.test_classification import Linear, batch, softmax
from smoothed import SIGMA, draws, keys

from scoregen.losses import MACER, CrossEntropy, SmoothAdv, SmoothMix
from scoregen.losses.ascent import Ascent, direction
from scoregen.rng import rand, randn


def two_classes(length=2.0):
    r"""Logits 0 and w x, with |w| = length, four inputs and their labels."""
    g = torch.Generator().manual_seed(3)
    w = torch.randn(4, generator=g, dtype=torch.float64)
    w = length * w / w.norm()
    x = torch.rand(4, 1, 2, 2, generator=g, dtype=torch.float64)
    return Linear(torch.stack([torch.zeros_like(w), w])), w, x, torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize("draws", [1, 7])
def test_a_step_goes_along_the_weights_of_a_linear_classifier_away_from_the_label(draws):
    model, w, x, label = two_classes()
    noise = torch.randn(draws, *x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0]).double()
    expected = sign[:, None] * w / w.norm()
    torch.testing.assert_close(direction(model, x, label, noise).flatten(1), expected)


def test_the_direction_is_that_of_the_log_loss_of_the_mean_probability():
    model, x, label = batch()
    noise = draws(5)
    point = x.clone().requires_grad_()
    mean = model((point + noise).flatten(0, 1)).softmax(-1).reshape(5, 6, 3).mean(0)
    (gradient,) = torch.autograd.grad(-mean.gather(1, label[:, None]).log().sum(), point)
    length = gradient.flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(direction(model, x, label, noise), gradient / length)


def test_the_direction_of_a_certain_classifier_is_not_lost_in_rounding():
    r"""In float32 the probability is 1, and the gradient of its logarithm 0."""
    model, w, x, _ = two_classes(length=200.0)
    model.weight, x, w = model.weight.float(), 100 * (w / w.norm()).reshape(1, 1, 2, 2).float(), w.float()
    label, noise = torch.tensor([1]), torch.zeros(1, 1, 1, 2, 2)
    point = x.clone().requires_grad_()
    (plain,) = torch.autograd.grad(-model(point).log_softmax(-1)[0, 1], point)
    assert float(plain.abs().max()) == 0
    torch.testing.assert_close(direction(model, x, label, noise).flatten(), -w / w.norm())


def test_a_classifier_that_ignores_its_input_moves_nothing():
    _, x, label = batch()
    flat = Linear(torch.zeros(3, 4).double())
    assert torch.equal(Ascent(3, 0.5, 1.0, None)(flat, x, label, draws(2)), x)


def test_the_attack_of_a_linear_classifier_ends_on_the_sphere_along_its_weights():
    r"""Two steps of length eps reach 2 eps, which is drawn back to eps."""
    model, w, x, label = two_classes()
    eps = 0.7
    found = Ascent(2, eps, eps, None)(model, x, label, torch.zeros(1, *x.shape).double())
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0]).double()
    torch.testing.assert_close((found - x).flatten(1), eps * sign[:, None] * w / w.norm())


def test_the_attack_stays_in_the_ball_and_in_the_range_of_the_data():
    model, x, label = batch()
    found = Ascent(5, 0.4, 0.6, (0.0, 1.0))(model, x, label, draws(3))
    assert bool(((found - x).flatten(1).norm(dim=1) <= 0.6 + 1e-12).all())
    assert bool((found >= 0).all() and (found <= 1).all() and (found != x).any())
    without = Ascent(5, 0.4, 0.6, None)(model, x, label, draws(3))
    assert float(without.min()) < 0 or float(without.max()) > 1


def test_the_range_cuts_what_leads_away_from_it_and_moves_no_input_that_lies_outside():
    x = torch.tensor([[1.5, -0.5, 0.5, 1.0]])
    away, towards = torch.tensor([[1.7, -0.9, 1.2, 1.1]]), torch.tensor([[1.4, -0.3, 0.2, 0.9]])
    ascent = Ascent(1, 1.0, None, (0.0, 1.0))
    assert torch.equal(ascent.projected(x, x), x) and torch.equal(ascent.projected(towards, x), towards)
    assert torch.equal(ascent.projected(away, x), torch.tensor([[1.5, -0.5, 1.0, 1.0]]))


def test_smooth_adv_is_the_log_loss_at_the_attacked_point_of_a_linear_classifier():
    r"""Logits (0, w x): the attacked one is w x - or + eps |w|, under the same noise."""
    model, w, x, label = two_classes()
    loss = SmoothAdv(SIGMA, num_noises=3, eps=0.4, attack_steps=2, data_range=None)
    found = loss(model, x, label, keys(range(4)))
    for i in range(4):
        sign = -1 if label[i] else 1
        logits = [float((x[i] + e).flatten() @ w) + sign * 0.4 * float(w.norm()) for e in draws(3, range(4))[:, i]]
        costs = [-math.log(softmax([0.0, z])[label[i]]) for z in logits]
        assert float(found[i]) == pytest.approx(sum(costs) / 3, abs=1e-12)


def test_the_radius_of_smooth_adv_grows_over_the_first_part_of_a_training():
    loss = SmoothAdv(SIGMA, eps=0.8, attack_steps=4, warmup=0.1)
    found = []
    for step in (0, 4, 9, 10, 99):
        loss.at(step, 100)
        found.append((loss.ascent().radius, loss.ascent().length))
    assert found == [pytest.approx((0.8 * f, 0.4 * f)) for f in (0.1, 0.5, 1.0, 1.0, 1.0)]


def radius_and_term(logits, label, loss):
    r"""Of one sample, from logits a draw, written out."""
    q = [
        sum(column) / len(logits) for column in zip(*(softmax([loss.beta * v for v in z]) for z in logits), strict=True)
    ]
    best = max(v for k, v in enumerate(q) if k != label)
    xi = NormalDist().inv_cdf(q[label]) - NormalDist().inv_cdf(best)
    right = q[label] > best
    return right, xi, loss.noise_sigma / 2 * max(0.0, loss.gamma - xi) * right


def test_macer_agrees_with_the_sums_written_out():
    model, x, label = batch()
    loss = MACER(SIGMA, num_noises=4, lbd=3.0, gamma=2.0, beta=2.0)
    found, kinds = loss(model, x, label, keys()), set()
    for i in range(6):
        logits = [((x[i] + e).flatten() @ model.weight.T).tolist() for e in draws(4)[:, i]]
        mean = sum(softmax(z)[label[i]] for z in logits) / 4
        right, xi, term = radius_and_term(logits, int(label[i]), loss)
        kinds.add((right, right and xi < loss.gamma))
        assert float(found[i]) == pytest.approx(-math.log(mean) + 3.0 * term, abs=1e-9)
    assert kinds == {(False, False), (True, True), (True, False)}


def test_the_radius_term_and_its_gradient_in_closed_form():
    r"""Two classes, one draw, label 1, logits (0, z): q = s(beta z), xi = 2 Phi^-1(q).

    The derivative in z is -sigma beta q (1 - q)/phi(Phi^-1(q)).
    """
    loss, normal = MACER(SIGMA, num_noises=1, gamma=4.0, beta=2.0), NormalDist()
    z = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    q = torch.sigmoid(2.0 * z)
    own = torch.tensor([[False, True]] * 3)
    term = loss.radius_term(torch.stack([1 - q, q], 1), own)
    (gradient,) = torch.autograd.grad(term.sum(), z)
    term = term.detach()
    for i, p in enumerate(q.tolist()):
        v = normal.inv_cdf(p)
        assert float(term[i]) == pytest.approx(SIGMA / 2 * (4.0 - 2 * v), abs=1e-9)
        assert float(gradient[i]) == pytest.approx(-SIGMA * 2.0 * p * (1 - p) / normal.pdf(v), abs=1e-9)


@pytest.mark.parametrize(
    ("q", "label"),
    [((0.6, 0.3, 0.1), 1), ((1e-9, 1 - 2e-9, 1e-9), 1), ((0.0, 1.0, 0.0), 1), ((0.0, 0.5, 0.5), 1)],
    ids=["wrong", "far", "certain", "tie"],
)
def test_samples_without_a_radius_to_gain_have_no_radius_term_and_no_gradient(q, label):
    for dtype in (torch.float32, torch.float64):
        p = torch.tensor([q], dtype=dtype, requires_grad=True)
        term = MACER(SIGMA).radius_term(p, torch.arange(3)[None] == label)
        (gradient,) = torch.autograd.grad(term.sum(), p)
        assert float(term.detach()) == 0 and bool((gradient == 0).all())


def test_the_radius_term_comes_after_its_share_of_a_training():
    model, x, label = batch()
    loss, plain = MACER(SIGMA, lbd=16.0, deferred=0.5), MACER(SIGMA, lbd=0.0)
    for step, same in ((0, True), (4, True), (5, False), (9, False)):
        loss.at(step, 10)
        assert torch.equal(loss(model, x, label, keys()), plain(model, x, label, keys())) == same


def test_points_and_labels_of_the_mixup_lie_between_the_ends():
    _, x, _ = batch()
    mean = torch.tensor([[0.7, 0.2, 0.1]]).double().expand(6, 3)
    part = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]).double()
    point, target = SmoothMix(SIGMA).mixed(x, x + 2.0, mean, part)
    torch.testing.assert_close(point, x + 2 * part[:, None, None, None])
    for i, a in enumerate(part.tolist()):
        assert target[i].tolist() == pytest.approx([(1 - a) * p + a / 3 for p in (0.7, 0.2, 0.1)])


def test_smooth_mix_agrees_with_the_sums_written_out():
    r"""The attacked point of two classes is x -+ T alpha w/|w|; masked where F gives another label."""
    model, w, x, label = two_classes()
    loss = SmoothMix(SIGMA, num_noises=2, attack_steps=3, step_size=0.5, eta=4.0, warmup=0.0, data_range=None)
    own = keys(range(4))
    found = loss(model, x, label, own)
    again = keys(range(4))
    noise = SIGMA * randn((4, 2, 1, 2, 2), again, torch.float64)
    part = rand((4,), again, torch.float64)
    rights = set()
    for i in range(4):
        p = [softmax([0.0, float((x[i] + e).flatten() @ w)]) for e in noise[i]]
        mean = [(p[0][k] + p[1][k]) / 2 for k in range(2)]
        a, sign = float(part[i]) / 2, -1 if label[i] else 1
        moved = [softmax([0.0, float((x[i] + e).flatten() @ w) + a * sign * 1.5 * float(w.norm())]) for e in noise[i]]
        target = [(1 - a) * v + a / 2 for v in mean]
        mixup = sum(target[k] * math.log(target[k] / q[k]) for q in moved for k in range(2)) / 2
        right = mean[label[i]] > 0.5
        rights.add(right)
        cross_entropy = -sum(math.log(q[label[i]]) for q in p) / 2
        assert float(found[i]) == pytest.approx(cross_entropy + 4.0 * right * mixup, abs=1e-12)
    assert rights == {True, False}


@pytest.mark.parametrize(
    "loss",
    [
        SmoothAdv(SIGMA, num_noises=1, eps=0.0),
        MACER(SIGMA, num_noises=1, lbd=0.0),
        SmoothMix(SIGMA, num_noises=1, eta=0.0),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_without_strength_it_is_gaussian_augmentation(loss):
    model, x, label = batch()
    torch.testing.assert_close(loss(model, x, label, keys()), CrossEntropy(SIGMA)(model, x, label, keys()))
