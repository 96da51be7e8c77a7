r"""An attack inside certified radii, on digits, with the control that it succeeds outside."""

import re

import pytest
import torch
from torch import nn

from scoregen.data import Digits
from scoregen.errors import UserError
from scoregen.samplers import Heun
from scoregen.sde import EDM, Affine
from scoregen.smoothing import (
    AnisotropicGaussian,
    Gaussian,
    Laplace,
    LogNormal,
    LogNormalGain,
    LogNormalGamma,
    PurifiedClassifier,
    SmoothedClassifier,
    Uniform,
)
from scoregen.smoothing.attack import _projected, attack
from scoregen.smoothing.attacks import attack_dataset, attack_rows, refutation
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.dataset import certify_dataset
from tests.oracles import gaussian

SIGMA = 0.25


@pytest.fixture(scope="module")
def smoothed():
    x, label = Digits().train[:]
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(parameter.shape[-1], 10) ** 0.5)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(300):
        batch = torch.randint(len(x), (256,), generator=generator)
        noisy = x[batch] + SIGMA * torch.randn(256, *x.shape[1:], generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(noisy), label[batch]).backward()
        optimizer.step()
    return SmoothedClassifier(network.eval(), Gaussian(SIGMA), 10)


def test_no_attack_breaks_a_certificate_and_nearly_all_break_it_at_twice_the_radius(smoothed):
    x, label = Digits().test[:25]
    generator = torch.Generator().manual_seed(1)
    certificates = smoothed.certify(x, n=2000, method="fixed", generator=generator)
    certified = [i for i, c in enumerate(certificates) if c.label == label[i] and c.radius > 0.1]
    assert len(certified) >= 18
    flips = {}
    for factor in (0.99, 2.0):
        attacked = torch.stack(
            [
                attack(smoothed, x[i], certificates[i].label, factor * certificates[i].radius, generator)
                for i in certified
            ]
        )
        distance = (attacked - x[certified]).flatten(1).norm(dim=1)
        radius = torch.tensor([factor * certificates[i].radius for i in certified])
        assert bool((distance <= radius * (1 + 1e-5)).all())
        voted = smoothed.predict(attacked, n=2000, generator=generator)
        flips[factor] = int(((voted != label[certified]) & (voted != -1)).sum())
    assert flips[0.99] == 0
    assert flips[2.0] >= 0.8 * len(certified)


W = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)
X = torch.tensor([0.4, 0.9, 0.6], dtype=torch.float64)
SPACES = {  # the noise, the coordinates z of an input in which its distance is a norm, and the norm's order
    "gaussian": (Gaussian(0.5), lambda y: y, 2),
    "anisotropic": (AnisotropicGaussian([0.8, 0.2, 0.5]), lambda y: 0.08 ** (1 / 3) * y / SIGMAS, 2),
    "uniform": (Uniform(0.5), lambda y: y, 1),
    "laplace": (Laplace(0.5), lambda y: y, 1),
    "log_normal": (LogNormal(0.5), lambda y: y.log(), 2),
    "log_normal_offset": (LogNormal(0.5, 0.3), lambda y: (y + 0.3).log(), 2),
    "gain": (LogNormalGain(0.5), lambda y: y.log(), None),
    "gamma": (LogNormalGamma(0.5), lambda y: (-y.log()).log(), None),
}
SIGMAS = torch.tensor([0.8, 0.2, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("name", SPACES)
def test_the_attack_goes_as_far_as_the_ball_allows_and_no_further(name):
    r"""Of a half-space in z, w z <= b: the nearest point of the other side, in l2 along w, in l1 along its largest."""
    noise, coordinates, order = SPACES[name]

    def classifier(y):
        margin = (coordinates(y) - coordinates(X)) @ W
        return torch.stack((-margin, margin), 1)

    g = SmoothedClassifier(classifier, noise, 2)
    moved = attack(g, X, 0, 0.2, torch.Generator().manual_seed(0), draws=16, steps=20)
    z = coordinates(moved) - coordinates(X)
    if order is None:  # one factor for the whole input
        assert torch.allclose(z, z[0].expand(3), atol=1e-9)
        assert abs(float(z[0])) == pytest.approx(0.2, abs=1e-9)
        assert float(z @ W) > 0 or float(W.sum()) == 0
    else:
        assert float(torch.linalg.vector_norm(z, order)) <= 0.2 + 1e-9
        best = 0.2 * float(W.norm() if order == 2 else W.abs().max())
        assert float(z @ W) == pytest.approx(best, rel=0.02)


def test_the_projection_on_the_l1_ball_is_the_nearest_point():
    r"""Against the optimality condition: z - p is the threshold where p is not 0, and no more elsewhere."""
    z = torch.tensor([0.9, -0.5, 0.1, 0.0], dtype=torch.float64)
    p = _projected(z, 1.0, 1)
    assert float(p.abs().sum()) == pytest.approx(1.0, rel=1e-12)
    gap = (z - p).abs()
    assert torch.allclose(gap[p != 0], gap[0].expand(int((p != 0).sum())))
    assert bool((gap[p == 0] <= gap[0] + 1e-12).all())
    assert torch.equal(_projected(0.1 * z, 1.0, 1), 0.1 * z)


class Own(Gaussian):
    r"""A noise of a user's, whose distance the attack does not know."""

    order = None


def test_noise_whose_distance_is_not_served_is_refused_by_name(smoothed):
    g = SmoothedClassifier(smoothed.classifier, Own(0.5), 10)
    with pytest.raises(TypeError, match=r"noise must have a distance that the attack serves.*got Own\(sigma=0.5\)"):
        attack(g, torch.rand(1, 8, 8), 0, 0.5, torch.Generator())


def test_a_classifier_without_a_gradient_is_refused(smoothed):
    g = SmoothedClassifier(lambda y: smoothed.classifier(y).detach(), Gaussian(0.5), 10)
    with pytest.raises(ValueError, match="classifier must have a gradient for an attack"):
        attack(g, torch.rand(1, 8, 8), 0, 0.5, torch.Generator())


def test_the_attack_goes_through_a_purification():
    r"""The denoiser of isotropic normal data is affine, so that a half-space stays one with the same normal."""
    denoiser = gaussian(torch.zeros(3).double(), torch.eye(3).double(), EDM(0.002, 80.0, chart=Affine(2.0, -1.0)))

    def half_space(x):
        return torch.stack(((X - x) @ W, (x - X) @ W), 1)

    f = PurifiedClassifier(half_space, denoiser, Heun(steps=1), 0.5)
    g = SmoothedClassifier(f.eval(), Gaussian(0.5), 2)
    moved = attack(g, X, 0, 0.2, torch.Generator().manual_seed(0), draws=16, steps=20)
    assert float((moved - X) @ W) == pytest.approx(0.2 * float(W.norm()), rel=0.02)


class Boasting(Gaussian):
    r"""The mutant whose radii are twice what is proved."""

    def radius(self, p_a, p_b):
        return 2 * super().radius(p_a, p_b)


def certified(smoothed, noise, folder):
    x, label = Digits().test[:8]
    g = SmoothedClassifier(smoothed.classifier, noise, 10)
    data = [(one, int(k)) for one, k in zip(x, label, strict=True)]
    return g, data, certify_dataset(g, data, range(8), make_method("fixed", noise, 1000), folder, seed=0)


def test_a_run_is_attacked_resumed_and_reported(smoothed, tmp_path):
    g, data, run = certified(smoothed, Gaussian(SIGMA), tmp_path)
    before = (tmp_path / "certificates.jsonl").read_text()
    attacks = attack_dataset(g, data, run, tmp_path, seed=0, draws=16, steps=10)
    assert [record["index"] for record in attacks.records] == [r["index"] for r in run.records if r["radius"] > 0]
    head, below, *above = attack_rows(attacks)
    total = len(attacks.records)
    assert head == ["attack at", "broken, %", "inputs"] and below == ["0.99 R", "0.0", f"0 of {total}"]
    broken = [int(row[2].split()[0]) for row in above]
    assert broken == sorted(broken) and broken[-1] >= 0.7 * total
    assert refutation(attacks, run) == ""
    file = tmp_path / "attacks.jsonl"
    whole = file.read_text()
    file.write_text("".join(whole.splitlines(keepends=True)[:3]))
    assert attack_dataset(g, data, run, tmp_path, seed=0, draws=16, steps=10).records == attacks.records
    assert sorted(file.read_text().splitlines()) == sorted(whole.splitlines())
    assert (tmp_path / "certificates.jsonl").read_text() == before
    with pytest.raises(UserError, match="holds results of another job: seed was 0, now 1"):
        attack_dataset(g, data, run, tmp_path, seed=1, draws=16, steps=10)


def test_radii_that_are_too_large_are_reported_as_false(smoothed, tmp_path):
    g, data, run = certified(smoothed, Boasting(SIGMA), tmp_path)
    attacks = attack_dataset(g, data, run, tmp_path, seed=0, draws=16, steps=10)
    why = refutation(attacks, run)
    assert re.match(r"attack: \d+ of \d+ certificates are FALSE: the label of input \d", why)
    assert "At alpha=0.001 bad luck explains at most 1." in why
    assert int(attack_rows(attacks)[1][2].split()[0]) >= 0.7 * len(attacks.records)


def test_a_run_without_certificates_has_nothing_to_attack(smoothed, tmp_path):
    r"""Under noise each of ten classes is as likely as the others."""
    noise = Gaussian(SIGMA)
    g = SmoothedClassifier(lambda y: (50 * y.flatten(1)[:, :10]).sin(), noise, 10)
    x, label = Digits().test[:2]
    data = [(one, int(k)) for one, k in zip(x, label, strict=True)]
    run = certify_dataset(g, data, range(2), make_method("fixed", noise, 100), tmp_path, seed=0)
    attacks = attack_dataset(g, data, run, tmp_path, seed=0, draws=16, steps=10)
    assert attacks.records == [] and refutation(attacks, run) == ""
    assert attack_rows(attacks)[1] == ["0.99 R", "-", "0 of 0"]
