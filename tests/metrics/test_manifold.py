import math

import pytest
import torch

from scoregen.metrics import density_coverage, distances, precision_recall


def draws(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def balls(z, k):
    r"""Radius of each point's ball, by loops."""
    return [sorted(float((a - b).norm()) for j, b in enumerate(z) if j != i)[k - 1] for i, a in enumerate(z)]


def inside(points, centres, k):
    radius = balls(centres, k)
    return [[float((p - c).norm()) <= r for c, r in zip(centres, radius, strict=True)] for p in points]


def test_all_four_agree_with_loops():
    x, y, k = draws(30, 3, 0) * 1.3, draws(25, 3, 1) + 0.3, 3
    hits, back = torch.tensor(inside(x, y, k)), torch.tensor(inside(y, x, k))
    found = precision_recall(x, y, k=k)
    assert found.precision == pytest.approx(float(hits.any(1).double().mean()))
    assert found.recall == pytest.approx(float(back.any(1).double().mean()))
    other = density_coverage(x, y, k=k)
    assert other.density == pytest.approx(float(hits.sum()) / (k * len(x)))
    assert other.coverage == pytest.approx(float(hits.any(0).double().mean()))


def test_precision_and_recall_agree_with_torch_fidelity():
    from scoregen.compat import repair_torchvision

    repair_torchvision()
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    x, y = draws(150, 8, 0) * 1.2, draws(120, 8, 1)
    assert tuple(precision_recall(x, y, k=3)) == pytest.approx(calculate_precision_recall_full(x, y, 3), abs=1e-6)


def test_equal_laws_have_the_expected_density_and_coverage():
    r"""E[density] = 1 and E[coverage] = 1 - prod (M - i)/(N + M - i), whatever the law; 4 standard errors, 60 runs."""
    n, m, k = 40, 50, 5
    exact = 1 - math.prod((m - i) / (n + m - i) for i in range(1, k + 1))
    runs = torch.tensor([density_coverage(draws(n, 2, 2 * i), draws(m, 2, 2 * i + 1), k=k) for i in range(60)]).double()
    error = 4 * runs.std(0) / len(runs) ** 0.5
    assert abs(float(runs[:, 0].mean()) - 1) < float(error[0])
    assert abs(float(runs[:, 1].mean()) - exact) < float(error[1])


def test_a_collapsed_generator_keeps_precision_and_loses_recall():
    y = draws(100, 4, 0)
    x = y[:1] + 1e-3 * draws(50, 4, 1)
    assert precision_recall(x, y) == (1.0, 0.01)  # of 100 real points only the one copied is recalled
    assert density_coverage(x, y).coverage < 0.2


def test_copies_of_the_reference_score_one():
    y = draws(60, 4, 0).float()
    assert precision_recall(y.flip(0), y) == (1.0, 1.0)
    assert density_coverage(y.flip(0), y).coverage == 1.0
    repeated = y[:3].repeat(20, 1)
    assert precision_recall(y[:3], repeated, k=2).precision == 1.0


def test_order_shift_and_blocks_do_not_matter(monkeypatch):
    x, y = draws(40, 3, 0) * 1.2, draws(37, 3, 1)
    expected = (precision_recall(x, y), density_coverage(x, y))
    monkeypatch.setattr(distances, "BLOCK_ELEMENTS", 100)
    assert (precision_recall(x.flip(0) + 1e3, y.roll(9, 0) + 1e3), density_coverage(x, y.flip(0))) == expected


def test_too_many_neighbours_are_refused():
    with pytest.raises(ValueError, match=r"1 <= k <= 4 .* got k=5"):
        precision_recall(draws(9, 2, 0), draws(5, 2, 1), k=5)
