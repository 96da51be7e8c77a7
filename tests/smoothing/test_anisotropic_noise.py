r"""Gaussian noise with a sigma a channel or a pixel: its half-spaces, its volume, its records."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from scoregen.smoothing import AnisotropicGaussian, Gaussian, SmoothedClassifier
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.dataset import certify_dataset
from scoregen.smoothing.results import load
from scoregen.smoothing.verify import problems

SIGMA = [0.8, 0.1, 0.4]
MEAN = 0.032 ** (1 / 3)
W = torch.tensor([0.3, 2.0, -1.0], dtype=torch.float64)


def probability(x, w, b):
    r"""P(w . (x + sigma eps) <= b), by the closed form."""
    return float(stats.norm.cdf((b - float(w @ x)) / float((w * torch.tensor(SIGMA, dtype=torch.float64)).norm())))


@pytest.mark.parametrize("p", [0.6, 0.9, 0.999])
@pytest.mark.parametrize("w", [W, torch.tensor([1.0, 0.0, 0.0]).double(), torch.tensor([0.0, 1.0, 0.0]).double()])
def test_a_half_space_keeps_its_label_at_999_of_the_radius_and_not_beyond(p, w):
    r"""x' moves along S^2 w, the direction in which m ||(x' - x) / sigma||_2 = R costs most."""
    noise, sigma, x = AnisotropicGaussian(SIGMA), torch.tensor(SIGMA, dtype=torch.float64), torch.ones(3).double()
    b = float(w @ x) + stats.norm.ppf(p) * float((w * sigma).norm())
    assert probability(x, w, b) == pytest.approx(p, abs=1e-12)
    radius = noise.radius(p, 1 - p)
    for factor, wins in ((0.999, True), (1.001, False)):
        z = factor * radius * (sigma * w) / (sigma * w).norm()
        moved = noise.displaced(x, z)
        assert float((MEAN * (moved - x) / sigma).norm()) == pytest.approx(factor * radius, rel=1e-12)
        assert (probability(moved, w, b) > 0.5) == wins


def test_the_hardest_half_space_by_quadrature():
    r"""The same without the closed form: the mass of a half-line under the law of one coordinate."""
    noise, p = AnisotropicGaussian(SIGMA), 0.9
    law = stats.norm(scale=SIGMA[1])
    radius = noise.radius(p, 1 - p)
    for factor, wins in ((0.999, True), (1.001, False)):
        shift = factor * radius * SIGMA[1] / MEAN  # of the second number alone
        kept = integrate.quad(law.pdf, -2.0, law.ppf(p) - shift, epsabs=1e-13, points=[0.0])[0]
        assert (kept > 0.5) == wins


def test_no_radius_is_larger_than_that_of_the_plain_ball_inside():
    noise = AnisotropicGaussian(SIGMA)
    assert noise.l2_radius(1.0) == pytest.approx(0.1 / MEAN, rel=1e-12)
    assert noise.l2_radius(noise.radius(0.9, 0.1)) == pytest.approx(Gaussian(0.1).radius(0.9, 0.1), rel=1e-12)
    assert float(noise.implies(0.5).removeprefix("l2 ")) <= noise.l2_radius(0.5)


def test_the_ellipsoid_has_the_volume_of_the_ball_of_the_radius():
    r"""pi r^2 and 4/3 pi r^3; and semi-axes R sigma / m whose product is R^d."""
    noise = AnisotropicGaussian(SIGMA)
    assert noise.log_volume(0.7, 2) == pytest.approx(math.log(math.pi * 0.49), rel=1e-12)
    assert noise.log_volume(0.7, 3) == pytest.approx(math.log(4 / 3 * math.pi * 0.343), rel=1e-12)
    axes = [float(noise.displaced(torch.zeros(3).double(), 0.7 * one).norm()) for one in torch.eye(3).double()]
    assert math.prod(axes) == pytest.approx(0.7**3, rel=1e-12)


def test_equal_sigmas_are_gaussian_noise_draw_by_draw():
    x = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    one, many = Gaussian(0.3), AnisotropicGaussian([0.3] * 3)
    a, b = (noise.sample(x, 5, torch.Generator().manual_seed(1)) for noise in (one, many))
    assert torch.equal(a, b)
    assert many.radius(0.9, 0.05) == pytest.approx(one.radius(0.9, 0.05), rel=1e-12)
    assert many.step == pytest.approx(one.step) and many.reach == pytest.approx(one.reach)


def test_a_sigma_acts_on_its_channel_or_on_its_pixel():
    x = torch.zeros(2, 3, 3)
    draws = AnisotropicGaussian([0.5, 2.0]).sample(x, 4000, torch.Generator().manual_seed(0))
    assert draws.std((0, 2, 3)).tolist() == pytest.approx([0.5, 2.0], rel=0.03)  # 5 standard errors
    sigma = torch.linspace(0.1, 2.0, 18).view(2, 3, 3)
    draws = AnisotropicGaussian(sigma).sample(x, 20_000, torch.Generator().manual_seed(0))
    assert torch.allclose(draws.std(0) / sigma, torch.ones(2, 3, 3).double(), atol=0.025)  # 5 standard errors


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (0.5, r"got sigma=0.5. For one number use Gaussian\(0.5\)"),
        ([], "sigma must be > 0 and finite everywhere"),
        ([0.5, 0.0], "sigma must be > 0 and finite everywhere"),
        ([0.5, float("inf")], "sigma must be > 0 and finite everywhere"),
        (["a"], "sigma must be numbers"),
        ("nowhere.npy", "sigma must be numbers, or a file FILE.npy of them, got sigma='nowhere.npy'"),
        ("a.txt", "its name must end with .npy"),
    ],
)
def test_what_is_no_sigma_is_refused(sigma, message):
    with pytest.raises(ValueError, match=message):
        AnisotropicGaussian(sigma)


def test_a_file_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(ValueError, match="sigma must be numbers"):
        AnisotropicGaussian(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("sigma", [[0.5, 0.2], torch.linspace(0.2, 0.6, 18).view(2, 3, 3)], ids=["few", "many"])
def test_certificates_are_recomputed_without_the_sigma_of_every_pixel(sigma, tmp_path):
    data = [(torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(k)), k % 2) for k in range(3)]
    noise = AnisotropicGaussian(sigma)

    def classifier(y):
        brightness = y.flatten(1).sum(1)
        return torch.stack((brightness - 6, 6 - brightness), 1)

    g = SmoothedClassifier(classifier, noise, 2)
    certify_dataset(g, data, range(3), make_method("ladder", noise, 400, alpha=0.01), tmp_path, seed=0)
    assert problems(tmp_path) == []
    assert load(tmp_path).header["noise"] == repr(noise)
    assert len(repr(noise)) < 120
    file = tmp_path / "certificates.jsonl"
    file.write_text(file.read_text().replace('"radius": 0.', '"radius": 0.9', 1))
    assert any("radius is" in line for line in problems(tmp_path))


def test_other_kinds_of_x_are_refused():
    g = SmoothedClassifier(lambda y: y.flatten(1)[:, :2], AnisotropicGaussian([0.5, 0.5]), 2)
    with pytest.raises(ValueError, match=r"input 0: sigma must be one number for each of the 3 channels"):
        g.certify(torch.rand(1, 3, 2, 2), n=100)
