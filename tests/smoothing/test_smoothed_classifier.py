r"""The smoothed classifier end to end, on classifiers whose exact radius is known."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from scoregen.smoothing import Gaussian, Laplace, LogNormal, LogNormalGain, LogNormalGamma, SmoothedClassifier, Uniform
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.dataset import certify_dataset
from scoregen.smoothing.guard import Guard

ALPHA, N, INPUTS = 0.05, 200, 2000


def linear(w, transform=lambda y: y):
    r"""Class 0 where w . transform(y) <= 0."""

    def classifier(y):
        margin = transform(y) @ w
        return torch.stack((-margin, margin), 1)

    return classifier


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Bands:
    r"""Class floor(3 y_0), clipped to 0..3: probabilities that no symmetry makes equal."""

    def __init__(self):
        self.log = []

    def __call__(self, y):
        self.log.append(len(y))
        return nn.functional.one_hot((3 * y.flatten(1)[:, 0]).floor().clamp(0, 3).long(), 4).double()


INPUTS_1D = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None]

# noise, direction w of the linear classifier, coordinates, exact radius of a margin
AXIS, TILTED = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.6, -0.8]).double()
PIPELINES = {
    "l2": (Gaussian(0.5), TILTED, lambda y: y),
    "l1 uniform": (Uniform(1.0), AXIS, lambda y: y),
    "l1 Laplace": (Laplace(0.5), AXIS, lambda y: y),
    "log-l2": (LogNormal(0.5), TILTED, torch.log),
    "log-l2 with offset": (LogNormal(0.5, offset=0.3), TILTED, lambda y: (y + 0.3).log()),
    "gain": (LogNormalGain(0.5), AXIS, torch.log),  # log(a x) = log a + log x
    # log|log x^a| = log a + log|log x|; rounded to float32 a few powers are 1 or 0
    "gamma": (LogNormalGamma(1.0), AXIS, lambda y: y.log().abs().clamp(1e-9, 1e3).log()),
}


@pytest.mark.parametrize(
    ("case", "method"),
    [(case, "fixed") for case in PIPELINES] + [("l2", m) for m in ("selection_free", "top2", "stitched", "ladder")],
)
def test_radii_exceed_the_exact_radius_of_a_linear_classifier_seldom(case, method):
    # the exact radius is the margin; at most the 99.9 % quantile of Bin(2000, alpha) certificates may be false
    noise, w, transform = PIPELINES[case]
    x = torch.rand(INPUTS, 2, generator=seeded(1), dtype=torch.float64) + 0.2
    centre = torch.full((2,), 0.7, dtype=torch.float64)
    signed = (transform(x) - transform(centre)) @ w
    g = SmoothedClassifier(linear(w, lambda y: transform(y) - transform(centre)), noise, 2)
    certificates = g.certify(x, n=N, n0=10, alpha=ALPHA, method=method, generator=seeded(2))
    false = [
        c.label != -1 and (c.label != int(m > 0) or c.radius > abs(m))
        for c, m in zip(certificates, signed.tolist(), strict=True)
    ]
    assert sum(false) <= stats.binom.ppf(0.999, INPUTS, ALPHA)
    assert np.mean([c.radius for c in certificates]) > 0.4 * float(signed.abs().mean())  # they are not idle


def test_fixed_is_cohens_certify_recomputed_from_the_counts():
    certificates = SmoothedClassifier(Bands(), Gaussian(0.25), 4).certify(
        INPUTS_1D, n=1000, method="fixed", generator=seeded()
    )
    assert {c.label == -1 for c in certificates} == {True, False}
    for c in certificates:
        assert int(c.counts.sum()) == c.n == 1000 and int(c.selection.sum()) == 100
        top = int(c.selection.argmax())
        p = stats.beta.ppf(0.001, int(c.counts[top]), 1000 - int(c.counts[top]) + 1)
        expected = (top, 0.25 * stats.norm.ppf(p)) if p >= 0.5 else (-1, 0.0)
        assert (c.label, c.radius) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert c.p_lower == pytest.approx(p, rel=1e-12)


def test_counts_are_binomial_with_the_exact_probability():
    # chi-square over 40 inputs, false-alarm rate 1e-3
    x = torch.zeros(40, 1, dtype=torch.float64)
    certificates = SmoothedClassifier(linear(torch.ones(1).double(), lambda y: y - 0.2), Gaussian(0.5), 2).certify(
        x, n=2000, method="fixed", generator=seeded()
    )
    p = stats.norm.cdf(0.4)
    z = [(int(c.counts[0]) - 2000 * p) / np.sqrt(2000 * p * (1 - p)) for c in certificates]
    assert stats.chi2.ppf(0.0005, 40) < np.sum(np.square(z)) < stats.chi2.ppf(0.9995, 40)


@pytest.mark.parametrize("method", ["fixed", "ladder"])
@pytest.mark.parametrize("batch_size", [7, 50, 128, 1000])
def test_certificates_do_not_depend_on_batch_size_order_or_company(method, batch_size):
    def certify(order, batch_size):
        g = SmoothedClassifier(Bands(), Gaussian(0.25), 4, batch_size=batch_size)
        return g.certify(INPUTS_1D[order], n=500, n0=30, method=method, generator=seeded(), indices=order)

    order = list(range(7))
    reference = certify(order, None)
    assert certify(order, batch_size) == reference
    assert certify(order[::-1], batch_size)[::-1] == reference
    assert [certify([i], batch_size)[0] for i in order] == reference


def test_certificates_do_not_depend_on_the_number_of_threads():
    g = SmoothedClassifier(Bands(), Gaussian(0.25), 4)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(g.certify(INPUTS_1D, n=1000, generator=seeded()))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_another_seed_and_another_index_give_other_noise():
    g = SmoothedClassifier(Bands(), Gaussian(0.25), 4)
    x = INPUTS_1D[[3, 3]]
    first, second = g.certify(x, n=1000, generator=seeded())
    assert first.counts.tolist() != second.counts.tolist()
    assert g.certify(x, n=1000, generator=seeded(1))[0].counts.tolist() != first.counts.tolist()


def test_selection_and_estimation_use_different_noise():
    c = SmoothedClassifier(Bands(), Gaussian(0.25), 4).certify(
        INPUTS_1D[3:4], n=100, n0=100, method="fixed", generator=seeded()
    )[0]
    assert c.counts.tolist() != c.selection.tolist()


@pytest.fixture
def unguarded(monkeypatch):
    r"""Without the guard, which classifies copies of its own; tests/smoothing/test_guard.py is about it."""
    for name in ("before", "after"):
        monkeypatch.setattr(Guard, name, lambda guard: None)
    monkeypatch.setattr(Guard, "recount", lambda guard, requests, seed, answers: None)


@pytest.mark.parametrize("method", ["fixed", "top2", "selection_free", "stitched", "ladder"])
def test_no_draw_is_used_twice(method, unguarded):
    # over stages, looks, chunks and equal inputs: counting a draw twice would make bounds false
    seen = []

    def undecided(y):
        seen.append(y.clone())
        return torch.stack((y[:, 0], -y[:, 0]), 1)

    x = torch.tensor([[0.3], [0.3]], dtype=torch.float64)
    certificates = SmoothedClassifier(undecided, Gaussian(1.0), 2).certify(x, n=700, method=method, generator=seeded())
    draws = torch.cat(seen).flatten()
    assert len(draws) == sum(c.draws for c in certificates)
    assert len(draws.unique()) > len(draws) - 5  # rounded to float32, two may meet; a chunk has 20 and more
    assert method == "ladder" or len(draws) >= 2 * 700
    assert method not in ("stitched", "ladder") or all(len(c.path) > 1 for c in certificates)


def test_several_inputs_share_full_batches(unguarded):
    classifier = Bands()
    SmoothedClassifier(classifier, Gaussian(0.25), 4, batch_size=128).certify(
        INPUTS_1D, n=300, n0=20, method="fixed", generator=seeded()
    )
    assert sum(classifier.log) == 7 * 320
    assert sum(size == 128 for size in classifier.log) >= len(classifier.log) - 3  # at most one small batch a round


def test_scaling_input_and_noise_scales_the_radius():
    w = torch.tensor([0.6, -0.8], dtype=torch.float64)
    x = torch.tensor([[0.1, 0.5]], dtype=torch.float64)
    radii = [
        SmoothedClassifier(linear(w), Gaussian(0.5 * a), 2)
        .certify(a * x, n=1000, method="fixed", generator=seeded())[0]
        .radius
        for a in (1, 4)
    ]
    assert radii[1] == pytest.approx(4 * radii[0], rel=1e-12)


def test_predict_gives_the_smoothed_label_or_abstains():
    g = SmoothedClassifier(linear(torch.ones(1).double()), Gaussian(0.5), 2)
    x = torch.tensor([[-0.5], [0.0], [0.5]], dtype=torch.float64)
    assert g.predict(x, n=1000, generator=seeded()).tolist() == [0, -1, 1]


def test_precision_is_the_forward_pass_of_another_classifier():
    network = nn.Linear(3, 2).eval()
    seen = []
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    x = torch.zeros(1, 3)
    SmoothedClassifier(network, Gaussian(0.5), 2, precision=torch.bfloat16).certify(x, n=100)
    SmoothedClassifier(network, Gaussian(0.5), 2).certify(x, n=100)
    assert set(seen) == {torch.bfloat16, torch.float32}


def test_no_input_gives_no_certificate():
    assert SmoothedClassifier(Bands(), Gaussian(0.25), 4).certify(INPUTS_1D[:0], n=100) == []


class _Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout()

    def forward(self, y):
        return self.drop(y)


def test_a_classifier_in_training_mode_is_refused():
    head = _Head().eval()
    head.drop.train()
    with pytest.raises(
        ValueError, match=r"evaluation mode, got 'classifier.drop' in training mode\. Call classifier.eval\(\)"
    ):
        SmoothedClassifier(head, Gaussian(0.5), 2)
    g = SmoothedClassifier(head.eval(), Gaussian(0.5), 2)
    head.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        g.certify(torch.zeros(1, 2), n=100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 9}, "n must be at least 10"),
        ({"n": 1000, "max_radius": 2.0, "method": "fixed"}, "to certify radius 2.0, got n=1000"),
        ({"n": 1000, "max_radius": 2.0, "method": "ladder"}, "to certify radius 2.0, got n=1000"),
        ({"alpha": 0.7}, "alpha must lie in"),
        ({"method": "ladderr"}, "Did you mean 'ladder'"),
        ({"n0": 0}, "n0 must be a whole number"),
        ({"n": 100, "indices": [1, 1]}, "2 different numbers"),
    ],
)
def test_bad_requests_are_refused(arguments, message):
    g = SmoothedClassifier(Bands(), Gaussian(0.5), 4)
    with pytest.raises(ValueError, match=message):
        g.certify(INPUTS_1D[:2], **arguments)


def test_bad_inputs_are_refused():
    g = SmoothedClassifier(Bands(), Gaussian(0.5), 4)
    with pytest.raises(TypeError, match="floating-point"):
        g.certify(torch.zeros(1, 2, dtype=torch.uint8), n=100)
    with pytest.raises(ValueError, match="finite"):
        g.certify(torch.full((1, 2), torch.nan), n=100)
    with pytest.raises(ValueError, match=r"logits of shape .*128, 5.*Set num_classes"):
        SmoothedClassifier(Bands(), Gaussian(0.5), 5).certify(INPUTS_1D[:1], n=100)
    with pytest.raises(ValueError, match="num_classes must be a whole number >= 2, got num_classes=1"):
        SmoothedClassifier(Bands(), Gaussian(0.5), 1)
    with pytest.raises(TypeError, match="noise must be"):
        SmoothedClassifier(Bands(), 0.5, 4)


def test_an_answer_that_is_no_number_is_an_error(unguarded):
    r"""argmax of NaN, or of nothing but infinities, is class 0, which would be certified."""
    for value in (torch.nan, torch.inf, -torch.inf):
        g = SmoothedClassifier(lambda y, value=value: torch.full((len(y), 3), value), Gaussian(0.5), 3)
        with pytest.raises(ValueError, match=r"got NaN or infinity .* of 100 noisy copies of input 7"):
            g.certify(torch.zeros(1, 4), n=1000, method="fixed", generator=seeded(), indices=[7])
    g = SmoothedClassifier(lambda y: torch.stack((y[:, 0] * 0, y[:, 0] - torch.inf), 1), Gaussian(0.5), 2)
    assert g.certify(torch.zeros(1, 4), n=100, method="fixed", generator=seeded())[0].label == 0  # a masked class


def test_a_bad_input_is_named():
    with pytest.raises(ValueError, match="x must be finite, got input 1 with NaN"):
        SmoothedClassifier(Bands(), Gaussian(0.5), 4).certify(torch.tensor([[0.3], [torch.nan]]), n=200)


@pytest.mark.parametrize(
    ("noise", "radius"), [(Gaussian(0.5), -1.0), (Gaussian(0.5), 50.0), (Gaussian(0.5), torch.nan)]
)
def test_a_radius_that_no_n_can_reach_is_refused(noise, radius):
    with pytest.raises(ValueError, match="max_radius must be >= 0 and below what Gaussian"):
        SmoothedClassifier(Bands(), Gaussian(0.5), 4).certify(INPUTS_1D, n=1000, method="ladder", max_radius=radius)


class BatchStatistics(nn.Module):
    r"""A network that was exported in training mode: its batch norm takes mean and variance of the batch."""

    def __init__(self, training):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        self.norm_trains = training

    def forward(self, y):
        self.layers[1].train(self.norm_trains)
        answer = self.layers(y)
        self.layers[1].eval()
        return answer


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_classifier_whose_answer_depends_on_its_batch_is_refused(precision, tmp_path):
    torch.manual_seed(0)
    x, method = torch.rand(1, 1, 8, 8), make_method("fixed", Gaussian(0.25), n=100)

    def smoothed(classifier):
        return SmoothedClassifier(classifier, Gaussian(0.25), 3, precision=precision)

    assert smoothed(BatchStatistics(False).eval()).certify(x, n=100)
    with pytest.raises(ValueError, match="changed with the other inputs in the batch"):
        smoothed(BatchStatistics(True).eval()).certify(x, n=100)
    coin, coupled = (lambda y: torch.randn(len(y), 3)), BatchStatistics(True).eval().forward
    for classifier, message in ((coin, "gave different logits"), (coupled, "in the batch")):
        with pytest.raises(ValueError, match=message):
            certify_dataset(smoothed(classifier), [(x[0], 0)], [0], method, tmp_path, seed=0)
    assert not list(tmp_path.iterdir())


class BatchMean(nn.Module):
    r"""The answer is the sign of the mean of the whole batch; the logits of the other classes are `beside`."""

    def __init__(self, beside, offset=0.0):
        super().__init__()
        self.beside, self.offset = beside, offset

    def forward(self, y):
        m = y.mean().expand(len(y))
        return torch.stack((m, -m, torch.full_like(m, self.beside)), 1) + self.offset


@pytest.mark.parametrize(("beside", "offset"), [(-1.0, 0.0), (-1e4, 0.0), (-torch.inf, 0.0), (-1.0, 100.0)])
def test_a_masked_class_or_an_offset_hides_no_dependence_on_the_batch(beside, offset):
    g = SmoothedClassifier(BatchMean(beside, offset).eval(), Gaussian(0.5), 3)
    with pytest.raises(ValueError, match="changed with the other inputs in the batch"):
        g.certify(torch.full((1, 4), 0.05), n=100)


class Shared(nn.Module):
    r"""One draw decides for the whole batch: draws are not independent, and 1,000 of them prove nothing."""

    def forward(self, y):
        coin = torch.randn(()).expand(len(y))
        return torch.stack((coin, -coin), 1)


def test_chance_that_a_batch_shares_is_refused():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="the same input gave different logits"):
        SmoothedClassifier(Shared().eval(), Gaussian(0.5), 2).certify(torch.rand(2, 3), n=100)
