r"""ISTD and what stands beside it, against paths in closed form; constant speed; the error of inversion."""

import math
from itertools import pairwise

import pytest
import torch
from oracles import Independent, gaussian, gaussian_flow, standard_mixture

from scoregen.data import ArrayDataset
from scoregen.metrics import constant_speed_path, frechet_distance, istd, reconstruction_error, ssim
from scoregen.metrics.reconstruction import DDIMInversion, reconstruction_sweep
from scoregen.metrics.smoothness import noise_pairs, path_images, path_numbers, steps_of
from scoregen.rng import generators, randn
from scoregen.samplers import DDIM, RK4, Ancestral, Heun, decode, encode, slerp
from scoregen.samplers.from_noise import FromNoise
from scoregen.sde import EDM, VP, GeometricBrownianMotion

DATA = ArrayDataset(torch.rand(40, 3, generator=torch.Generator().manual_seed(0)))


def linear(z):
    return 0.3 * z + 1


def unit(a, b, weight):
    r"""Great circle between the directions: ends of equal norm."""
    return slerp(a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True), weight)


def test_a_linear_generator_with_ends_of_equal_norm_has_no_variation():
    r"""Ten chords of one angle of a circle: equal steps 2 r sin(theta/20)."""
    found = istd(linear, DATA, pairs=20, blend=unit, dtype=torch.float64, batch_size=7)
    assert found.istd < 1e-12
    assert found.cv < 1e-12
    assert found.largest == pytest.approx(1, abs=1e-12)
    a, b = noise_pairs(20, (3,), dtype=torch.float64)
    cosine = torch.cosine_similarity(a, b)
    assert found.step == pytest.approx(float((2 * 0.3 * (cosine.arccos() / 20).sin()).mean()))
    assert found.distance == pytest.approx(float((2 * 0.3 * (cosine.arccos() / 2).sin()).mean()))


def test_a_cross_fade_of_pixels_scores_zero():
    found = istd(linear, DATA, pairs=4, blend=lambda a, b, w: (1 - w) * a + w * b, dtype=torch.float64)
    assert found.istd < 1e-12
    assert found.step * 10 == pytest.approx(found.distance)


def test_numbers_of_a_path_are_their_formulas():
    steps = torch.tensor([[1.0, 2.0], [3.0, 2.0], [2.0, 5.0]], dtype=torch.float64)
    expected = {"istd": (math.sqrt(2 / 3) + math.sqrt(2)) / 2, "cv": (math.sqrt(2 / 3) / 2 + math.sqrt(2) / 3) / 2}
    assert path_numbers(steps) == pytest.approx({**expected, "largest": (1.5 + 5 / 3) / 2, "step": 2.5})
    assert path_numbers(torch.zeros(3, 1)) == {"istd": 0.0, "cv": 0.0, "largest": 1.0, "step": 0.0}


def test_numbers_do_not_depend_on_batches_and_all_are_there():
    def bent(z):
        return (2 * z).tanh()

    found, other = (istd(bent, DATA, pairs=9, batch_size=k, seed=4) for k in (2, 9))
    a, b = noise_pairs(9, (3,), 4)
    images = path_images(bent, a, b, 11)
    steps = (images[1:] - images[:-1]).norm(dim=2)
    assert found.istd == pytest.approx(float(steps.std(0, correction=0).mean()), rel=1e-5)
    assert found.frechet == pytest.approx(frechet_distance(bent(slerp(a, b, 0.5)), DATA.x), rel=1e-5)
    assert found.frechet_ends == pytest.approx(frechet_distance(bent(a), DATA.x), rel=1e-5)
    for name in ("istd", "cv", "largest", "step", "distance", "frechet"):
        assert getattr(found, name) == pytest.approx(getattr(other, name), rel=1e-5)
    assert [n.name for n in found.numbers()][:2] == ["ISTD", "CV"]
    assert found.protocol["std"] == "ddof 0, mean over pairs"


def test_constant_speed_lowers_istd_and_keeps_the_ends():
    def bent(z):
        return (3 * z).tanh()

    a, b = noise_pairs(30, (3,), dtype=torch.float64)
    weights, images = constant_speed_path(bent, a, b)
    plain = path_images(bent, a, b, 11)
    assert path_numbers(steps_of(images))["istd"] < path_numbers(steps_of(plain))["istd"] / 2
    torch.testing.assert_close(images[[0, -1]], plain[[0, -1]])
    assert (weights.diff(dim=0) > 0).all()
    _, fine = constant_speed_path(bent, a, b, probes=401)
    assert path_numbers(steps_of(fine))["istd"] < path_numbers(steps_of(plain))["istd"] / 10


@pytest.mark.parametrize("kind", [VP, EDM, lambda: GeometricBrownianMotion(0.8, offset=1.0)], ids=["vp", "edm", "gbm"])
def test_from_noise_is_the_sampler_of_that_noise(kind):
    oracle = Independent(0.2, 0.3, kind().with_moments(0.2, 0.3))
    for sampler in (DDIM(12), Heun(5)):
        x = sampler(oracle, (4, 3), generator=generators(0, 1, 0, range(4)))
        z = randn((4, 3), generators(0, 1, 0, range(4)), torch.float64)
        torch.testing.assert_close(FromNoise(oracle, sampler)(z), x, rtol=0, atol=0)


def test_from_noise_refuses_a_sampler_that_draws_more():
    with pytest.raises(ValueError, match="sampler must be deterministic to be a function of the noise, got Ancestral"):
        FromNoise(Independent(0.2, 0.3), Ancestral(5))


def test_ddim_inversion_is_ddim_upward():
    r"""On its levels of equal ratios u' = D + (n/s)(u - D); error of order one against the exact flow."""
    mean, covariance = torch.tensor([0.3, -0.2]).double(), torch.diag(torch.tensor([0.2, 0.05]).double())
    normal = gaussian(mean, covariance, EDM(0.01, 20.0))
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s = x, 0.01
    for _ in range(8):
        n = s * (5.0 / 0.01) ** (1 / 8)
        denoised = normal(u, s)
        u, s = denoised + n / s * (u - denoised), n
    torch.testing.assert_close(encode(normal, x, s=5.0, solver=DDIMInversion(8)), u)
    exact = gaussian_flow(mean, covariance, x, 0.01, 5.0)
    errors = [(encode(normal, x, s=5.0, solver=DDIMInversion(k)) - exact).norm() for k in (64, 128)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.1)


def test_reconstruction_error_counts_calls_and_falls_with_them():
    class Images(Independent):
        r"""An oracle with a mean and variance for each pixel."""

    shape = (1, 12, 12)
    g = torch.Generator().manual_seed(0)
    oracle = Images(torch.rand(shape, generator=g).double(), 0.05 + 0.2 * torch.rand(shape, generator=g).double())
    x = torch.rand(5, *shape, generator=g, dtype=torch.float64)
    found = reconstruction_error(oracle, x, steps=20)
    u = encode(oracle, x, solver=DDIMInversion(20))
    back = decode(oracle, u, solver=DDIMInversion(20))
    errors = (back - x).square().flatten(1).mean(1)
    assert found.calls == 40
    assert found.mse == pytest.approx(float(errors.mean()))
    assert found.psnr == pytest.approx(float((-10 * errors.log10()).mean()))
    sweep = reconstruction_sweep(oracle, x)
    assert [r.calls for r in sweep] == [20, 40, 100, 200, 40, 96, 200]
    assert all(a.mse > b.mse and a.psnr < b.psnr for a, b in pairwise(sweep[:4]))
    assert reconstruction_error(oracle, x, solver=RK4(100)).ssim > 0.999


def test_ssim_is_its_formula_and_that_of_an_independent_implementation():
    g = torch.Generator().manual_seed(0)
    a = torch.rand(2, 1, 9, 9, generator=g, dtype=torch.float64)
    b = (a + 0.2 * torch.rand(2, 1, 9, 9, generator=g, dtype=torch.float64)).clamp(0, 1)
    torch.testing.assert_close(ssim(a, a), torch.ones(2).double())
    # one window of 9 x 9 pixels
    weights = torch.tensor([math.exp(-(k**2) / 4.5) for k in range(-4, 5)]).double()
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    for i in range(2):
        p, q = a[i, 0], b[i, 0]
        m, n = (kernel * p).sum(), (kernel * q).sum()
        v, w, c = (kernel * (p - m) ** 2).sum(), (kernel * (q - n) ** 2).sum(), (kernel * (p - m) * (q - n)).sum()
        expected = (2 * m * n + 1e-4) * (2 * c + 9e-4) / ((m**2 + n**2 + 1e-4) * (v + w + 9e-4))
        assert float(ssim(a, b)[i]) == pytest.approx(float(expected))


@pytest.mark.parametrize("options", [{"pairs": 1}, {"points": 2}], ids=str)
def test_mistakes_are_named(options):
    with pytest.raises(ValueError, match=r"(pairs|points) must be a whole number >= (2|3), got"):
        istd(linear, DATA, **options)
    with pytest.raises(ValueError, match="points must be a whole number >= 2, got points=1"):
        constant_speed_path(linear, torch.ones(1, 2), torch.ones(1, 2), points=1)


def test_the_flow_of_a_mixture_is_smoother_in_midpoints_than_a_cross_fade():
    r"""A cross-fade scores ISTD 0 with midpoints off the data: the Frechet distance beside it tells."""
    mixture = standard_mixture()
    data = ArrayDataset(mixture.sample(400, torch.Generator().manual_seed(0)).float())
    flow = FromNoise(mixture, DDIM(30))

    def fade(z):
        return z

    ends = {}

    def between(a, b, w):
        key = id(a)
        if key not in ends:
            ends[key] = (a, flow(a), flow(b))
        return (1 - w) * ends[key][1] + w * ends[key][2]

    smooth = istd(flow, data, pairs=200, dtype=torch.float64, batch_size=200)
    faded = istd(fade, data, pairs=200, dtype=torch.float64, blend=between, batch_size=200)
    assert faded.istd < 1e-6 < smooth.istd
    assert faded.frechet > 2 * smooth.frechet
