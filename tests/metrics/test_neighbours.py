import pytest
import torch

from scoregen.metrics import nearest_neighbours


def draws(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_planted_copies_are_found():
    r"""10 noisy copies among 200 honest samples: all are flagged, with the right training index."""
    training, held_out, generated = draws(500, 8, 0), draws(200, 8, 1), draws(200, 8, 2)
    source = torch.arange(0, 500, 50)
    generated[:10] = training[source] + 1e-2 * draws(10, 8, 3)
    found = nearest_neighbours(generated, training, held_out, alpha=0.02)
    assert found.copied[:10].all()
    assert found.index[:10, 0].equal(source)
    assert found.copied[10:].double().mean() < 0.08


def test_exact_copies_are_found_in_float32_images():
    training, held_out = draws(50, 784, 0).float(), draws(50, 784, 1).float()
    found = nearest_neighbours(training[[7, 3]], training, held_out)
    assert found.index[:, 0].tolist() == [7, 3]
    assert found.copied.all()


def test_chance_flags_are_about_alpha():
    r"""Generated and held-out points of one law: 4000 points, threshold from 1000: within 5 binomial deviations."""
    found = nearest_neighbours(draws(4000, 4, 0), draws(800, 4, 1), draws(1000, 4, 2), alpha=0.05)
    error = (0.05 * 0.95 * (1 / 4000 + 1 / 1000)) ** 0.5
    assert found.fraction == pytest.approx(0.05, abs=5 * error)


def test_neighbours_and_ratio_agree_with_cdist():
    training, held_out, generated = draws(40, 3, 0), draws(30, 3, 1), draws(20, 3, 2)
    found = nearest_neighbours(generated, training, held_out, k=3)
    expected = torch.cdist(generated, training, compute_mode="donot_use_mm_for_euclid_dist").sort(1)
    torch.testing.assert_close(found.distance, expected.values[:, :3], rtol=1e-10, atol=1e-10)
    assert found.index.equal(expected.indices[:, :3])
    ratio = expected.values[:, 0] / torch.cdist(generated, held_out).amin(1)
    torch.testing.assert_close(found.ratio, ratio, rtol=1e-9, atol=0)


def test_bad_arguments_are_refused():
    x = draws(5, 2, 0)
    with pytest.raises(ValueError, match=r"alpha must lie in \(0, 1\), got alpha=1.0"):
        nearest_neighbours(x, x, x, alpha=1.0)
    with pytest.raises(ValueError, match="generated and training must have the same number of features"):
        nearest_neighbours(x, x[:, :1], x)
