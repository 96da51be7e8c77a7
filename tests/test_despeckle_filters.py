r"""The filters of radar images that benchmarks/despeckle.py compares with, where their results are known."""

import numpy as np
import pytest

from benchmarks.despeckle_filters import Candidates, frost, lee, refined_lee, tuned

FILTERS = {"lee": lee(5), "refined": refined_lee, "frost": frost(5, 2.0)}
RAMP = np.add.outer(np.arange(16.0), 2 * np.arange(16.0)) + 5
EDGES = {
    "vertical": np.where(np.arange(16) < 8, 1.0, 5.0) * np.ones((16, 1)),
    "horizontal": (np.where(np.arange(16) < 8, 1.0, 5.0) * np.ones((16, 1))).T,
    "diagonal": np.where(np.add.outer(np.arange(16), np.arange(16)) < 15, 1.0, 5.0),
    "other diagonal": np.where(np.subtract.outer(np.arange(16), np.arange(16)) < 0, 1.0, 5.0),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_flat_scene_stays(name):
    np.testing.assert_allclose(FILTERS[name](np.full((12, 10), 0.7), 4.0), 0.7)


@pytest.mark.parametrize("name", ["lee", "refined"])
def test_without_speckle_nothing_is_changed(name):
    np.testing.assert_allclose(FILTERS[name](RAMP, 1e9), RAMP, rtol=1e-6)


@pytest.mark.parametrize("name", ["lee", "refined"])
def test_what_varies_less_than_speckle_is_averaged(name):
    r"""Of one look, a ramp is below the speckle: inside, a symmetric window gives its value, a half one of 7 x 7 one
    that is at most 2 pixels away."""
    found = FILTERS[name](RAMP, 1e-3)[5:-5, 5:-5]
    assert np.abs(found - RAMP[5:-5, 5:-5]).max() <= (1e-9 if name == "lee" else 2 * 3)


@pytest.mark.parametrize("edge", EDGES)
def test_refined_lee_averages_on_the_side_of_the_pixel(edge):
    r"""4-look speckle on an edge: beside it the refined filter has at most half of the error of Lee's 7 x 7 window."""
    scene = EDGES[edge]
    draws = np.random.default_rng(0).gamma(16, 1 / 16, (40, 16, 16))
    beside = (
        np.abs(np.diff(scene, axis=1, prepend=scene[:, :1])) + np.abs(np.diff(scene, axis=0, prepend=scene[:1])) > 0
    )
    beside[:3], beside[-3:], beside[:, :3], beside[:, -3:] = False, False, False, False
    plain, refined = (
        np.mean([(f(scene * n, 16.0) - scene)[beside] ** 2 for n in draws]) for f in (lee(7), refined_lee)
    )
    assert refined < plain / 2


def test_the_best_candidate_is_taken():
    clean, noisy = [np.full((8, 8), 0.5)], [np.full((8, 8), 0.6)]
    options = Candidates([lambda x, looks: x + 0.3, lambda x, looks: x - 0.11, lambda x, looks: x - 0.3])
    np.testing.assert_allclose(tuned(options, clean, noisy, 4.0)(noisy[0]), 0.49)
