r"""What a smoothed classifier asks of its input and classifier: fresh draws, numbers, no dependence on the batch."""

import pytest
import torch
from smoothed_parts import INPUTS_1D, Bands, seeded
from torch import nn

from scoregen.smoothing import Gaussian, SmoothedClassifier
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.dataset import certify_dataset
from scoregen.smoothing.guard import Guard


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
