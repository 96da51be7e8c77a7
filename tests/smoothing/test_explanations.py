r"""Explanations, on classifiers whose smoothed probability and its gradient are known in closed form."""

import io
import math

import numpy as np
import pytest
import torch
from explanation_parts import POINT, SIDE, SIGMA, W, explained, half_space, seeded, smoothed
from PIL import Image
from scipy import stats
from torch import nn

from scoregen.smoothing import Gaussian, Laplace, LogNormal, SmoothedClassifier
from scoregen.smoothing.explanations import (
    CLIP,
    CLIPPED,
    LIPSCHITZ,
    Explanation,
    Moments,
    bernstein,
)
from scoregen.smoothing.maps import caption, map_png


def moments(eps, hit):
    r"""Of draws given as they are."""
    found = Moments(eps.new_zeros(eps.shape[1]))
    found.add(eps, hit)
    return found


def test_gradient_of_a_half_space_is_its_normal_over_sigma():
    found = explained()
    assert found.label == 1
    assert torch.cosine_similarity(found.gradient, W, 0) > 0.995
    error = (found.gradient - W / SIGMA) / found.standard_error
    assert float(error.abs().max()) < 4.5  # 20 entries: false alarm 1e-4
    assert abs(float(found.gradient.norm()) * SIGMA - 1) < 3 * SIGMA * float(found.standard_error.norm())
    assert abs(found.probability - stats.norm.cdf(0.786 / SIGMA)) < 4 * math.sqrt(0.055 / 10_000)
    torch.testing.assert_close(explained(classes=[0]).gradient, -found.gradient)


def test_standard_error_is_the_deviation_between_seeds_and_centring_saves_the_factor_1_minus_p():
    r"""800 repeats of 500 draws: an entry's deviation is known within 2.5 %, its mean over 20 within .6 %."""
    generator, estimates, errors, plain = seeded(1), [], [], []
    z = 0.786 / SIGMA
    for _ in range(800):
        eps = torch.randn(500, SIDE, generator=generator, dtype=torch.float64)
        hit = POINT @ W + SIGMA * (eps @ W) > 0
        gradient, error = moments(eps, hit).gradient(SIGMA)
        estimates.append(gradient), errors.append(error)
        plain.append(hit.double() @ eps / len(eps) / SIGMA)
    deviation = torch.stack(estimates).std(0)
    ratio = torch.stack(errors).square().mean(0).sqrt() / deviation
    assert bool(((ratio - 1).abs() < 0.15).all())
    assert abs(float(ratio.mean()) - 1) < 0.03
    across = torch.nn.functional.normalize(torch.eye(SIDE, dtype=torch.float64)[0] - W[0] * W, dim=0)
    centred = (torch.stack(estimates) @ across * stats.norm.pdf(z)).var()  # of grad F, at right angles to w
    assert float((torch.stack(plain) @ across).var() / centred) == pytest.approx(
        1 / (1 - stats.norm.cdf(z)), rel=0.2
    )  # two sd of a ratio of variances of 800


def test_gradient_of_a_ball_points_to_its_centre_and_turns_with_the_input():
    generator = seeded(2)
    eps = torch.randn(20_000, 4, generator=generator, dtype=torch.float64)
    x = torch.tensor([0.8, 0.0, 0.0, 0.0], dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    gradients = [
        moments(draws, (point + SIGMA * draws).norm(dim=1) < 1).gradient(SIGMA)[0]
        for point, draws in ((x, eps), (turn @ x, eps @ turn.T))
    ]
    assert torch.cosine_similarity(gradients[0], -x, 0) > 0.995
    torch.testing.assert_close(gradients[1], turn @ gradients[0])


def test_an_entry_that_the_classifier_ignores_has_no_gradient():
    def first_alone(y):
        return torch.stack((-y[:, 0], y[:, 0]), 1)

    found = explained(classifier=first_alone, x=torch.full((SIDE,), 0.3, dtype=torch.float64))
    assert float((found.gradient / found.standard_error)[1:].abs().max()) < 4
    assert float(found.gradient[0] / found.standard_error[0]) > 20


def test_the_constant_is_the_largest_slope_of_the_gradient():
    r"""F of {|x_1| > sigma} has second derivative 2 phi(1)/sigma^2 at 0; no other set of intervals has more."""

    def slope(x, ends):
        r"""F'(x) of the set of intervals (a, b): a sum of normal densities."""
        return sum(stats.norm.pdf(a, x, SIGMA) - stats.norm.pdf(b, x, SIGMA) for a, b in ends)

    h = 1e-5
    tight = [(-math.inf, -SIGMA), (SIGMA, math.inf)]
    assert (slope(h, tight) - slope(-h, tight)) / (2 * h) * SIGMA**2 == pytest.approx(LIPSCHITZ, abs=1e-6)
    assert pytest.approx(0.48394, abs=1e-5) == LIPSCHITZ
    random = np.random.default_rng(0)
    for _ in range(200):
        ends = np.sort(random.normal(size=(1, 6)) * 2 * SIGMA).reshape(3, 2)
        second = (slope(h, ends) - slope(-h, ends)) / (2 * h) * SIGMA**2
        assert abs(second) <= LIPSCHITZ + 1e-6


def test_bernstein_covers_the_mean_and_clipping_costs_what_is_taken_off():
    r"""Rare large values, where a normal approximation fails: 3,000 repeats, 150 may miss at alpha .05."""
    values = torch.from_numpy(np.random.default_rng(0).random((3000, 400)) < 0.01).double() * -4
    assert sum(bernstein(row, 4.0, 0.05) > -0.04 for row in values) <= 150
    assert float(np.mean([row.mean() - 1.645 * row.std() / 20 > -0.04 for row in values])) > 0.05  # the normal one
    assert stats.norm.expect(lambda z: z - CLIP, lb=CLIP) == pytest.approx(CLIPPED, rel=1e-6)


def test_direction_radius_and_cosine_are_never_above_the_truth_and_not_far_below():
    r"""Half-space: <grad F(x + d), v> = phi((m + w.d)/sigma) w.v / sigma, m its margin; alpha .05, 60 inputs."""
    g = smoothed(batch_size=2048)
    found = g.explain(POINT.expand(60, SIDE), 2000, alpha=0.05, generator=seeded(3))
    slope = stats.norm.pdf(0.786 / SIGMA) / SIGMA
    along = np.array([float(one.direction @ W) for one in found])
    radii, cosines = (np.array([getattr(one, name) for one in found]) for name in ("direction_radius", "cosine_lower"))
    lows = radii * LIPSCHITZ / SIGMA**2
    assert (lows > slope * along).sum() <= 3
    assert (cosines > along).sum() <= 6
    assert 0 < radii.max() < 0.82 * SIGMA
    sharp = g.explain(POINT[None], 30_000, alpha=0.05, generator=seeded(3))[0]
    assert sharp.direction_radius * LIPSCHITZ / SIGMA**2 == pytest.approx(
        0.9 * slope, rel=0.1
    )  # below, as is the cosine
    assert 0.8 < sharp.cosine_lower < 1


def test_the_bound_of_the_slope_uses_draws_that_did_not_choose_the_direction():
    r"""A coin, which no direction raises: of 150 inputs 8 may have a radius at alpha .05."""

    def coin(y):
        r"""A hash of the input's bits: F is flat."""
        bit = ((y.double() * 1e4).floor().long().sum(1) % 2).double()
        return torch.stack((bit, 1 - bit), 1)

    found = smoothed(coin).explain(POINT.expand(150, SIDE), 256, alpha=0.05, generator=seeded(4))
    assert sum(one.direction_radius > 0 for one in found) <= 8
    assert float(np.mean([np.mean(one.standard_error.numpy()) for one in found])) == pytest.approx(
        math.sqrt(0.25 / 256) / (SIGMA * stats.norm.pdf(0)), rel=0.05
    )


def test_if_all_draws_agree_nothing_is_known():
    found = explained(200, x=100 * W)
    assert found.probability == 1 and found.direction_radius == 0 and found.cosine_lower == -1
    assert not found.gradient.any() and not found.direction.any()
    assert bool(found.standard_error.isinf().all())


def same(a, b):
    return all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in ("gradient", "standard_error", "direction")
    ) and (a.direction_radius, a.cosine_lower, a.label) == (b.direction_radius, b.cosine_lower, b.label)


def test_batch_size_and_order_change_no_bit_and_certificates_do_not_change():
    x = torch.stack((POINT, 0.3 * W, -0.2 * W))
    found = smoothed(batch_size=128).explain(x, 500, generator=seeded(5), indices=[4, 9, 2])
    for size in (7, 300):
        other = smoothed(batch_size=size).explain(x.flip(0), 500, generator=seeded(5), indices=[2, 9, 4])
        assert all(map(same, found, other[::-1]))
    assert not torch.equal(found[0].gradient, smoothed().explain(x, 500, generator=seeded(6))[0].gradient)
    g = smoothed()
    before = g.certify(x, 500, generator=seeded(7))
    g.explain(x, 200, generator=seeded(7))
    assert g.certify(x, 500, generator=seeded(7)) == before
    assert [c.candidate for c in before] == [e.label for e in g.explain(x, 200, generator=seeded(7))]


def test_images_keep_their_shape_and_half_precision_weights_their_type():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(3, 12, generator=seeded(8)))
        network[1].bias.zero_()
    found = SmoothedClassifier(network, Gaussian(0.5), 3).explain(
        torch.rand(2, 3, 2, 2, generator=seeded(9)), 300, top=3
    )
    assert {one.gradient.shape for one in found} == {(3, 2, 2)}
    assert {one.top.radius.shape for one in found} == {(3, 2, 2)}
    assert found[0].gradient.dtype == torch.float64
    assert all(p.grad is None for p in network.parameters())


def test_what_cannot_be_explained_is_refused():
    x = POINT[None]
    for noise in (Laplace(0.5), LogNormal(0.5, offset=3.0)):
        with pytest.raises(TypeError, match=rf"noise must be Gaussian, .* got {type(noise).__name__}"):
            SmoothedClassifier(half_space, noise, 2).explain(x)
    for options, message in (
        ({"n": 3}, "n must be a whole number >= 4, got n=3"),
        ({"alpha": 0.7}, "alpha must lie in"),
        ({"top": 0}, "top must be a whole number >= 1"),
        ({"top": 21}, "top must be at most the 20 entries of an input, got top=21"),
        ({"classes": [2]}, r"classes must hold 1 labels below 2, got \[2\]"),
        ({"classes": [0, 1]}, r"classes must hold 1 labels below 2, got \[0, 1\]"),
        ({"indices": [1, 2]}, "indices must hold 1 different numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            smoothed().explain(x, **{"n": 100} | options)
    with pytest.raises(ValueError, match="top needs a classifier with gradients"):
        smoothed(lambda y: half_space(y.detach())).explain(x, 100, top=2)
    assert smoothed().explain(x[:0], 100) == []


def test_answers_that_are_no_numbers_and_classifiers_of_the_batch_are_refused():
    def broken(y):
        return half_space(y).masked_fill((y[:, :1] > 1.5), math.nan)

    with pytest.raises(ValueError, match="must return finite numbers"):
        explained(20_000, broken)
    with pytest.raises(ValueError, match="must treat each input by itself"):
        explained(200, lambda y: half_space(y - 3 * y.mean(0)))


def test_a_map_is_red_where_the_probability_rises_and_pale_below_two_errors():
    direction = torch.tensor([[[0.5, -0.5], [0.5, -0.25]], [[0.3, 0.0], [0.3, 0.0]]]).double()  # two channels
    gradient, error = 3 * direction, torch.full((2, 2, 2), 0.1).double()
    error[:, 1, 0] = 2.0
    found = Explanation(1, 0.9, 0.8, gradient, error, direction, 0.12349, 0.6789, 100, 1e-3)
    pixels = np.array(Image.open(io.BytesIO(map_png(found))))
    assert pixels.tolist() == [[[255, 0, 0], [96, 96, 255]], [[255, 204, 204], [175, 175, 255]]]
    assert caption(found, "label 1") == "map of label 1: an ascent direction within 0.123, cosine at least 0.67"
    nothing = explained(200, x=100 * W)
    assert caption(nothing, "label 1") == "map of label 1: no direction is proved"
