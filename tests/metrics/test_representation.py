r"""Representations along a path, against models whose answers are known."""

import math

import pytest
import torch

from scoregen.data import ArrayDataset
from scoregen.metrics.representation import (
    along_trajectory,
    cosine_similarity,
    linear_probe,
    representations,
    save_trajectories,
)


class Identity(torch.nn.Module):
    r"""The representation is u itself."""

    def __init__(self):
        super().__init__()
        self.zero = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def to_chart(self, x):
        return 2 * x - 1

    def represent(self, u, t):
        return u.flatten(1) + self.zero


def test_the_noise_of_an_image_is_the_same_at_all_times_and_of_its_own_number():
    x = torch.rand(7, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = (2 * x - 1).flatten(1).double()
    one, two = (representations(Identity(), x, t, batch_size=3) for t in (1.0, 4.0))
    torch.testing.assert_close((two - y) / 4, one - y, rtol=0, atol=1e-6)
    part = representations(Identity(), x[5:], 1.0, first=5)
    assert torch.equal(part, one[5:])


def test_the_cosine_is_the_mean_over_rows():
    a = torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, 1.0], [-6.0, -8.0]], dtype=torch.float64)
    assert cosine_similarity(a, b) == pytest.approx((math.sqrt(0.5) - 1) / 2, abs=1e-14)


def test_a_probe_is_ridge_regression_of_standardised_features():
    r"""scikit-learn's own, for 3 classes."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.preprocessing import StandardScaler

    g = torch.Generator().manual_seed(0)
    label = torch.randint(3, (400,), generator=g)
    features = torch.randn(3, 6, generator=g)[label] + 1.5 * torch.randn(400, 6, generator=g)
    scale = StandardScaler().fit(features[:200])
    # ours divides by the standard deviation with n - 1, a factor on the penalty
    peer = RidgeClassifier(alpha=1e-2 * 200 * 200 / 199).fit(scale.transform(features[:200]), label[:200])
    expected = peer.score(scale.transform(features[200:]), label[200:])
    assert linear_probe(features[:200], label[:200], features[200:], label[200:], 1e-2) == pytest.approx(expected)
    assert 0.5 < expected < 1


def test_along_the_path_similarity_and_accuracy_fall_as_noise_drowns_the_class(tmp_path):
    r"""Two classes at y = -1 and 1 in 16 pixels: the probe is right without noise and guesses at t = 1000."""
    label = torch.arange(400) % 2
    data = ArrayDataset(label.float().view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone(), label)
    found = along_trajectory(Identity(), data, data, [1e-3, 1.0, 1e3], n=400)
    assert found.similarity[0] == pytest.approx(1, abs=1e-12)
    assert found.similarity[1] == pytest.approx(math.sqrt(0.5), abs=0.05)  # |y| = |eps| on average
    assert abs(found.similarity[2]) < 0.05
    assert found.accuracy[0] == 1 and found.accuracy[1] > 0.98
    assert abs(found.accuracy[2] - 0.5) < 0.13  # 5 standard errors
    assert save_trajectories({"identity": found}, tmp_path / "path.png").stat().st_size > 5000


def test_bad_arguments_are_refused():
    data = ArrayDataset(torch.zeros(4, 1, 2, 2), torch.arange(4) % 2)
    with pytest.raises(ValueError, match=r"times must be > 0 and increasing, got times=\[1.0, 1.0\]"):
        along_trajectory(Identity(), data, data, [1.0, 1.0])
    with pytest.raises(ValueError, match="must have labels"):
        along_trajectory(Identity(), ArrayDataset(torch.zeros(4, 1, 2, 2)), data, [1.0])
    with pytest.raises(ValueError, match="ridge must be > 0 and finite, got ridge=0"):
        linear_probe(torch.zeros(2, 2), torch.zeros(2).long(), torch.zeros(2, 2), torch.zeros(2).long(), 0.0)
