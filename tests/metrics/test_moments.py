import numpy as np
import pytest
import torch

from scoregen.metrics import Moments


def data(n=57, d=5):
    return 3 + torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def close(a, b, tolerance=1e-12):
    assert a.count == b.count
    torch.testing.assert_close(a.mean, b.mean, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(a.covariance, b.covariance, rtol=tolerance, atol=tolerance)


def test_agree_with_numpy():
    x = data()
    moments = Moments.of(x)
    np.testing.assert_allclose(moments.mean.numpy(), x.numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance.numpy(), np.cov(x.numpy().T), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("size", [1, 2, 10, 57])
def test_batch_split_does_not_matter(size):
    moments = Moments()
    for batch in data().split(size):
        moments.update(batch)
    close(moments, Moments.of(data()))


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_process_count_does_not_matter(processes):
    r"""Process r sees rows r, r + n, r + 2n, ... as scoregen.parallel.shard gives them."""
    total = Moments()
    for rank in range(processes):
        total.merge(Moments.from_state_dict(Moments.of(data()[rank::processes]).state_dict()))
    close(total, Moments.of(data()))


def test_empty_parts_change_nothing():
    moments = Moments().merge(Moments()).update(data()).merge(Moments()).update(data()[:0])
    close(moments, Moments.of(data()))


def test_a_large_mean_cancels_nothing():
    r"""Sums of squares would lose 16 - 2 * 8 digits here; the relative error of the centred form is about 1e8 eps."""
    x = data()
    moments = Moments()
    for batch in (x + 1e8).split(10):
        moments.update(batch)
    torch.testing.assert_close(moments.covariance, Moments.of(x).covariance, rtol=1e-6, atol=1e-6)


def test_float32_features_are_accumulated_in_float64():
    x = (1e4 + data(4000)).float()
    torch.testing.assert_close(Moments.of(x).covariance, Moments.of(x.double()).covariance, rtol=0, atol=0)


def test_gather_without_a_launcher_is_the_identity():
    close(Moments.of(data()).gather(), Moments.of(data()), 0)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        _ = Moments.of(data()[:1]).covariance
    with pytest.raises(ValueError, match="got 3 after 5"):
        Moments.of(data()).update(data()[:, :3])
