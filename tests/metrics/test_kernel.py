import pytest
import torch

from scoregen.metrics import distances, energy_distance, kernel_distance


def draws(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_force(x, y, kernel):
    r"""The U-statistic by loops over pairs."""
    within = [sum(kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) for z in (x, y)]
    cross = sum(kernel(a, b) for a in x for b in y)
    n, m = len(x), len(y)
    return float(within[0] / (n * (n - 1)) + within[1] / (m * (m - 1)) - 2 * cross / (n * m))


def cubic(a, b):
    return (a @ b / len(a) + 1) ** 3


def negative_distance(a, b):
    return -(a - b).norm()


def test_kernel_distance_agrees_with_loops():
    x, y = draws(7, 4, 0), 0.5 + draws(9, 4, 1)
    assert float(kernel_distance(x, y)) == pytest.approx(brute_force(x, y, cubic), abs=1e-12)


def test_energy_distance_agrees_with_loops():
    x, y = draws(7, 4, 0), 0.5 + draws(9, 4, 1)
    assert energy_distance(x, y) == pytest.approx(brute_force(x, y, negative_distance), abs=1e-12)


def test_kernel_distance_agrees_with_torchmetrics():
    from scoregen.compat import repair_torchvision

    repair_torchvision()
    from torchmetrics.image.kid import poly_mmd

    x, y = draws(200, 16, 0), 0.2 + draws(200, 16, 1)
    assert float(kernel_distance(x, y)) == pytest.approx(float(poly_mmd(x, y)), abs=1e-10)


def jackknife(x, y, statistic):
    parts = []
    for z, other, first in ((x, y, True), (y, x, False)):
        keep = [torch.cat([z[:i], z[i + 1 :]]) for i in range(len(z))]
        values = torch.tensor([statistic(k, other) if first else statistic(other, k) for k in keep]).double()
        parts.append((len(z) - 1) / len(z) * (values - values.mean()).square().sum())
    return float(sum(parts).sqrt())


def test_standard_error_is_the_delete_one_jackknife():
    x, y = draws(7, 3, 0), 0.5 + draws(6, 3, 1)
    expected = jackknife(x, y, lambda a, b: brute_force(a, b, cubic))
    assert kernel_distance(x, y).standard_error == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_is_unbiased_and_its_error_calibrated():
    r"""300 pairs of samples with a known distance: mean within 4 standard errors (false alarm 6e-5), error within 20 %.

    For N(0, 1) against N(a, 1) in one dimension E(xy + 1)^3 over independent x ~ N(p, 1), y ~ N(q, 1) is
    M3(p) M3(q) + 3 M2(p) M2(q) + 3 p q + 1 with M2 = 1 + p^2, M3 = p^3 + 3 p.
    """
    a = 0.7

    def expected_kernel(p, q):
        return (p**3 + 3 * p) * (q**3 + 3 * q) + 3 * (1 + p**2) * (1 + q**2) + 3 * p * q + 1

    exact = expected_kernel(0, 0) + expected_kernel(a, a) - 2 * expected_kernel(0, a)
    runs = [kernel_distance(draws(40, 1, 2 * i), a + draws(50, 1, 2 * i + 1)) for i in range(300)]
    values = torch.tensor([r.value for r in runs]).double()
    spread = values.std()
    assert abs(float(values.mean()) - exact) < 4 * float(spread) / len(runs) ** 0.5
    quoted = torch.tensor([r.standard_error for r in runs]).square().mean().sqrt()
    assert float(quoted / spread) == pytest.approx(1, abs=0.2)


def test_energy_distance_of_shifted_points_is_exact():
    r"""Two points against the same two shifted far by L in one dimension: 2 E|X-Y| - E|X-X'| - E|Y-Y'| = 2 L - 2."""
    x = torch.tensor([[0.0], [1.0], [0.0], [1.0]]).double()
    within = 2 * (1 * 8) / (4 * 3)
    assert energy_distance(x, x + 10) == pytest.approx(2 * 10 - within, abs=1e-12)


@pytest.mark.parametrize("function", [energy_distance, kernel_distance], ids=["energy", "kernel"])
def test_order_and_blocks_do_not_matter(function, monkeypatch):
    x, y = draws(33, 4, 0), 0.5 + draws(29, 4, 1)
    expected = function(x, y)
    monkeypatch.setattr(distances, "BLOCK_ELEMENTS", 100)
    found = function(x.flip(0), y[torch.arange(29).roll(11)])
    assert found == pytest.approx(expected, abs=1e-12)
