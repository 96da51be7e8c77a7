r"""Measures of despeckling on simulated speckle, whose looks and scenes are known."""

import math

import pytest
import torch

from scoregen.metrics import edge_preservation, equivalent_looks, ratio_image, ratio_statistics
from scoregen.samplers import speckle

N = 96


def blocks(side: int) -> torch.Tensor:
    r"""Squares of random brightness from .1 to 1.1, (1, N, N)."""
    values = torch.rand(
        1, -(-N // side), -(-N // side), generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    return values.add(0.1).repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :N, :N]


def textured() -> torch.Tensor:
    r"""The lower half of the squares with a texture of single pixels, whose coefficient of variation is .5."""
    texture = torch.randn(1, N // 2, N, generator=torch.Generator().manual_seed(4), dtype=torch.float64).mul(0.5).exp()
    scene = blocks(24).clone()
    scene[:, N // 2 :] *= texture
    return scene


SCENES = {
    "flat": torch.full((1, N, N), 0.4, dtype=torch.float64),
    "bright": torch.full((1, N, N), 6e4, dtype=torch.float64),
    "ramp": torch.linspace(0.2, 1.0, N, dtype=torch.float64).expand(1, N, N),
    "blocks": blocks(24),
}


@pytest.mark.parametrize("looks", [1, 2.5, 4, 16])
@pytest.mark.parametrize("scene", SCENES)
def test_equivalent_looks_are_those_of_the_speckle_within_ten_percent(scene, looks):
    r"""Mean of ten images, whose standard error is about 1 %."""
    found = [equivalent_looks(speckle(SCENES[scene], looks, torch.Generator().manual_seed(k))) for k in range(10)]
    assert sum(f.value for f in found) / 10 == pytest.approx(looks, rel=0.05)
    assert all(abs(f.value - looks) < max(0.1 * looks, 4 * f.spread) for f in found)


@pytest.mark.parametrize("looks", [4, 16])
def test_a_textured_half_is_not_taken_for_homogeneous(looks):
    noisy = [speckle(textured(), looks, torch.Generator().manual_seed(k)) for k in range(5)]
    assert sum(equivalent_looks(x).value for x in noisy) / 5 == pytest.approx(looks, rel=0.1)


@pytest.mark.parametrize("looks, n", [(1, 50), (4, 10), (16, 200)])
def test_a_mask_gives_mean_squared_over_variance_with_its_standard_error(looks, n):
    r"""4,000 regions of N pixels: E[1/(L + 1/N)] is exact (five sigma), the standard error to the order 1/N."""
    x = speckle(torch.full((4000, n), 0.3, dtype=torch.float64), looks, torch.Generator().manual_seed(0))
    inverse = x.var(1) / x.mean(1) ** 2
    assert inverse.mean().item() == pytest.approx(1 / (looks + 1 / n), abs=5 * inverse.std().item() / math.sqrt(4000))
    whole = x.reshape(1, -1)
    found = equivalent_looks(whole, torch.ones(1, 1))
    assert found.value == pytest.approx(1 / (whole.var() / whole.mean() ** 2).item() - 1 / whole.numel(), rel=1e-9)
    assert found.value == pytest.approx(looks, abs=5 * found.spread) and found.windows == 0
    if n == 200:
        spread = torch.tensor([equivalent_looks(row[None], torch.ones(1, 1)).value for row in x[:500]]).std().item()
        assert spread == pytest.approx(looks * math.sqrt((2 + 2 / looks) / n), rel=0.15)


def test_the_spread_is_that_of_repeated_images():
    found = [equivalent_looks(speckle(SCENES["flat"], 4, torch.Generator().manual_seed(k))) for k in range(60)]
    deviation = torch.tensor([f.value for f in found]).std().item()
    mean = sum(f.spread for f in found) / len(found)
    assert 0.8 * deviation < mean < 2 * deviation  # overlapping windows are counted as a quarter


def test_invalid_pixels_are_left_out():
    x = speckle(SCENES["flat"], 4, torch.Generator().manual_seed(0))
    x[:, :20], x[:, -5:], x[:, 40, 40] = 0.0, math.nan, -1.0
    assert equivalent_looks(x).value == pytest.approx(4, rel=0.15)
    assert equivalent_looks(x, x > -9).value == pytest.approx(4, rel=0.1)


def test_amplitudes_show_as_looks_of_another_number():
    r"""Of one look: mean^2/variance of an amplitude is pi/(4 - pi), the number by which it is recognised."""
    x = speckle(SCENES["flat"], 1, torch.Generator().manual_seed(0)).sqrt()
    assert equivalent_looks(x, torch.ones(1, 1)).value == pytest.approx(math.pi / (4 - math.pi), rel=0.03)


def test_what_cannot_be_measured_is_refused():
    x = torch.ones(1, 6, 6)
    with pytest.raises(ValueError, match=r"at least 8 x 8 pixels, a window, got \(1, 6, 6\)"):
        equivalent_looks(x)
    with pytest.raises(ValueError, match=r"no window of 4 x 4 pixels has only valid ones"):
        equivalent_looks(0 * x, window=4)
    with pytest.raises(ValueError, match=r"mask must hold at least 2 valid pixels .*, got 0"):
        equivalent_looks(x, torch.zeros(1, 1, 1))
    with pytest.raises(ValueError, match="window must be even"):
        equivalent_looks(x, window=5)
    with pytest.raises(ValueError, match="restored must have the shape of the intensities"):
        ratio_statistics(x, x[0])
    with pytest.raises(ValueError, match="at least 2 pixels must be valid"):
        ratio_statistics(x, 0 * x)


@pytest.mark.parametrize("looks", [1, 4, 16])
def test_the_ratio_image_of_the_true_scene_is_speckle(looks):
    r"""Mean 1, variance 1/L, no correlation: five sigma each (kurtosis of a gamma law 3 + 6/L)."""
    scene = textured().expand(20, N, N)
    found = ratio_statistics(speckle(scene, looks, torch.Generator().manual_seed(1)), scene)
    n = scene.numel()
    assert found.mean == pytest.approx(1, abs=5 / math.sqrt(n * looks))
    assert found.variance == pytest.approx(1 / looks, rel=5 * math.sqrt((2 + 6 / looks) / n))
    assert found.correlation == pytest.approx(0, abs=5 / math.sqrt(2 * n))


def test_what_a_wrong_scene_does_to_the_ratio_image():
    scene = textured()
    noisy = speckle(scene, 4, torch.Generator().manual_seed(1))
    assert ratio_statistics(noisy, noisy) == (1.0, 0.0, 0.0)  # nothing was removed
    assert ratio_statistics(noisy, scene / 2).mean == pytest.approx(2, rel=0.05)  # too dark
    flat = ratio_statistics(noisy, torch.full_like(scene, scene.mean()))  # the scene was removed too
    assert flat.variance > 0.35 and flat.correlation > 0.1


def test_the_ratio_image_is_nan_where_there_is_nothing_to_divide():
    x = torch.tensor([[1.0, 0.0, math.nan, 2.0, 3.0]])
    y = torch.tensor([[2.0, 4.0, 1.0, 0.0, math.inf]])
    assert ratio_image(x, y)[0].isnan().tolist() == [False, False, True, True, True]
    mask = torch.tensor([True, True, False, False, False])
    assert ratio_statistics(x, y, mask).mean == 0.25


def test_edges_are_kept_by_a_change_of_contrast_and_lost_by_a_blur():
    scene = blocks(8)[None]
    assert edge_preservation(scene, scene) == pytest.approx(1)
    assert edge_preservation(3 * scene + 2, scene) == pytest.approx(1)
    assert edge_preservation(-scene, scene) == pytest.approx(-1)
    blurred = [torch.nn.functional.avg_pool2d(scene, k, 1, k // 2) for k in (3, 7)]
    kept = [edge_preservation(x, scene) for x in blurred]
    assert 1 > kept[0] > kept[1] > 0
    noise = torch.randn(scene.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert abs(edge_preservation(noise, scene)) < 5 / N


def test_edges_by_hand():
    r"""A bright pixel of 5 x 5 has Laplacian -8 there and 1 around it, of which one moved to the right loses three."""
    a, b = torch.zeros(5, 5), torch.zeros(5, 5)
    a[2, 2], b[2, 3] = 1.0, 1.0
    la = torch.tensor([1.0, 1, 1, 1, -8, 1, 1, 1, 1])
    lb = torch.tensor([0.0, 1, 1, 0, 1, -8, 0, 1, 1])
    expected = torch.corrcoef(torch.stack([la, lb]))[0, 1].item()
    assert edge_preservation(a, b) == pytest.approx(expected, rel=1e-6)
    a[0, 0] = math.nan
    with pytest.raises(ValueError, match="at least 2 pixels must be valid"):
        edge_preservation(a, b, torch.zeros(5, 5))
    with pytest.raises(ValueError, match="restored must have the shape of the reference"):
        edge_preservation(a, b[:4])
    assert math.isfinite(edge_preservation(a, b))
