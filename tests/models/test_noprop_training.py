r"""NoProp: blocks that are trained alone, and what trained ones classify and certify."""

import math

import pytest
import torch
from noprop_parts import PATHS, exact, points, three_normals
from tiny import COMMON, job, train
from torch import nn

from scoregen.losses import FlowTime, NoProp
from scoregen.losses.noprop import snr_increments
from scoregen.models import Classifier, LabelNetwork, NoPropClassifier
from scoregen.rng import generator
from scoregen.samplers import DDIM, Ancestral, Heun
from scoregen.sde import EDM, Log
from scoregen.smoothing import Gaussian, SampledLabels, SmoothedClassifier
from scoregen.smoothing.results import load

STEPS = [*COMMON, "trainer.steps=2"]


class Flat(nn.Module):
    r"""A small classifier of vectors."""

    def __init__(self, inputs: int = 4, width: int = 6, classes: int = 3) -> None:
        super().__init__()
        self.num_features, self.num_classes, self.shape = width, classes, (inputs,)
        self.first, self.head = nn.Linear(inputs, width), nn.Linear(width, classes)

    def features(self, x):
        return torch.nn.functional.silu(self.first(x.flatten(1)))

    def classify(self, features):
        return self.head(features)


def blocks_of(count: int, **sizes) -> NoPropClassifier:
    torch.manual_seed(0)
    return NoPropClassifier(LabelNetwork(Flat(**sizes), 8, count), PATHS["ve"])


def batch(step: int):
    g = generator(5, step)
    return torch.randn(6, 4, generator=g), torch.randint(3, (6,), generator=g)


def part_of(name: str) -> int:
    r"""The block that a parameter belongs to."""
    place = name.split(".")
    return int(place[2]) + (place[1] == "others") if place[1] in ("others", "into", "out_of") else 0


@pytest.mark.parametrize("turn", range(3))
def test_a_block_learns_alone(turn):
    model, loss = blocks_of(3), NoProp()
    loss.at(turn + 3, 10)
    loss(model, *batch(0), generator(0)).mean().backward()
    trained = {part_of(name) for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {turn}
    assert all((p.grad is not None) == (part_of(name) == turn) for name, p in model.named_parameters())


def test_blocks_trained_in_turn_or_one_after_another_are_the_same():
    ends = []
    for order in (range(9), sorted(range(9), key=lambda step: step % 3)):
        model, loss = blocks_of(3), NoProp(error="squared")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for step in order:
            loss.at(step, 9)
            optimizer.zero_grad(set_to_none=True)
            loss(model, *batch(step), generator(6, step)).mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        ends.append(model.state_dict())
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name


def test_blocks_start_apart_and_serve_the_levels_about_their_own():
    model = blocks_of(3).eval()
    first, second = model.network.network.first.weight, model.network.others[0].first.weight
    assert float((first - second).detach().abs().max()) > 0.1
    x, u = torch.randn(4, 4, generator=generator(7)), torch.randn(4, 3, generator=generator(8))
    denoiser = model.given(x)
    assert model.block_levels == pytest.approx((20.0, 1.0, 0.05))
    s = torch.tensor([15.0, 1.3, 0.07, 0.8], dtype=torch.float64)
    alone = [denoiser._logits(u[k : k + 1].expand(4, -1), s[k], block)[k] for k, block in enumerate((0, 1, 2, 1))]
    torch.testing.assert_close(denoiser.logits(u, s), torch.stack(alone))
    for k in range(4):
        torch.testing.assert_close(denoiser.logits(u, float(s[k]))[k], alone[k])


@pytest.mark.parametrize("error", ["cross_entropy", "squared"])
def test_the_loss_is_its_formula(error):
    r"""One level in turn, and without gradients all of them: the value at s of each block written out."""
    model, loss, (x, label) = blocks_of(3), NoProp(error=error), batch(0)
    y, weight = model.embedding[label], snr_increments(model.block_levels) if error == "squared" else torch.ones(3)

    @torch.no_grad()
    def value(block: int, row: int, eps) -> float:
        s = model.block_levels[block]
        p = model.given(x).logits(y + s * eps, s).softmax(1)[row]
        if error == "cross_entropy":
            return -math.log(float(p[label[row]]))
        return float(weight[block] * (p @ model.embedding - y[row]).square().sum())

    eps = torch.randn(6, 3, generator=generator(9))
    loss.at(4, 9)  # the turn of block 1
    found = loss(model, x, label, generator(9), torch.zeros(6))
    assert found.tolist() == pytest.approx([value(1, row, eps) for row in range(6)], rel=1e-4)
    with torch.no_grad():
        found = loss(model, x, label, generator(9), (torch.arange(6) + 0.5) / 6)
    assert found.tolist() == pytest.approx([value(row // 2, row, eps) for row in range(6)], rel=1e-4)


def test_features_are_computed_once():
    classifier, (x, _) = exact(three_normals, 3, 10), points(8)
    classifier(x)
    Heun(5)(classifier.given(x), (8, 3), generator=generator(0))
    assert classifier.network.calls == 2


def test_a_certificate_is_sound_and_close_where_the_radius_is_known():
    r"""Classes N(+-m, I): the boundary is a plane, so the radius is the distance to it; 5 points, alpha 1e-3 each."""
    m = torch.tensor([1.0, 0.5], dtype=torch.float64)
    x = torch.tensor([[0.45, 0.08], [0.2, 0.1], [0.05, -0.01], [0.4, 0.0], [-0.7, -0.2]], dtype=torch.float64)
    true = (x @ m).abs() / m.norm()
    for steps in (1, 10):
        classifier = exact(lambda points: torch.stack((2 * points @ m, -2 * points @ m), 1) / 2, 2, steps)
        g = SmoothedClassifier(classifier, Gaussian(0.5), 2, batch_size=1000)
        certificates = g.certify(x, n=5000, alpha=1e-3, method="fixed", generator=generator(0))
        radius = torch.tensor([c.radius for c in certificates])
        assert [c.label for c in certificates if c.radius > 0.1] == [int(v) for v in (x @ m < 0)[radius > 0.1]]
        assert bool((radius <= true).all())
        assert bool((radius > 0.85 * true)[true > 0.3].all())


def test_drawn_labels_are_a_function_of_the_input_and_can_be_certified():
    x, _ = points(4)
    f = SampledLabels(exact(three_normals, 3), Ancestral(5), votes=3, seed=1).eval()
    torch.testing.assert_close(f(x)[2:], f(x[2:]))
    assert bool((f(x) != SampledLabels(f.classifier, Ancestral(5), votes=3, seed=2)(x)).any())
    SmoothedClassifier(f, Gaussian(0.5), 3).certify(x, n=64, n0=32, generator=generator(0))


def test_digits_are_learnt():
    r"""Cross entropy, log-uniform levels, from u = 0: 96.5 % of the test part after 300 steps."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, label = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
    torch.manual_seed(0)
    order = torch.randperm(len(x))
    train, test = order[360:], order[:360]
    model = NoPropClassifier(LabelNetwork(Flat(64, 128, 10)), PATHS["ve"])
    optimizer, loss = torch.optim.AdamW(model.parameters()), NoProp()
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 8e-3 * (1 - step / 300)
        rows = train[torch.randint(len(train), (128,))]
        optimizer.zero_grad()
        loss(model, x[rows], label[rows], generator(10, step)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert float((model.eval()(x[test]).argmax(1) == label[test]).double().mean()) >= 0.965


def test_a_checkpoint_is_certified(tmp_path):
    r"""Two blocks, through the jobs: trained, loaded, asked by the guard, certified."""
    run = train(tmp_path / "run", "data=digits", "model=noprop", "model.network.blocks=2", "loss=noprop", *STEPS)
    out = tmp_path / "certified"
    job("certify", "data=digits", f"checkpoint={run}", "noise.sigma=0.1", "n=64", "n0=32", "max_inputs=2").run(out)
    assert len(load(out).records) == 2


MODEL = blocks_of(3)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LabelNetwork(nn.Linear(2, 2)), "network must have .*, and Linear has no features. Give a classifier"),
        (lambda: LabelNetwork(Flat(), blocks=0), "blocks must be a whole number >= 1, got blocks=0"),
        (lambda: NoPropClassifier(LabelNetwork(Flat()), PATHS["ve"], 0), "steps must be a whole number >= 1"),
        (lambda: NoPropClassifier(LabelNetwork(Flat()), EDM(chart=Log())), "process must have an affine chart"),
        (lambda: MODEL.given(torch.zeros(2, 4))(torch.zeros(2, 3), 1.0, torch.tensor([0, 1])), "label must be None"),
        (lambda: MODEL.given(torch.zeros(2, 4))(torch.zeros(3, 3), 1.0), "a row for each of the 2 inputs, got 3"),
        (lambda: NoProp().begin(Classifier((1, 8, 8), 3, (4,), (0,))), "must be a NoPropClassifier, got Classifier"),
        (lambda: NoProp(FlowTime()).begin(MODEL), "noise_levels must be None for 3 blocks"),
        (lambda: NoProp(error="hinge"), "error must be cross_entropy or squared"),
        (lambda: SampledLabels(MODEL, DDIM(3), votes=0), "votes must be a whole number >= 1"),
    ],
    ids=["parts", "blocks", "steps", "chart", "label", "rows", "model", "levels", "error", "votes"],
)
def test_mistakes_are_named(make, text):
    with pytest.raises((ValueError, TypeError), match=text):
        make()
