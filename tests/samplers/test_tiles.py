r"""Tiles: weights that sum to one, and no trace of the tiles where the denoiser does not see their borders."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from scoregen.models import Denoiser, UNet
from scoregen.rng import generators
from scoregen.samplers import Ancestral, Tiled
from scoregen.samplers.tiles import _reflected, tile_starts, tile_weights
from scoregen.sde import EDM

SIZES = [(8, 8, 4), (9, 8, 4), (50, 16, 4), (50, 16, 8), (37, 12, 0), (13, 12, 6), (100, 28, 7), (7, 7, 3)]


class Blur:
    r"""A denoiser that commutes with translations: the mean over a (2 r + 1)^2 window, zeros outside the image."""

    def __init__(self, radius: int) -> None:
        self.radius, self.sde, self.sizes = radius, EDM(), []

    def __call__(self, u, s, label=None):
        self.sizes.append(len(u))
        window = 2 * self.radius + 1
        kernel = u.new_ones(u.shape[1], 1, window, window) / window**2
        shrink = 1 / (1 + torch.as_tensor(s, dtype=u.dtype).reshape(-1, 1, 1, 1) ** 2)
        return shrink * functional.conv2d(u, kernel, padding=self.radius, groups=u.shape[1])


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("length, size, overlap", SIZES)
def test_weights_are_a_partition_of_unity(length, size, overlap):
    starts, weights = tile_starts(length, size, overlap), tile_weights(length, size, overlap)
    total = torch.zeros(length, dtype=torch.float64)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + size] += weight
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-15)
    assert bool((weights >= 0).all())
    assert starts[0] == 0 and starts[-1] == length - size
    assert all(b - a <= size - overlap for a, b in pairwise(starts))


def test_weights_vanish_within_a_quarter_of_the_overlap_of_inner_borders_only():
    weights = tile_weights(40, 16, 8)
    assert weights.shape == (4, 16)
    assert bool((weights[1:, :2] == 0).all() and (weights[:-1, -2:] == 0).all())
    assert weights[0, 0] == 1 and weights[-1, -1] == 1
    # in between they change by at most the slope pi/2 of sin^2 over the four remaining pixels
    assert weights.diff(dim=1).abs().max() < torch.pi / 2 / 4


@pytest.mark.parametrize("shape", [(2, 1, 40, 53), (1, 3, 16, 90), (1, 1, 17, 16)], ids=str)
def test_tiles_leave_no_trace_in_one_call(shape):
    oracle, u = Blur(2), images(*shape)
    torch.testing.assert_close(Tiled(oracle, 16, 8)(u, 0.3), oracle(u, 0.3), rtol=0, atol=1e-14)


def test_tiles_leave_no_trace_in_a_stochastic_sampler():
    r"""The law that independent tiles break: their draws disagree in the overlap."""
    oracle, start = Blur(1), (images(2, 1, 30, 41), 0.5)
    whole, tiled = (
        Ancestral(6)(d, start=start, generator=generators(0, 1, 2, [5, 6])) for d in (oracle, Tiled(oracle, 12, 4))
    )
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-12)


def test_a_border_that_the_denoiser_does_see_is_seen_without_the_margin():
    r"""So that the two tests above can fail."""
    oracle, u = Blur(3), images(1, 1, 40, 40)
    assert (Tiled(oracle, 16, 4)(u, 0.3) - oracle(u, 0.3)).abs().max() > 1e-2


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_the_result_does_not_depend_on_the_tiles_at_a_time(batch):
    oracle, u = Blur(2), images(3, 2, 30, 30)
    expected = Tiled(oracle, 12, 4, batch=64)(u, torch.tensor([0.1, 0.2, 0.3]))
    oracle.sizes.clear()
    assert torch.equal(Tiled(oracle, 12, 4, batch=batch)(u, torch.tensor([0.1, 0.2, 0.3])), expected)
    assert sum(oracle.sizes) == 3 * 16 and max(oracle.sizes) == min(batch, 48)


def test_noise_ratios_and_labels_go_with_their_images():
    class Echo(Blur):
        def __call__(self, u, s, label=None):
            return torch.zeros_like(u) + (10 * s + label).reshape(-1, 1, 1, 1)

    out = Tiled(Echo(0), 8, batch=2)(images(2, 1, 20, 9), torch.tensor([0.1, 0.2]), torch.tensor([3, 4]))
    torch.testing.assert_close(out, torch.tensor([4.0, 6.0], dtype=torch.float64).reshape(2, 1, 1, 1).expand_as(out))
    out = Tiled(Echo(0), 8, batch=2, channels=1)(images(2, 3, 20, 9), torch.tensor([0.1, 0.2]), torch.tensor([3, 4]))
    torch.testing.assert_close(out[:, 1], out[:, 0])
    assert out[:, 2, 0, 0].tolist() == pytest.approx([4.0, 6.0])


def test_a_grey_network_takes_colours_one_by_one():
    torch.manual_seed(0)
    denoiser = Denoiser(UNet((1, 8, 8), channels=(4,), layers=1), EDM())
    torch.nn.init.normal_(denoiser.network.net.conv_out.weight)
    u = images(2, 3, 12, 20).float()
    tiled = Tiled(denoiser, 8, channels=1, batch=5)
    with torch.no_grad():
        colour, grey = tiled(u, 0.3), [tiled(u[:, k : k + 1], 0.3) for k in range(3)]
    torch.testing.assert_close(colour, torch.cat(grey, 1), rtol=0, atol=1e-5)


def test_small_images_are_continued_by_reflection():
    u = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert _reflected(u, 8)[0, 0].tolist() == [[1, 2, 3, 2, 1, 2, 3, 2]] * 8
    oracle = Blur(0)
    torch.testing.assert_close(Tiled(oracle, 8)(u, 0.5), oracle(u, 0.5))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"overlap must lie in 0..4, half of the size of a tile, got overlap=5"):
        Tiled(Blur(0), 8, 5)
    with pytest.raises(ValueError, match="size must be a whole number >= 1, got size=0"):
        Tiled(Blur(0), 0)
    with pytest.raises(ValueError, match=r"needs images \(B, 3, H, W\), got shape \(1, 1, 8, 8\)"):
        Tiled(Blur(0), 8, channels=3)(images(1, 1, 8, 8), 0.1)
    with pytest.raises(ValueError, match=r"needs images \(B, C, H, W\), got shape \(1, 8\)"):
        Tiled(Blur(0), 8)(images(1, 8), 0.1)
