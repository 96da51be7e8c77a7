import math

import numpy as np
import pytest
import torch

from scoregen.metrics import Moments, frechet_distance, frechet_distance_gaussian


def draws(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d, seed=0):
    return torch.linalg.qr(draws(d, d, seed))[0]


def with_moments(mean, covariance, n):
    r"""n points whose sample mean and unbiased covariance are exactly the given ones."""
    x = draws(n, len(mean))
    x = x - x.mean(0)
    whitener = torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    values, vectors = torch.linalg.eigh(covariance)
    return x @ whitener @ (vectors * values.clamp(min=0).sqrt()).T + mean


def test_commuting_gaussians_have_the_closed_form():
    r"""A and B share eigenvectors: d^2 = ||shift||^2 + sum (sqrt a - sqrt b)^2."""
    d, q = 12, rotation(12)
    a, b = torch.linspace(0.1, 3, d).double(), torch.linspace(2, 0.5, d).double()
    shift = torch.linspace(-1, 1, d).double()
    exact = float(shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    x = with_moments(torch.zeros(d).double(), (q * a) @ q.T, 60)
    y = with_moments(shift, (q * b) @ q.T, 90)
    assert frechet_distance(x, y) == pytest.approx(exact, abs=1e-8)


def test_two_by_two_gaussians_have_the_closed_form():
    r"""tr (A B)^{1/2} = (tr(A B) + 2 sqrt(det A det B))^{1/2} for 2 x 2 matrices that do not commute."""
    a = torch.tensor([[2.0, 0.7], [0.7, 0.9]]).double()
    b = torch.tensor([[0.6, -0.4], [-0.4, 1.5]]).double()
    root = math.sqrt(float((a @ b).trace()) + 2 * math.sqrt(float(torch.linalg.det(a) * torch.linalg.det(b))))
    exact = float(a.trace() + b.trace()) - 2 * root
    zero = torch.zeros(2).double()
    assert frechet_distance_gaussian(zero, a, zero, b) == pytest.approx(exact, abs=1e-12)


def test_agrees_with_the_matrix_square_root():
    from scipy.linalg import sqrtm

    x, y = draws(50, 8) @ draws(8, 8, 1), 0.3 + draws(70, 8, 2) @ draws(8, 8, 3)
    a, b = np.cov(x.numpy().T), np.cov(y.numpy().T)
    exact = float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(x, y) == pytest.approx(exact, abs=1e-8)


def test_singular_covariances_lose_no_digits():
    r"""Rank 3 in 40 dimensions, with dead features: eigenvalues of A B would cost sqrt(round-off) each."""
    basis = rotation(40)[:, :3]
    a, b = torch.tensor([4.0, 1.0, 0.25]).double(), torch.tensor([1.0, 9.0, 0.25]).double()
    zero = torch.zeros(40).double()
    exact = 1.0 + 4.0
    assert frechet_distance_gaussian(zero, (basis * a) @ basis.T, zero, (basis * b) @ basis.T) == pytest.approx(
        exact, abs=1e-12
    )
    other = rotation(40)[:, 3:6]
    apart = frechet_distance_gaussian(zero, (basis * a) @ basis.T, zero, (other * b) @ other.T)
    assert apart == pytest.approx(float(a.sum() + b.sum()), abs=1e-7)


def test_equal_sets_are_at_distance_zero():
    x = torch.nn.functional.pad(draws(20, 30), (0, 10))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)


def test_agrees_with_torchmetrics():
    from scoregen.compat import repair_torchvision

    repair_torchvision()
    from torchmetrics.image.fid import _compute_fid

    x, y = draws(300, 16), 0.2 + 1.1 * draws(300, 16, 1)
    other = _compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert frechet_distance(x, y) == pytest.approx(float(other), abs=1e-8)


@pytest.mark.parametrize("seed", [0, 1])
def test_order_and_rotation_do_not_matter(seed):
    x, y, q = draws(40, 6), 0.5 + draws(30, 6, 1), rotation(6, 2)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    assert frechet_distance(x[order] @ q, y @ q) == pytest.approx(frechet_distance(x, y), abs=1e-11)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), abs=1e-11)


def test_moments_arrays_and_tensors_give_one_number():
    x, y = draws(40, 6), 0.5 + draws(30, 6, 1)
    expected = frechet_distance(x, y)
    assert frechet_distance(Moments.of(x), y.numpy()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.zeros(4, 3), "got 3 and 5"),
        (torch.zeros(4, 1, 5, 5), "shape \\(N, D\\), got \\(4, 1, 5, 5\\)"),
        (torch.full((4, 5), float("nan")), "got 4 rows with NaN"),
        (torch.zeros(1, 5), "at least 2 rows, got 1"),
    ],
    ids=["width", "images", "nan", "one row"],
)
def test_bad_features_are_refused(x, text):
    with pytest.raises(ValueError, match=text):
        frechet_distance(x, torch.zeros(4, 5))
