r"""The smoothed classifier end to end, on classifiers whose exact radius is known."""

import numpy as np
import pytest
import torch
from scipy import stats
from smoothed_parts import INPUTS_1D, Bands, seeded
from torch import nn

from scoregen.smoothing import Gaussian, Laplace, LogNormal, LogNormalGain, LogNormalGamma, SmoothedClassifier, Uniform

ALPHA, N, INPUTS = 0.05, 200, 2000


def linear(w, transform=lambda y: y):
    r"""Class 0 where w . transform(y) <= 0."""

    def classifier(y):
        margin = transform(y) @ w
        return torch.stack((-margin, margin), 1)

    return classifier


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
