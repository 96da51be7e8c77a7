r"""Measures of despeckling that need no clean image: equivalent number of looks, and the ratio image.

Speckle of L looks multiplies a scene X by independent Gamma(L, 1/L) noise, I = X n, so that

    where X is constant:   E[I]^2 / Var[I] = L                  (equivalent number of looks)
    for the right X:       I / X = n,   mean 1, variance 1/L    (ratio image)

The sample variance v and mean m of N values of a gamma law have E[v / m^2] = 1/(L + 1/N) exactly, since m is
independent of the quotients I/m (Lukacs 1955). So 1/mean(v / m^2) - 1/N over windows estimates L at any brightness.

Reference: Lee, Jurkevich, Dewaele, Wambacq, Oosterlinck (1994), Remote Sensing Reviews 8, 313; Anfinsen, Doulgeris,
Eltoft (2009), IEEE TGRS 47, 3795, for windows in place of a mask; Oliver, Quegan (2004), section 6.3 (ratio image).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scoregen.checks import whole
from scoregen.metrics.distances import double

_SHARE, _FEWEST = 0.05, 8  # of the windows, the smoothest ones, from which the search for homogeneous ones starts


class EquivalentLooks(NamedTuple):
    r"""The equivalent number of looks of an image, with its standard error."""

    value: float
    spread: float  # one standard error
    windows: int  # homogeneous windows that it comes from; 0: from a mask


def equivalent_looks(intensity: Tensor, mask: Tensor | None = None, window: int = 8) -> EquivalentLooks:
    r"""The equivalent number of looks, mean^2/variance where the scene is constant.

        With a mask all its pixels are one sample. Without, homogeneous windows are found. Of the pixels of a window,
        as on a chessboard, one colour says whether it is homogeneous and the other one measures, so that the choice
        does not favour windows that look smooth by chance. Texture finer than a window lowers the value; correlated
        speckle has fewer looks than were averaged, and this is their number.

    Args:
        intensity: (..., H, W) intensities, not amplitudes and not decibels. Values that are not finite or not > 0 are
            left out, with their windows.
        mask: true in one homogeneous region, a shape that broadcasts to `intensity`.
        window: side of a window in pixels, even, >= 4.

    Raises:
        ValueError: fewer than 2 pixels under the mask, or no window without invalid pixels.
    """
    whole(4, window=window)
    if window % 2:
        raise ValueError(f"window must be even, so that its two colours have as many pixels, got window={window}.")
    x = double(intensity)
    valid = x.isfinite() & (x > 0)
    if mask is None:
        return _from_windows(x, valid, int(window))
    values = x[mask.to(x.device, torch.bool).expand(x.shape) & valid]
    if len(values) < 2:
        raise ValueError(f"mask must hold at least 2 valid pixels (finite and > 0), got {len(values)}. Enlarge it.")
    looks = _looks(_dispersion(values[None]), len(values))
    return EquivalentLooks(looks, looks * math.sqrt((2 + 2 / looks) / len(values)), 0)


def _from_windows(x: Tensor, valid: Tensor, window: int) -> EquivalentLooks:
    if x.ndim < 2 or min(x.shape[-2:]) < window:
        raise ValueError(f"the image must have at least {window} x {window} pixels, a window, got {tuple(x.shape)}.")
    tiles = _windows(x, window)[_windows(valid, window).all(1)]
    if not len(tiles):
        raise ValueError(f"no window of {window} x {window} pixels has only valid ones. Use a smaller one, or a mask.")
    place = torch.arange(window, device=x.device)
    black = ((place[:, None] + place) % 2 == 0).flatten()
    count = int(black.sum())
    first, second = _dispersion(tiles[:, black]), _dispersion(tiles[:, ~black])
    found = [second[_homogeneous(first, second, count)], first[_homogeneous(second, first, count)]]
    looks = _looks(torch.stack([part.mean() for part in found]), count)
    # a pixel is in four windows, so that a quarter of them count
    errors = [4 * (2 + 2 / looks) / count / max(4, len(part)) for part in found]
    return EquivalentLooks(looks, looks * math.sqrt(sum(errors)) / 2, sum(map(len, found)))


def _homogeneous(judges: Tensor, measures: Tensor, count: int) -> Tensor:
    r"""The windows whose judging pixels vary less than the smoothest windows do, by a standard deviation."""
    chosen = judges.argsort()[: max(_FEWEST, round(_SHARE * len(judges)))]
    for _ in range(2):
        looks = _looks(measures[chosen], count)
        smooth = (judges <= (1 - math.sqrt((2 + 2 / looks) / count)) / looks).nonzero()[:, 0]
        if len(smooth) < _FEWEST:
            break
        chosen = smooth
    return chosen


def _windows(x: Tensor, window: int) -> Tensor:
    r"""The windows of an image (..., H, W), which overlap by half, (N, window^2)."""
    tiles = x.unfold(-2, window, window // 2).unfold(-2, window, window // 2)
    return tiles.reshape(-1, window * window)


def _dispersion(rows: Tensor) -> Tensor:
    r"""Variance over squared mean of each row (J, N)."""
    return rows.var(1) / rows.mean(1) ** 2


def _looks(dispersion: Tensor, count: int) -> float:
    r"""L with E[dispersion] = 1/(L + 1/count), for rows of `count` values; at least 1e-3."""
    return max(1 / max(dispersion.mean().item(), 1e-12) - 1 / count, 1e-3)


class RatioImage(NamedTuple):
    r"""Statistics of a ratio image I / X, which is pure speckle where X is the scene."""

    mean: float  # 1 for an unbiased X
    variance: float  # 1/L; less: speckle was left in X; more: X lacks structure of the scene
    correlation: float  # of neighbouring pixels; 0 for independent speckle, more where structure was removed


def ratio_image(intensity: Tensor, restored: Tensor) -> Tensor:
    r"""I / X, float64, NaN where either is not finite or not > 0.

    Args:
        intensity: speckled intensities I. restored: X, a shape that broadcasts to it.
    """
    intensity, restored = double(intensity), double(restored)
    valid = intensity.isfinite() & restored.isfinite() & (intensity >= 0) & (restored > 0)
    return torch.where(valid, intensity / torch.where(valid, restored, 1.0), math.nan)


def ratio_statistics(intensity: Tensor, restored: Tensor, mask: Tensor | None = None) -> RatioImage:
    r"""Mean, variance and correlation of neighbours of the ratio image: 1, 1/L and 0 for the right X.

        X is an estimate from I itself, so that it takes up some of the speckle: an image of E[X | I] has a variance
        below 1/L by the variance of X given I over X^2, and a mean of 1.

    Args:
        intensity: speckled intensities I (..., H, W). restored: X, of the same shape.
        mask: true where to look, a shape that broadcasts to `intensity`; everywhere unless given.

    Raises:
        ValueError: shapes that differ, or fewer than 2 valid pixels.
    """
    if intensity.shape != restored.shape:
        raise ValueError(
            f"restored must have the shape of the intensities, {tuple(intensity.shape)}, got {tuple(restored.shape)}."
        )
    ratio = ratio_image(intensity, restored)
    if mask is not None:
        ratio = torch.where(mask.to(ratio.device, torch.bool), ratio, math.nan)
    return statistics(ratio)


def statistics(image: Tensor) -> RatioImage:
    r"""Mean, variance and correlation of neighbours of an image (..., H, W), NaN where it is not valid.

    Raises:
        ValueError: fewer than 2 valid pixels.
    """
    image = double(image)
    values = image[image.isfinite()]
    if len(values) < 2:
        raise ValueError(f"at least 2 pixels must be valid (finite and > 0), got {len(values)}.")
    mean, variance = values.mean(), values.var()
    products = [(a - mean) * (b - mean) for a, b in _neighbours(image)]
    covariance = torch.cat([product[product.isfinite()] for product in products])
    correlation = covariance.mean() / variance if len(covariance) and variance > 0 else torch.zeros(())
    return RatioImage(mean.item(), variance.item(), correlation.item())


def _neighbours(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    r"""Every pixel of an image (..., H, W) and the one below, and the one on its right."""
    return [(x[..., :-1, :], x[..., 1:, :]), (x[..., :-1], x[..., 1:])]


def edge_preservation(restored: Tensor, reference: Tensor, mask: Tensor | None = None) -> float:
    r"""The correlation of the Laplacians of two images, beta = <a, b> / sqrt(<a, a> <b, b>) of their centred values.

        1 where every edge has kept its place and its relative height, 0 for what has none of the edges. With the
        speckled image as a reference, where there is no clean one, speckle counts as edges: then it compares methods on
        the same images, and nothing else.

    Args:
        restored: (..., H, W). reference: the clean image, of the same shape.
        mask: true where to look, a shape that broadcasts to `restored`; pixels that are not finite are left out.

    Raises:
        ValueError: shapes that differ, or fewer than 2 pixels with their neighbours.

    Reference: Sattar, Floreby, Salomonsson, Loevstroem (1997), IEEE Trans. Image Processing 6, 888, equation 10.
    """
    if restored.shape != reference.shape:
        raise ValueError(
            f"restored must have the shape of the reference, {tuple(reference.shape)}, got {tuple(restored.shape)}."
        )
    a, b = _laplacian(double(restored)), _laplacian(double(reference))
    valid = a.isfinite() & b.isfinite()
    if mask is not None:
        valid &= mask.to(a.device, torch.bool).expand(restored.shape)[..., 1:-1, 1:-1]
    a, b = a[valid], b[valid]
    if len(a) < 2:
        raise ValueError(f"at least 2 pixels must be valid, with their neighbours, got {len(a)}.")
    a, b = a - a.mean(), b - b.mean()
    size = (a.square().sum() * b.square().sum()).sqrt()
    return ((a * b).sum() / size).item() if size > 0 else math.nan


def _laplacian(x: Tensor) -> Tensor:
    r"""The sum of the eight neighbours less eight times the pixel, (..., H - 2, W - 2)."""
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] - 9 * x[..., 1:-1, 1:-1]
