r"""Pixels without data: which they are, and numbers in their place that do not depend on how an image is cut."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from scoregen.restoration import Band, Estimate, Reading, Restorer, open_scenes, units_of
from scoregen.restoration.nodata import filled, is_missing, reach
from scoregen.samplers import Tiled
from scoregen.sde import EDM, Multiplicative


def test_nan_and_the_marks_are_missing():
    x = np.array([1, np.nan, -9999, 0, 2], np.float32)
    assert is_missing(x, -9999, None).tolist() == [False, True, True, False, False]
    assert is_missing(x, np.nan, 0).tolist() == [False, True, False, True, False]
    assert is_missing(np.array([0, 7], np.uint8), -9999, 0).tolist() == [True, False]
    assert is_missing(np.array([1j, np.nan, 0]), 0).tolist() == [False, True, True]
    lowest = np.finfo(np.float32).min
    assert is_missing(np.array([lowest, 1]), float(lowest)).tolist() == [True, False]


@pytest.mark.parametrize("size, side", [(8, 16), (28, 64), (32, 64), (33, 128)])
def test_blocks_are_twice_a_tile_or_more(size, side):
    assert reach(size) == side


def image(height: int = 150, width: int = 90) -> tuple[np.ndarray, np.ndarray]:
    r"""A ramp with noise, a border, a hole and single pixels without data."""
    draw = np.random.default_rng(0)
    logs = np.linspace(-3, 1, width) + 0.3 * draw.standard_normal((2, height, width))
    valid = draw.random(logs.shape) < 0.95
    valid[:, :30], valid[:, 70:95, 20:70] = False, False
    return np.where(valid, logs, np.nan), valid


def test_valid_pixels_stay_and_others_get_their_neighbourhood():
    logs, valid = image()
    found = filled(logs, valid, 32, -9.0)
    assert (found[valid] == logs[valid]).all() and np.isfinite(found).all()
    ramp = np.broadcast_to(np.linspace(-3, 1, logs.shape[2]), logs.shape)
    near = ~valid & (np.arange(logs.shape[1])[:, None] >= 24)  # within a block of the border
    assert np.abs(found - ramp)[near].max() < 0.9  # half a block of the ramp, and the noise of 16 pixels


def test_what_is_far_from_valid_pixels_gets_the_rest():
    valid = np.zeros((1, 64, 64), bool)
    valid[:, :8, :8] = True
    found = filled(np.ones((1, 64, 64)), valid, 16, -9.0)
    assert (found[0, :16, :16] == 1).all() and (found[0, 16:] == -9).all() and (found[0, :, 16:] == -9).all()


@pytest.mark.parametrize("first", [0, 32, 64, 96])
@pytest.mark.parametrize("last", [128, 150])
def test_numbers_do_not_depend_on_the_rows_that_are_read(first, last):
    r"""Bit for bit, where the cut is on the grid of blocks."""
    logs, valid = image()
    part = filled(logs[:, first:last], valid[:, first:last], 32, -9.0)
    assert (part == filled(logs, valid, 32, -9.0)[:, first:last]).all()


class Blur(torch.nn.Module):
    r"""The mean of 5 x 5 pixels, so that a pixel sees its neighbours."""

    sde, num_classes = Multiplicative(EDM(0.002, 3.0), offset=0.02, data_range=(0.0, 1.0)), None

    def forward(self, u, s, label=None):
        return functional.avg_pool2d(functional.pad(u, (2, 2, 2, 2), mode="replicate"), 5, 1)


def test_a_border_without_data_moves_what_sees_it_by_less_than_the_speckle(tmp_path):
    r"""Two of five pixels of a window are filled at the border; with a dark fill the change would be tenfold."""
    x = (0.2 * np.random.default_rng(0).gamma(4, 0.25, (48, 48))).astype(np.float32)
    found = []
    for k, border in enumerate((0, 8)):
        values = x.copy()
        values[:, :border] = np.nan
        np.save(tmp_path / f"{k}.npy", values)
        scenes = open_scenes(str(tmp_path / f"{k}.npy"))
        units = [[units_of(np.dtype("f4"), "intensity", None, None, 1.0)]]
        restorer = Restorer(scenes, units, Reading(), Tiled(Blur(), 16, channels=1), Estimate(4.0, probes=0), 0.2)
        found.append(np.log(restorer([Band(0, 0, 0, 48)])[0].values[0, :, 8:]))
    change = np.abs(found[1] - found[0])
    assert 0 < change.max() < 0.53 and (change[:, 2:] < 1e-6).all()  # 0.53 = sqrt(psi_1(4))
