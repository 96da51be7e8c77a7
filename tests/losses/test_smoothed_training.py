r"""SmoothAdv, MACER and SmoothMix: on linear classifiers in closed form, and as parts of a training."""

import math
from statistics import NormalDist

import pytest
import torch
from losses.test_classification import Linear, batch, softmax
from torch import nn

from scoregen.losses import MACER, CrossEntropy, SmoothAdv, SmoothMix
from scoregen.losses.ascent import Ascent, direction, evaluating
from scoregen.rng import generators, rand, randn

SIGMA = 0.5
KINDS = [SmoothAdv, MACER, SmoothMix]
each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def keys(places=range(6)):
    return generators(0, 1, 2, places)


def draws(m, places=range(6)):
    r"""The noise that a loss draws, (m, B, *S)."""
    return SIGMA * randn((len(places), m, 1, 2, 2), keys(places), torch.float64).transpose(0, 1)


def two_classes(length=2.0):
    r"""Logits 0 and w x, with |w| = length, four inputs and their labels."""
    g = torch.Generator().manual_seed(3)
    w = torch.randn(4, generator=g, dtype=torch.float64)
    w = length * w / w.norm()
    x = torch.rand(4, 1, 2, 2, generator=g, dtype=torch.float64)
    return Linear(torch.stack([torch.zeros_like(w), w])), w, x, torch.tensor([0, 1, 0, 1])


# The attack


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


# SmoothAdv


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


# MACER


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


# SmoothMix


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


# All three


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
