r"""Local dimension against laws on planes and spheres, where it is known in closed form."""

import math
from itertools import pairwise

import pytest
import torch
from oracles import Mixture, gaussian
from torch import Tensor

from scoregen.samplers import RK4, local_dimension, log_likelihood
from scoregen.sde import EDM, VP, Cosine, Multiplicative

N = 10
LEVELS = [0.3, 0.1, 0.05, 0.02, 0.01]


def basis(columns: int) -> Tensor:
    q, _ = torch.linalg.qr(torch.randn(N, N, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    return q[:, :columns]


def plane(variances: list[float], sde=None) -> tuple[Mixture, Tensor, Tensor]:
    r"""Normal data on a plane in R^10, 64 points of it, and their standard coordinates."""
    q, scale = basis(len(variances)), torch.tensor(variances, dtype=torch.float64)
    z = torch.randn(64, len(variances), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    oracle = gaussian(torch.zeros(N, dtype=torch.float64), q @ scale.diag() @ q.T, sde)
    oracle.eigenvalues = oracle.eigenvalues.clamp(min=0)  # round-off
    return oracle, z * scale.sqrt() @ q.T, z


def on_a_plane(z: Tensor, variances: list[float], s: float) -> Tensor:
    v = torch.tensor(variances, dtype=torch.float64)
    return (v / (v + s**2) + s**2 * z**2 * v / (v + s**2) ** 2).sum(1)


class Sphere:
    r"""Uniform on a sphere of dimension 2 or 4 and radius 1: D = A(k) u/|u| in its subspace, k = |u|/s^2."""

    def __init__(self, d: int) -> None:
        self.d, self.q, self.sde = d, basis(d + 1), EDM()

    def points(self) -> Tensor:
        z = torch.randn(32, self.d + 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return z / z.norm(dim=1, keepdim=True) @ self.q.T

    def __call__(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        inside = u @ self.q
        norm = inside.norm(dim=1, keepdim=True)
        k = norm / s**2
        ratio = 1 / torch.tanh(k) - 1 / k  # of Bessel functions, I_{3/2} / I_{1/2}
        if self.d == 4:
            ratio = 1 / ratio - 3 / k  # I_{5/2} / I_{3/2}
        return ratio * inside / norm @ self.q.T


@pytest.mark.parametrize("variances", [[1.0, 0.25], [1.0] * 5], ids=["d2", "d5"])
def test_dimension_of_a_plane(variances):
    oracle, x, z = plane(variances)
    found = local_dimension(oracle, x, LEVELS)
    exact = torch.stack([on_a_plane(z, variances, s) for s in LEVELS], 1)
    assert (found.value - exact).abs().max() < 1e-9
    assert torch.equal(found.value, found.trace + found.residual) and bool((found.standard_error == 0).all())
    assert found.s.tolist() == LEVELS and found.calls == len(LEVELS)


@pytest.mark.parametrize(("d", "exact"), [(2, [2.0] * 5), (4, [3.802, 3.980, 3.995, 3.9992, 3.9998])], ids=["d2", "d4"])
def test_dimension_of_a_sphere(d, exact):
    sphere = Sphere(d)
    found = local_dimension(sphere, sphere.points(), LEVELS).value
    assert (found - found[:1]).abs().max() < 1e-9  # a symmetry
    assert (found[0] - torch.tensor(exact).double()).abs().max() < 1e-3


def test_it_is_the_slope_of_the_log_density_on_log_s():
    oracle, x, _ = plane([1.0, 0.25])
    s, h = 0.2, 1e-4
    slope = (oracle.log_prob(x, s * math.exp(h)) - oracle.log_prob(x, s * math.exp(-h))) / (2 * h)
    assert (local_dimension(oracle, x, s).value[:, 0] - N - slope).abs().max() < 1e-6


def test_off_the_set_it_grows_with_the_distance():
    oracle, x, _ = plane([1.0, 0.25])
    away = torch.linalg.svd(oracle.covariances[0])[0][:, -1]
    h = 0.05
    found = local_dimension(oracle, x + h * away, h / 2.5).value.mean()
    assert float(found) == pytest.approx(2 + 2.5**2, rel=0.01)


def test_the_likelihood_has_it_for_nothing_and_falls_by_the_missing_dimensions():
    bits = []
    for s_min in (0.04, 0.02, 0.01):
        oracle, x, _ = plane([1.0, 0.25])
        oracle.sde.with_moments(torch.zeros(N).double(), torch.diagonal(oracle.covariances[0]).clone())
        found = log_likelihood(oracle, x[:4], solver=RK4(64), s_min=s_min)
        assert found.calls == 4 * 64 + 1
        assert (found.dimension - local_dimension(oracle, x[:4], s_min).value[:, 0]).abs().max() < 1e-10
        bits.append(float(found.bits_per_dim.mean()))
    assert [a - b for a, b in pairwise(bits)] == pytest.approx([0.8] * 2, abs=2e-3)


def test_full_rank_data_have_all_dimensions():
    oracle = gaussian(torch.zeros(N).double(), torch.eye(N).double())
    x = oracle.sample(256, torch.Generator().manual_seed(0))
    assert float(local_dimension(oracle, x, 0.05).value.mean()) > 0.99 * N


@pytest.mark.parametrize("sde", [VP(), Cosine(), Multiplicative(EDM())], ids=["vp", "cosine", "log"])
def test_it_does_not_depend_on_the_path(sde):
    reference, y, _ = plane([1.0, 0.25])
    other, _, _ = plane([1.0, 0.25], sde)
    found = local_dimension(other, sde.from_chart(y), [0.3, 0.1])
    torch.testing.assert_close(found.value, local_dimension(reference, y, [0.3, 0.1]).value, rtol=1e-9, atol=1e-9)


def test_probes_are_unbiased_with_the_stated_error():
    oracle, x, z = plane([1.0] * 5)
    found = local_dimension(oracle, x, 0.05, probes=64, generator=torch.Generator().manual_seed(5))
    exact = on_a_plane(z, [1.0] * 5, 0.05)[:, None]
    errors = (found.value - exact) / found.standard_error
    assert float(errors.abs().max()) < 5 and 0.7 < float(errors.std()) < 1.4
    one = local_dimension(oracle, x, 0.05, probes=1, generator=torch.Generator().manual_seed(5))
    assert bool(one.standard_error.isnan().all())


def test_levels_that_no_network_was_trained_on_are_refused():
    oracle, x, _ = plane([1.0, 0.25])
    with pytest.raises(ValueError, match=r"s must lie between noise_ratio\(0\)=0.002"):
        local_dimension(oracle, x, 0.001)
    with pytest.raises(ValueError, match=r"no sigma_data to choose levels by. Give s="):
        local_dimension(oracle, x)
    oracle.sigma_data = 0.5
    s = local_dimension(oracle, x).s
    assert len(s) == 8 and [float(s[0]), float(s[-1])] == pytest.approx([0.004, 0.25])
