r"""Label denoising with exact posteriors: what its samplers compute, and that blocks learn by themselves."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad
from tiny import COMMON, job, train
from torch import nn

from scoregen.losses import FlowTime, FlowWeighting, LogUniform, NoiseWeighting, NoProp
from scoregen.losses.noprop import snr_increments
from scoregen.models import Classifier, LabelNetwork, NoPropClassifier
from scoregen.models.noprop import even_levels
from scoregen.rng import generator
from scoregen.samplers import DDIM, Ancestral, ExponentialABM, Heun, UniformTime
from scoregen.samplers.base import Bound
from scoregen.sde import EDM, VE, Affine, Cosine, Log, RectifiedFlow
from scoregen.smoothing import Gaussian, SampledLabels, SmoothedClassifier
from scoregen.smoothing.results import load

STEPS = [*COMMON, "trainer.steps=2"]
SIGNS = Affine(2.0, -1.0)
PATHS = {
    "ve": VE(0.05, 20.0, chart=SIGNS),
    "cosine": Cosine(chart=SIGNS),
    "rectified flow": RectifiedFlow(chart=SIGNS),
}
each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


class Exact(nn.Module):
    r"""The posterior of the label for a p(k | x) in closed form, features being log p(k | x)."""

    shape, blocks = None, 1

    def __init__(self, log_p, classes: int, embedding=None) -> None:
        super().__init__()
        self.log_p, self.num_classes, self.calls = log_p, classes, 0
        self.embedding = 2 * torch.eye(classes, dtype=torch.float64) - 1 if embedding is None else embedding

    def features(self, x, block=0):
        self.calls += 1
        return self.log_p(x)

    def forward(self, features, z, c_noise, block=0):
        s = (4 * c_noise).exp()[:, None]
        u = z * (1 + s**2).sqrt()
        return features - (u[:, None] - self.embedding).square().sum(2) / (2 * s**2)


def exact(log_p, classes: int, steps: int | None = None, embedding=None, path=PATHS["ve"]) -> NoPropClassifier:
    classifier = NoPropClassifier(Exact(log_p, classes, embedding), path, steps)
    classifier.embedding = classifier.network.embedding
    return classifier.eval()


MEANS = torch.tensor([[0.0, 1.0], [-0.9, -0.5], [0.9, -0.5]], dtype=torch.float64)


def three_normals(x):
    r"""log p(k | x) of three normals in the plane, standard deviation .8."""
    return (-(x[:, None] - MEANS).square().sum(2) / (2 * 0.8**2)).log_softmax(1)


def points(n: int = 4000):
    g = generator(0)
    label = torch.randint(3, (n,), generator=g)
    return MEANS[label] + 0.8 * torch.randn(n, 2, generator=g, dtype=torch.float64), label


def test_the_step_of_the_paper_is_ancestral_sampling():
    r"""z' = a D + b z + sqrt(c) eps of NoProp-DT, with alpha_bar of the cosine path, in u = z/sqrt(alpha_bar)."""
    path, eps = PATHS["cosine"], torch.randn(5, 3, generator=generator(1), dtype=torch.float64)
    x, _ = points(5)
    denoiser = exact(three_normals, 3, path=path).given(x)
    u = 3 * torch.randn(5, 3, generator=generator(2), dtype=torch.float64)
    for s, n in pairwise(UniformTime()(path, 10).tolist()[:-1]):
        bar, after = 1 / (1 + s**2), 1 / (1 + n**2)  # of z, of z'
        alpha = bar / after
        a = math.sqrt(after) * (1 - alpha) / (1 - bar)
        b, c = math.sqrt(alpha) * (1 - after) / (1 - bar), (1 - after) * (1 - alpha) / (1 - bar)
        z = a * denoiser(u, s) + b * math.sqrt(bar) * u + math.sqrt(c) * eps
        ours, _ = Ancestral(10).step(Bound(denoiser, None), u, s, n, lambda like: eps, None)
        torch.testing.assert_close(ours, z / math.sqrt(after), rtol=0, atol=1e-13)


def smooth(s):
    r"""An error that falls as the label shows."""
    return s**2 / (1 + s**2)


@each_path
def test_the_weights_of_dt_are_a_riemann_sum_of_the_growth_of_the_snr(path):
    levels = even_levels(path, 20_000)
    weights = snr_increments(levels)[:-1]
    total, _ = quad(lambda log_s: 2 * math.exp(-2 * log_s), math.log(path.s_min), math.log(path.s_max))
    assert float(weights.sum()) == pytest.approx(total, rel=1e-6)
    s = torch.tensor(levels, dtype=torch.float64)
    between = (s[1:] * s[:-1]).sqrt()
    wanted, _ = quad(lambda e: 2 * math.exp(-2 * e) * smooth(math.exp(e)), math.log(path.s_min), math.log(path.s_max))
    assert float((weights * smooth(between)).sum()) == pytest.approx(wanted, rel=2e-2)


def test_the_last_block_weighs_as_if_its_levels_went_on():
    torch.testing.assert_close(snr_increments((4.0, 2.0, 1.0)), torch.tensor([3 / 16, 3 / 4, 3.0]).double())


@each_path
@pytest.mark.parametrize(
    ("law", "weighting", "density"),
    [
        (LogUniform(), NoiseWeighting(), lambda s: s**-3),  # CT: half of 2 s^-3 ds
        (FlowTime(), FlowWeighting(), lambda s: s**-2),  # FM
    ],
    ids=["ct", "fm"],
)
def test_level_law_times_weighting_is_the_weight_of_the_paper(path, law, weighting, density):
    q = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    s = law(path, q)
    low, high = path.s_min, path.s_max
    scale = math.log(high / low) if isinstance(law, LogUniform) else high / (1 + high) - low / (1 + low)
    found = scale * float((weighting(s, 1.0) * smooth(s)).mean())
    wanted, _ = quad(lambda e: density(math.exp(e)) * math.exp(e) * smooth(math.exp(e)), math.log(low), math.log(high))
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("steps", [1, 10])
def test_from_zero_the_classifier_is_bayes(steps):
    x, _ = points()
    assert bool((exact(three_normals, 3, steps)(x).argmax(1) == three_normals(x).argmax(1)).all())


def test_the_steps_of_the_classifier_are_ddim_from_zero():
    classifier, (x, _) = exact(three_normals, 3, 7, path=VE(2.0, 20.0, chart=SIGNS)), points(20)
    grid = UniformTime()(classifier.process, 7)
    assert classifier.levels == pytest.approx(tuple(grid.tolist()[:-1]))
    u = DDIM(7).integrate(Bound(classifier.given(x), None), torch.zeros(20, 3).double(), grid, torch.zeros_like)
    torch.testing.assert_close(classifier(x).softmax(1) @ classifier.embedding, u, rtol=0, atol=1e-12)


def test_from_noise_a_converged_sampler_draws_from_the_posterior():
    r"""400 draws of 50 points, 100 free frequencies, within 4.5 standard errors: false-alarm rate 1e-3."""
    x, _ = points(50)
    labels = Heun(18)(exact(three_normals, 3).given(x.repeat(400, 1)), (20_000, 3), generator=generator(3))
    found = nn.functional.one_hot(labels.argmax(1), 3).reshape(400, 50, 3).double().mean(0)
    p = three_normals(x).exp()
    z = ((found - p) / (p * (1 - p) / 400).sqrt())[p * 400 > 5]
    assert len(z) > 80 and float(z.abs().max()) < 4.5
    assert 0.7 < float(z.square().mean().sqrt()) < 1.3


def test_so_its_accuracy_is_below_that_of_bayes():
    r"""Right with probability sum_k p_k^2, within 3 standard errors: a draw, which is no mistake to mend."""
    x, label = points()
    p = three_normals(x).exp()
    gibbs, bayes = float(p.square().sum(1).mean()), float(p.amax(1).mean())
    drawn = SampledLabels(exact(three_normals, 3), Heun(18))(x).argmax(1)
    found = float((drawn == label).double().mean())
    assert abs(found - gibbs) < 3 * math.sqrt(gibbs * (1 - gibbs) / len(x)) < bayes - gibbs
    voted = SampledLabels(exact(three_normals, 3), DDIM(10), votes=16)(x).argmax(1)
    assert float((voted == p.argmax(1)).double().mean()) > 0.92 > float((drawn == p.argmax(1)).double().mean())


SAMPLERS = {"ddim 5": DDIM(5), "ddim 20": DDIM(20), "heun 10": Heun(10), "abm 10": ExponentialABM(10)}


@pytest.mark.parametrize("classes", [2, 6, 50])
@pytest.mark.parametrize("name", SAMPLERS)
def test_from_zero_deterministic_samplers_end_at_the_most_likely_class(name, classes):
    r"""The lemma: embeddings of equal norms and inner products keep the order of p along each step."""
    log_p = torch.randn(500, classes, generator=generator(4), dtype=torch.float64).log_softmax(1)
    classifier, sampler = exact(lambda x: x, classes), SAMPLERS[name]
    grid = sampler.grid(classifier.process, sampler.steps)
    bound = Bound(classifier.given(log_p), None)
    u = sampler.integrate(bound, torch.zeros_like(log_p), grid, torch.zeros_like)
    assert bool((u.argmax(1) == log_p.argmax(1)).all())


def test_embeddings_of_unequal_norms_break_that():
    log_p = torch.randn(2000, 6, generator=generator(4), dtype=torch.float64).log_softmax(1)
    embedding = torch.diag(torch.linspace(0.5, 2.0, 6, dtype=torch.float64))
    found = exact(lambda x: x, 6, 10, embedding)(log_p).argmax(1)
    assert 0.5 < float((found == log_p.argmax(1)).double().mean()) < 0.9


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
