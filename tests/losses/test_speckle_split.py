r"""Training on speckled images alone: the two parts of a split, and what their loss is minimised by."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from speckle_parts import LOG, Model, complex_speckle, intensities, parts
from torch import nn

from scoregen.keys import Keys
from scoregen.losses import DataWeighting, OptimalTransportPairing, SpeckleSplit
from scoregen.losses.gammas import log_gammas, log_shares
from scoregen.rng import generator
from scoregen.sde import EDM, VP, Multiplicative

RANGED = Multiplicative(EDM(0.002, 20.0), offset=0.02, data_range=(0.0, 1.0))
N = 200_000


def halves(loss, x, fraction, sde=LOG, seed=1):
    return loss.halves(sde, x, torch.full((len(x),), fraction, dtype=torch.float64), generator(seed))


def bias(looks: float) -> float:
    return float(torch.digamma(torch.tensor(looks, dtype=torch.float64))) - math.log(looks)


@pytest.mark.parametrize("shape", [0.1, 0.4, 1.0, 3.6, 50.0])
def test_gamma_draws_have_their_law(shape):
    r"""Kolmogorov-Smirnov on 20,000 draws: false alarm 1e-4."""
    keys = Keys(0, 1, 2, range(20))
    draws = log_gammas(torch.full((20,), shape, dtype=torch.float64), (20, 1000), keys, torch.float64)
    assert stats.kstest(draws.flatten().exp().numpy(), stats.gamma(shape).cdf).pvalue > 1e-4


def test_shares_have_the_law_of_beta_and_sum_to_one():
    shapes = torch.full((10,), 0.4, dtype=torch.float64), torch.full((10,), 1.6, dtype=torch.float64)
    b = log_shares(*shapes, (10, 2000), Keys(0, 1, 2, range(10)), torch.float64).exp()
    torch.testing.assert_close(b.sum(0), torch.ones_like(b[0]))
    assert stats.kstest(b[0].flatten().numpy(), stats.beta(0.4, 1.6).cdf).pvalue > 1e-4


def test_a_tiny_shape_has_finite_logarithms_in_single_precision():
    draws = log_gammas(torch.full((4,), 0.01), (4, 10_000), Keys(0, 1, 2, range(4)), torch.float32)
    assert bool(draws.isfinite().all()) and draws.min() < -200  # exp of it is 0


def test_draws_of_a_sample_do_not_depend_on_how_the_batch_is_cut():
    loss, x = SpeckleSplit(4), intensities(torch.full((6, 1, 8, 8), 0.3), 4)
    model, quantile = Model(lambda u, s: u / 2), torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    whole = loss(model, x, generator=Keys(0, 1, 5, range(6)), quantile=quantile)
    cut = [
        loss(model, x[a:b], generator=Keys(0, 1, 5, range(a, b)), quantile=quantile[a:b]) for a, b in ((0, 2), (2, 6))
    ]
    torch.testing.assert_close(torch.cat(cut), whole, rtol=0, atol=0)


@pytest.mark.parametrize(("looks", "fraction"), [(4.0, 0.1), (4.0, 0.5), (1.0, 0.7), (2.5, 0.9)])
def test_the_parts_are_unbiased_independent_and_have_their_looks(looks, fraction):
    r"""Means 1, variances 1/L1 and 1/L2, covariance 0: 5 standard errors."""
    x = intensities(torch.ones(1, N, dtype=torch.float64), looks)
    found = halves(SpeckleSplit(looks), x, fraction)
    each = [looks * (1 - fraction), looks * fraction]
    y = [(part * math.exp(bias(k))).flatten() for part, k in zip(parts(found), each, strict=True)]
    for part, k, noise in zip(y, each, (found.s, found.noise), strict=True):
        assert abs(part.mean() - 1) < 5 / (N * k) ** 0.5
        # the fourth central moment of Gamma(k, 1/k) is 3/k^2 + 6/k^3
        assert abs(part.var() - 1 / k) < 5 * ((2 / k**2 + 6 / k**3) / N) ** 0.5
        assert abs(part.log().var() - noise.item() ** 2) < 0.02 * noise.item() ** 2
    covariance = ((y[0] - 1) * (y[1] - 1)).mean()
    assert abs(covariance) < 5 / (N * each[0] * each[1]) ** 0.5


def test_input_and_target_are_the_state_that_despeckling_starts_from():
    r"""Means: y_0 for both, in the coordinates of a standardised chart; the offset is not added to an intensity."""
    scene = torch.full((1, N), 0.52, dtype=torch.float64)
    found = halves(SpeckleSplit(4.0), intensities(scene, 4.0), 0.5, RANGED)
    y_0 = RANGED.to_chart(scene[0, :1] - 0.02)
    for y, noise in ((found.u, found.s), (found.target, found.noise)):
        assert abs(y.mean() - y_0).item() < 5 * noise.item() / N**0.5


@pytest.mark.parametrize("fraction", [0.15, 0.5, 0.85])
def test_the_minimiser_is_the_posterior_mean_of_inverse_gamma_scenes(fraction):
    r"""X ~ InvGamma(A, B): E[log X | y1] = log(B + L1 y1) - psi(A + L1). At this D the gradient vanishes: 5 standard
    errors of its mean over pixels. The same D with the looks of the whole image is 7 and more of them off."""
    shape, scale, looks = 3.0, 2.0, 4.0
    kept = looks * (1 - fraction)

    def exact(u, s, of=kept):
        y1 = (u + bias(kept)).exp()
        return (scale + of * y1).log() - torch.digamma(torch.tensor(shape + of, dtype=torch.float64))

    scenes = torch.from_numpy(scale / np.random.default_rng(3).gamma(shape, size=(400, 500)))
    x = intensities(scenes, looks)
    z = [gradients(SpeckleSplit(looks, (fraction, fraction), power=0.0), Model(f), x) for f in (exact, wrong(exact))]
    assert max(z[0]) < 5 < 7 < max(z[1])


def wrong(exact):
    return lambda u, s: exact(u, s, of=4.0)


def gradients(loss, model, x):
    r"""The gradient of the mean loss, in standard errors over samples, by parameter."""
    model.constant, model.slope = (nn.Parameter(torch.zeros(len(x), 1, dtype=torch.float64)) for _ in range(2))
    total = loss(model, x, generator=generator(1)).sum()  # each sample has parameters of its own
    each = torch.cat(torch.autograd.grad(total, [model.constant, model.slope]), 1)
    return (each.mean(0).abs() / (each.std(0) / len(x) ** 0.5)).tolist()


def fitted(found):
    r"""Intercept and slope of the least squares of a target on an input."""
    u, t = found.u.flatten(), found.target.flatten()
    slope = ((u - u.mean()) * (t - t.mean())).mean() / u.var(correction=0)
    return slope.item(), (t.mean() - slope * u.mean()).item()


def test_a_linear_denoiser_is_the_regression_on_the_clean_image():
    r"""Log-normal X: slope v/(v + psi_1(L1)), to Monte Carlo error (5 standard errors)."""
    looks, fraction, v, mean = 4.0, 0.4, 0.5, -1.0
    scene = (mean + v**0.5 * torch.randn(1, N, generator=generator(4), dtype=torch.float64)).exp()
    found = halves(SpeckleSplit(looks), intensities(scene, looks), fraction)
    kept, given = found.s.item() ** 2, found.noise.item() ** 2
    exact = v / (v + kept)
    slope, constant = fitted(found)
    error = 5 * ((v + given) / (v + kept) / N) ** 0.5
    assert abs(slope - exact) < error
    assert abs(constant - (1 - exact) * mean) < error * (1 + abs(mean))


def test_two_copies_of_one_image_teach_the_identity():
    r"""What a split that is none would do, and correlated speckle does in part: the same regression has slope 1."""
    looks = 4.0
    scene = (-1 + 0.5**0.5 * torch.randn(1, N, generator=generator(4), dtype=torch.float64)).exp()
    found = halves(SpeckleSplit(looks), intensities(scene, looks), 0.4)
    slope, constant = fitted(found._replace(target=found.u))
    assert slope == pytest.approx(1) and constant == pytest.approx(0, abs=1e-9)


def test_real_and_imaginary_parts_are_the_split_in_halves():
    r"""Moments of the logarithms of complex single-look pixels, and of Beta splits of their intensities at a = 1/2."""
    z = complex_speckle(torch.ones(2, N // 2, dtype=torch.float64))
    loss = SpeckleSplit(1.0)
    for found in (halves(loss, z, 0.3), halves(loss, z.abs().square(), 0.5)):
        assert found.s[0].item() == found.noise[0].item() == pytest.approx(math.pi / 2**0.5)  # psi_1(1/2) = pi^2/2
        for y in (found.u, found.target):
            assert abs(y.mean().item()) < 5 * found.s[0].item() / N**0.5
            assert y.var().item() == pytest.approx(math.pi**2 / 2, rel=0.03)
        pair = torch.stack([found.u.flatten(), found.target.flatten()])
        assert abs(pair.corrcoef()[0, 1].item()) < 5 / N**0.5


def test_each_part_of_a_complex_image_is_input_in_half_of_the_images():
    z = torch.complex(torch.full((400, 3), 2.0), torch.ones(400, 3))
    y1, y2 = parts(halves(SpeckleSplit(1.0), z, 0.5))
    ratio = y1 / y2
    assert torch.equal(ratio, ratio[:, :1].expand_as(ratio))  # one order for each image
    assert set(ratio[:, 0].log2().round().tolist()) == {2.0, -2.0}
    assert abs((ratio[:, 0] > 1).double().mean().item() - 0.5) < 5 * 0.5 / 400**0.5


def test_complex_images_have_one_look():
    with pytest.raises(
        ValueError, match="looks must be 1 for complex images, whose speckle is of a single look, got 4"
    ):
        halves(SpeckleSplit(4.0), torch.ones(2, 3, dtype=torch.complex64), 0.5)


def test_the_weight_is_the_inverse_variance_of_the_residual():
    r"""On log-normal scenes of the variance sigma_data^2 the loss of the exact denoiser is 1 at every split."""
    scene = (0.5 * torch.randn(400, 500, generator=generator(5), dtype=torch.float64)).exp()
    for fraction in (0.1, 0.5, 0.9):
        loss = SpeckleSplit(16.0, (fraction, fraction), power=0.0)
        model = Model(lambda u, s: u * 0.25 / (0.25 + s[0].item() ** 2))
        found = loss(model, intensities(scene, 16.0), generator=generator(2)).mean().item()
        assert found == pytest.approx(1, abs=0.02)


def test_errors_count_in_intensities_by_the_slope_of_the_chart():
    x = intensities(torch.full((4, 50), 0.3, dtype=torch.float64), 4.0)
    plain, weighted = (
        SpeckleSplit(4.0, power=p, weighting=DataWeighting())(
            Model(lambda u, s: 0 * u - 0.7), x, generator=generator(1)
        )
        for p in (0.0, 1.0)
    )
    torch.testing.assert_close(weighted, plain * math.exp(-1.4))


@pytest.mark.parametrize("side", [(8, 8), (9, 7)])
def test_subsampling_takes_one_of_four_cells_for_each_image(side):
    x = torch.arange(math.prod(side), dtype=torch.float64).reshape(1, 1, *side).expand(200, 2, -1, -1) + 1
    found = SpeckleSplit(4.0, subsample=2).prepared(x, generator(0))
    height, width = (n // 2 * 2 for n in side)
    cells = {x[0, 0, i:height:2, j:width:2].numpy().tobytes() for i in (0, 1) for j in (0, 1)}
    assert {image.numpy().tobytes() for image in found[:, 0]} == cells and torch.equal(found[:, 0], found[:, 1])


def test_every_cell_is_taken_equally_often():
    x = torch.arange(4.0).reshape(1, 1, 2, 2).expand(4000, 1, -1, -1) + 1
    counts = SpeckleSplit(4.0, subsample=2).prepared(x, generator(0)).flatten().long().bincount()[1:]
    assert bool(((counts - 1000).abs() < 5 * 750**0.5).all())


def test_zeros_need_a_floor():
    x = torch.tensor([[0.5, 0.0, -1.0, math.nan]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"finite and > 0, got 3 of 4 that are not \(first: 0, -1, nan\)"):
        SpeckleSplit(4.0)(Model(lambda u, s: u), x)
    values = SpeckleSplit(4.0, floor=0.01)(Model(lambda u, s: u), torch.tensor([[0.5, 0.0]], dtype=torch.float64))
    assert bool(values.isfinite().all())


def test_levels_beyond_the_process_are_refused():
    sde = Multiplicative(EDM(0.002, 1.0), offset=0.02, data_range=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"0\.288 to 1\.37, must .* 0\.002 to 1\. .*0\.4 to 3\.6 looks.*above 1\.37"):
        SpeckleSplit(4.0, split=(0.1, 0.9)).begin(Model(None, sde))
    SpeckleSplit(4.0).begin(Model(None, sde))


def test_the_half_look_of_complex_images_must_lie_in_the_process_too():
    sde = Multiplicative(EDM(0.002, 1.0), offset=0.02, data_range=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"must lie .*0\.5 to 0\.85 looks"):
        SpeckleSplit(1.0).begin(Model(None, sde))


def test_an_additive_process_is_refused():
    with pytest.raises(
        TypeError, match=r"SpeckleSplit needs a multiplicative process, .* Train with sde=multiplicative"
    ):
        SpeckleSplit(4.0).begin(Model(None, VP()))


@pytest.mark.parametrize("split", [(0.0, 0.5), (0.5, 1.0), (0.6, 0.4), (0.5,)])
def test_fractions_out_of_range_are_refused(split):
    with pytest.raises(ValueError, match=r"split must be the smallest and the largest fraction, 0 < low <= high < 1"):
        SpeckleSplit(4.0, split)


def test_the_least_level_is_that_of_the_smallest_fraction():
    r"""The loss states it, also through a wrapper; inputs have it at that fraction, and the data have less noise."""
    loss = SpeckleSplit(4.0, split=(0.15, 0.35))
    found = halves(loss, intensities(torch.ones(1, 9), 4.0), 0.15, RANGED)
    rate = RANGED.chart.as_log().rate
    assert found.s.item() == pytest.approx(loss.least_s(RANGED))
    assert loss.least_s(RANGED) > rate * float(torch.polygamma(1, torch.tensor(4.0))) ** 0.5
    assert OptimalTransportPairing(loss).least_s(RANGED) == loss.least_s(RANGED)
