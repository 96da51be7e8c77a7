r"""Correlated speckle, under which halves of an image are not independent: it is told, and taken away."""

import pytest
import torch
from speckle_parts import Model, complex_speckle, intensities
from torch import nn

from benchmarks.device_spy import DEVICE, Spy
from scoregen.losses import SpeckleSplit
from scoregen.losses.speckle_correlation import SpeckleCorrelation, block_correlations
from scoregen.rng import generator


def warned(x, capsys, **options) -> tuple[dict[str, float], str]:
    loss = SpeckleSplit(4.0, **options)
    assert loss.metrics() == {}
    for part in x.chunk(2):
        loss(Model(lambda u, s: u / 2), part, generator=generator(0))
    return loss.metrics(), capsys.readouterr().err


def speckle_of(width: int) -> torch.Tensor:
    r"""4-look speckle of 24 images; each pixel is the mean over neighbours of complex speckle, `width` a side."""
    z = complex_speckle(torch.ones(4, 24, 66, 66, dtype=torch.float64))
    kernel = torch.ones(1, 1, width, width, dtype=torch.float64) / width
    parts = [nn.functional.conv2d(p.reshape(-1, 1, 66, 66), kernel) for p in (z.real, z.imag)]
    return (parts[0].square() + parts[1].square()).unflatten(0, (4, 24)).mean(0)


@pytest.mark.parametrize(("width", "exact"), [(2, 0.22), (3, 0.41)])
def test_correlated_speckle_is_told_once_and_subsampling_removes_it(width, exact, capsys):
    r"""Means over 2 and 3 pixels a side; `exact` is the correlation of log I over a whole flat image."""
    told, text = warned(speckle_of(width), capsys)
    assert exact - 0.15 < told["speckle_correlation"] < exact
    assert "loss: the speckle of neighbouring pixels is correlated: 0." in text and "Give loss.subsample=2" in text
    told, text = warned(speckle_of(2), capsys, subsample=2)
    assert told["speckle_correlation"] < 0 and text == ""


def test_independent_speckle_of_any_scene_is_not_told(capsys):
    r"""A scene with edges and slopes: planes and blocks of speckle alone leave nothing of it."""
    rows = torch.linspace(0, 3, 64, dtype=torch.float64)
    scene = (0.1 + (rows.sin()[:, None] > rows.cos()[None]) + rows).expand(40, 1, -1, -1)
    told, text = warned(intensities(scene, 4.0), capsys)
    assert -0.12 < told["speckle_correlation"] < 0.03 and text == ""


def test_blocks_that_vary_more_than_speckle_are_left_out():
    edges = torch.where(torch.arange(8) % 2 < 1, 1.0, 9.0).expand(1, 1, 8, 8)
    assert torch.equal(block_correlations(edges, 0.28), torch.zeros(4))


def test_a_plane_of_the_logarithm_leaves_nothing():
    x = (0.3 * torch.arange(8.0) + 0.2 * torch.arange(8.0)[:, None]).exp().expand(1, 1, 8, 8)
    torch.testing.assert_close(block_correlations(x, 0.28), torch.tensor([0.0, 0.0, 0.0, 64.0]), atol=1e-9, rtol=0)


def test_the_correlation_is_read_once():
    loss = SpeckleSplit(4.0)
    loss(Model(lambda u, s: u / 2), intensities(torch.ones(10, 1, 64, 64, dtype=torch.float64), 4.0))
    assert "speckle_correlation" in loss.metrics() and loss.metrics() == {}


def test_adding_up_correlations_waits_for_no_accelerator():
    watch = SpeckleCorrelation(0.28)
    with Spy() as spy:
        watch.see(torch.empty(2, 1, 16, 16, device=DEVICE))
        watch.see(torch.empty(2, 1, 16, 16, device=DEVICE))
    assert (spy.waits, spy.copies) == ([], [])
