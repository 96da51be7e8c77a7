r"""Bands: rows of tiles that cover an image once, and give what the whole image gives."""

import numpy as np
import pytest
import torch

from scoregen.restoration.bands import rows_of_bands
from scoregen.restoration.restorer import RowSigns
from scoregen.restoration.scenes import Plane
from scoregen.samplers.tiles import Tiled, tile_starts

CASES = [(100, 8, 2), (97, 8, 4), (9, 8, 2), (8, 8, 2), (5, 8, 2), (64, 16, 0)]


@pytest.mark.parametrize("height, size, overlap", CASES)
@pytest.mark.parametrize("most", [1, 400, 10**6])
def test_bands_cover_an_image_once_and_begin_with_tiles(height, size, overlap, most):
    bands = rows_of_bands(Plane(1, height, 20, np.dtype("float32")), size, overlap, most)
    assert [row for first, last in bands for row in range(first, last)] == list(range(height))
    if height > size:
        assert {first for first, _ in bands} <= set(tile_starts(height, size, overlap))
        assert all(20 * (last - first) <= max(most, 20 * size) for first, last in bands)
    assert len(bands) == 1 or most < 10**6


class Sees:
    r"""A denoiser whose every pixel depends on all of its tile, and on the place in it."""

    def __init__(self) -> None:
        from scoregen.sde import EDM

        self.sde = EDM()

    def __call__(self, u, s, label=None):
        weights = torch.linspace(0.5, 1.5, u[0].numel(), dtype=u.dtype).reshape(u.shape[1:])
        return u * weights + (u * weights.flip(-1)).mean((1, 2, 3), keepdim=True)


@pytest.mark.parametrize("height, size, overlap", CASES)
@pytest.mark.parametrize("most", [1, 400])
def test_a_band_has_the_rows_of_the_whole_image(height, size, overlap, most):
    u = torch.randn(2, 1, height, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tiled = Tiled(Sees(), size, overlap, batch=3)
    whole = tiled(u, 0.3)
    for first, last in rows_of_bands(Plane(1, height, 21, np.dtype("float32")), size, overlap, most):
        part, low, high = tiled.cut(height, first, last)
        rows = part(u[:, :, low:high], 0.3)[:, :, first - low : last - low]
        torch.testing.assert_close(rows, whole[:, :, first:last], rtol=0, atol=1e-14)


def test_signs_are_those_of_the_row_of_the_image():
    keys = [(0, 5), (1, 5)]
    whole, part = RowSigns(3, keys, 0), RowSigns(3, keys[1:], 7)
    for _ in range(2):
        a, b = whole(torch.empty(2, 3, 20, 6)), part(torch.empty(1, 3, 9, 6))
        assert torch.equal(a[1:, :, 7:16], b)
    assert not torch.equal(a[0], a[1]) and not torch.equal(a, whole(a))
    assert set(a.flatten().tolist()) == {-1.0, 1.0} and abs(a.mean().item()) < 5 / a.numel() ** 0.5
