r"""What a dual certificate asks of its parts: draws of their own, functions, and experts that fit."""

import re
from pathlib import Path

import pytest
import torch
from dual_parts import always, dual, half_space
from smoothed_parts import seeded
from torch import nn

from scoregen.samplers import DDIM
from scoregen.sde import VP, Affine
from scoregen.smoothing import (
    DualSmoothing,
    Gaussian,
    Laplace,
    LogNormal,
    PurifiedClassifier,
    SmoothedClassifier,
    Uniform,
)
from scoregen.smoothing.guard import Guard
from tests.oracles import standard_mixture

PAGE = Path(__file__).parents[2] / "docs/certification.md"


@pytest.mark.parametrize("run", ["certify", "predict"])
def test_no_two_parts_share_draws(run, monkeypatch):
    r"""Noise, input and index are the same for all parts. The guards, which classify copies of their own, are away."""
    for name in ("before", "after"):
        monkeypatch.setattr(Guard, name, lambda guard: None)
    monkeypatch.setattr(Guard, "recount", lambda guard, requests, seed, answers: None)
    seen = []

    def recorded(y):
        seen.append(y.clone())
        return half_space([1.0], offset=-2.0)(y)

    g = dual([Gaussian(1.0)] * 3, [recorded] * 3)
    more = {"method": "fixed"} if run == "certify" else {}
    found = getattr(g, run)(torch.zeros(1, 1, dtype=torch.float64), n=300, generator=seeded(), **more)
    draws = torch.cat(seen).flatten()
    assert len(draws) == found[0].draws if run == "certify" else len(draws) >= 60
    assert len(draws.unique()) > len(draws) - 5  # rounded to float32, two may meet; a chunk has 44 and more


def test_where_a_part_abstains_nothing_is_claimed():
    x = torch.zeros(1, 1, dtype=torch.float64)
    unsure = half_space([1.0])
    calls = []

    def counted(y):
        calls.append(len(y))
        return always(0)(y)

    g = dual([Gaussian(0.5)] * 3, [unsure, counted, counted])
    c = g.certify(x, n=1000, generator=seeded())[0]
    assert (c.label, c.radius, c.n, c.candidate, c.counts.tolist()) == (-1, 0.0, 0, -1, [0, 0])
    assert c.draws == c.selector.draws > 0 and c.selector.label == -1
    assert g.predict(x, generator=seeded()).tolist() == [-1]
    assert calls == []  # an expert that is not chosen is not asked
    g = dual([Gaussian(0.5)] * 3, [always(0), unsure, unsure])
    c = g.certify(x, n=1000, generator=seeded())[0]
    assert (c.label, c.radius, c.selector.label) == (-1, 0.0, 0) and c.n > 0
    assert g.predict(x, generator=seeded()).tolist() == [-1]
    assert g.certify(x[:0], n=100) == [] and g.predict(x[:0]).tolist() == []


def test_max_radius_stops_the_selector_too():
    x = torch.zeros(1, 1, dtype=torch.float64)
    g = dual([Gaussian(1.0), Gaussian(0.2), Gaussian(1.0)], [always(0), always(0), always(1)])
    far, near = (g.certify(x, n=5000, max_radius=r, generator=seeded())[0] for r in (2.0, 0.3))
    assert near.selector.n < far.selector.n and near.n < far.n
    assert 0.3 < near.radius < far.radius
    assert far.radius > 0.5  # experts[0], which cannot reach 2.0 with 5,000 draws, went as far as it could


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 20_000, "n_selector": 100, "max_radius": 2.0}, r"^selector \(n is n_selector\): n must be .* got n=100"),
        ({"n": 100, "n_selector": 20_000, "max_radius": 2.0}, r"^experts\[1\]: n must be at least .* got n=100"),
        ({"n": 9, "n_selector": 100}, r"^experts\[0\]: n must be at least 11 to certify anything"),
        ({"alpha": 0.7}, "alpha must lie in"),
        ({"method": "ladderr"}, "Did you mean 'ladder'"),
        ({"n": 100, "indices": [1, 1]}, "2 different numbers"),
    ],
)
def test_bad_requests_are_refused_before_any_draw(arguments, message):
    calls = []

    def counted(y):
        calls.append(len(y))
        return always(0)(y)

    g = dual([Gaussian(1.0), Gaussian(0.2), Gaussian(1.0)], [counted] * 3)
    with pytest.raises(ValueError, match=message):
        g.certify(torch.zeros(2, 1), **arguments)
    assert calls == []


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"must measure one distance, got l2 for the selector and l2, l1 for the exp"):
        dual([Gaussian(0.5), Gaussian(0.5), Laplace(0.5)], [always(0)] * 3)
    with pytest.raises(ValueError, match=r"one distance, got l2 of log\(x \+ 0.1\) for .* l2 of log\(x \+ 0.2\)"):
        dual([LogNormal(0.5, 0.1), LogNormal(0.5, 0.1), LogNormal(0.5, 0.2)], [always(0)] * 3)
    dual([Uniform(0.5), Laplace(0.5), Laplace(0.5)], [always(0)] * 3)  # both radii are in l1
    with pytest.raises(ValueError, match="one class for each expert, got num_classes=2 and 1 experts"):
        dual([Gaussian(0.5)] * 2, [always(0)] * 2)
    g = SmoothedClassifier(always(0), Gaussian(0.5), 2)
    with pytest.raises(ValueError, match=r"the same classes, got num_classes=\[2, 3\]"):
        DualSmoothing(g, [g, SmoothedClassifier(always(0), Gaussian(0.5), 3)])


def neighbour(y):
    r"""A classifier that answers for the next row of its batch."""
    return half_space([1.0])(y.roll(1, 0))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_every_part_that_is_used_is_asked_whether_it_is_a_function(part):
    classifiers = [half_space([1.0])] * 3
    classifiers[part] = neighbour
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    g = dual([Gaussian(0.5)] * 3, classifiers)
    for run in (g.certify, g.predict):
        with pytest.raises(ValueError, match="changed with the other inputs in the batch"):
            run(x, n=200, generator=seeded())


class Chooser(nn.Module):
    sign = 1.0

    def forward(self, y):
        return half_space([1.0])(self.sign * y)


class Meddling(nn.Module):
    r"""An expert that turns another part, which it shares."""

    def __init__(self, other):
        super().__init__()
        self.other = other

    def forward(self, y):
        self.other.sign = -1.0
        return always(0)(y)


@pytest.mark.parametrize("turned", ["selector", "an expert before it"])
@pytest.mark.parametrize("run", ["certify", "predict"])
def test_a_part_that_another_one_changes_is_found(turned, run):
    chooser = Chooser().eval()
    parts = [chooser, always(0)] if turned == "selector" else [half_space([1.0]), chooser]
    g = dual([Gaussian(0.5)] * 3, [*parts, Meddling(chooser).eval()])
    with pytest.raises(ValueError, match="the inputs of the beginning were answered in another way"):
        getattr(g, run)(torch.tensor([[-1.0], [1.0]]), n=200, generator=seeded())


def test_experts_may_be_one_classifier_purified_at_each_sigma():
    denoiser = standard_mixture(VP(chart=Affine(2.0, -1.0)))
    sigmas = (0.2, 0.4)
    experts = [
        SmoothedClassifier(
            PurifiedClassifier(half_space([1.0, 0.0], offset=0.5), denoiser, DDIM(steps=1), s), Gaussian(s), 2
        )
        for s in sigmas
    ]
    selector = SmoothedClassifier(half_space([0.0, 1.0], offset=0.5), Gaussian(0.4), 2)
    x = torch.tensor([[0.1, 0.1], [0.9, 0.9]], dtype=torch.float64)
    found = DualSmoothing(selector, experts).certify(x, n=500, generator=seeded())
    assert [(c.selector.label, c.label) for c in found] == [(0, 0), (1, 1)]
    assert all(0.0 < c.radius <= c.selector.radius for c in found)


def test_the_example_of_the_page_runs():
    text = PAGE.read_text()
    (code,) = re.findall(r"## Dual smoothing\n.*?```python\n(.*?)```", text, re.S)
    names = {
        "selector": half_space([1.0], offset=0.5),
        "classifiers": [half_space([1.0], offset=0.3), half_space([1.0], offset=0.6)],
        "x": torch.tensor([[0.0], [1.5]]),
        "generator": seeded(),
    }
    exec(compile(code.replace("num_classes=10", "num_classes=2").replace("10_000", "500"), str(PAGE), "exec"), names)
    assert [c.label for c in names["certificates"]] == names["labels"].tolist() == [0, 1]
