r"""Classical methods for despeckle.py: filters of radar images, and denoisers of the logarithm; each is tuned.

With the local mean m and variance v of a window, Ci^2 = v/m^2 and Cu^2 = 1/L:

    Lee           m + W (I - m),  W = (1 - Cu^2/Ci^2)/(1 + Cu^2), not below 0
    refined Lee   the same on the half of a 7 x 7 window that lies on the pixel's side of the strongest edge
    Frost         mean of the window with weights exp(-K Ci^2 |distance|)

Reference: Lee (1980), IEEE PAMI 2, 165; Lee (1981), Computer Graphics and Image Processing 17, 24 (refined); Frost et
al. (1982), IEEE PAMI 4, 157; Makinen, Azzari, Foi (2020), IEEE TIP 29, 8339 (package bm3d).
"""

import itertools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1])]
from scoregen.samplers import log_moments  # noqa: E402

OFFSET = 0.02  # of the experiments: the intensity of a scene x is x + 0.02
Images = list[np.ndarray]
Filter = Callable[[np.ndarray, float], np.ndarray]  # intensities (H, W) and looks, to intensities
OnLog = Callable[[np.ndarray, float], np.ndarray]  # log intensities without bias, and the deviation of their noise


def windows(x: np.ndarray, side: int) -> np.ndarray:
    r"""The neighbourhoods (H, W, side, side) of the pixels of an image, mirrored at its border."""
    padded = np.pad(x, side // 2, mode="symmetric")
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side))


def shrunk(x: np.ndarray, mean: np.ndarray, variance: np.ndarray, looks: float) -> np.ndarray:
    r"""Lee's estimate from the mean and variance of what surrounds each pixel."""
    weight = (1 - mean**2 / (looks * np.maximum(variance, 1e-12))) / (1 + 1 / looks)
    return mean + weight.clip(0, 1) * (x - mean)


def lee(side: int) -> Filter:
    def apply(x: np.ndarray, looks: float) -> np.ndarray:
        w = windows(x, side)
        return shrunk(x, w.mean((2, 3)), w.var((2, 3)), looks)

    return apply


def _halves() -> np.ndarray:
    r"""The eight halves of a 7 x 7 window, (8, 7, 7): pairs of sides of |, -, / and \ edges through its centre."""
    y, x = np.mgrid[-3:4, -3:4]
    return np.stack([x <= 0, x >= 0, y <= 0, y >= 0, x + y <= 0, x + y >= 0, y - x <= 0, y - x >= 0]).astype(float)


def refined_lee(x: np.ndarray, looks: float) -> np.ndarray:
    halves = _halves()
    w = windows(x, 7)
    means = windows(windows(x, 3).mean((2, 3)), 5)[..., ::2, ::2]  # of 3 x 3 parts whose centres lie 2 pixels apart
    first = [means[..., :, 0], means[..., 0, :], _corner(means, -1), _corner(np.flip(means, -1), -1)]
    last = [means[..., :, 2], means[..., 2, :], _corner(means, 1), _corner(np.flip(means, -1), 1)]
    gradients = np.stack([(b - a).sum(-1) for a, b in zip(first, last, strict=True)])
    edge = np.abs(gradients).argmax(0)
    centre = means[..., 1, 1]
    sides = np.stack(
        [
            np.abs(a.mean(-1) - centre) > np.abs(b.mean(-1) - centre)  # True: the centre is like the last side
            for a, b in zip(first, last, strict=True)
        ]
    )
    number = 2 * edge + np.take_along_axis(sides, edge[None], 0)[0]
    weights = halves[number] / halves.sum((1, 2))[number][..., None, None]
    mean = (weights * w).sum((2, 3))
    return shrunk(x, mean, (weights * (w - mean[..., None, None]) ** 2).sum((2, 3)), looks)


def _corner(means: np.ndarray, sign: int) -> np.ndarray:
    r"""The three of 3 x 3 means at the first corner (sign -1) or at the one across it."""
    return means[..., (0, 0, 1), (0, 1, 0)] if sign < 0 else means[..., (2, 2, 1), (2, 1, 2)]


def frost(side: int, damping: float) -> Filter:
    def apply(x: np.ndarray, looks: float) -> np.ndarray:
        w = windows(x, side)
        y, z = np.mgrid[:side, :side] - side // 2
        variation = w.var((2, 3)) / np.maximum(w.mean((2, 3)) ** 2, 1e-12)
        weights = np.exp(-damping * variation[..., None, None] * np.hypot(y, z))
        return (weights * w).sum((2, 3)) / weights.sum((2, 3))

    return apply


def bm3d(factor: float) -> OnLog:
    r"""BM3D of the logarithm."""
    from bm3d import bm3d as denoised

    def apply(z: np.ndarray, sigma: float) -> np.ndarray:
        low, width = z.min(), np.ptp(z)
        found: np.ndarray = denoised((z - low) / width, factor * sigma / width)
        return found.reshape(z.shape) * width + low

    return apply


def wavelet(name: str, method: str, factor: float) -> OnLog:
    r"""Wavelet shrinkage of the logarithm, averaged over shifts."""
    from skimage.restoration import cycle_spin, denoise_wavelet

    def denoise(z: np.ndarray, sigma: float) -> np.ndarray:
        options = {"sigma": factor * sigma, "wavelet": name, "method": method, "rescale_sigma": False}
        levels = max(1, int(np.log2(min(z.shape))) - 2)
        return cycle_spin(
            z, func=denoise_wavelet, max_shifts=3, func_kw={**options, "wavelet_levels": levels}, workers=1
        )

    return denoise


def non_local_means(patch: int, distance: int, factor: float) -> OnLog:
    r"""Non-local means of the logarithm."""
    from skimage.restoration import denoise_nl_means

    def denoise(z: np.ndarray, sigma: float) -> np.ndarray:
        return denoise_nl_means(z, patch, distance, h=factor * sigma, sigma=sigma, fast_mode=True)

    return denoise


def total_variation(factor: float) -> OnLog:
    r"""Total variation of the logarithm."""
    from skimage.restoration import denoise_tv_chambolle

    return lambda z, sigma: denoise_tv_chambolle(z, weight=factor * sigma, max_num_iter=100)


def on_log(method: OnLog) -> Filter:
    r"""A method on log I without its bias, and back."""

    def apply(x: np.ndarray, looks: float) -> np.ndarray:
        bias, variance = log_moments(looks)
        return np.exp(method(np.log(x) - bias, variance**0.5))

    return apply


class Candidates(NamedTuple):
    r"""The settings of a method, and the number of images that they are compared on."""

    filters: list[Filter]
    images: int = 16


def classical() -> dict[str, Candidates]:
    r"""The candidates of each method; BM3D where it is installed."""
    names, rules = ("db1", "sym4"), ("BayesShrink", "VisuShrink")
    wavelets = [on_log(wavelet(*c)) for c in itertools.product(names, rules, (0.3, 0.6, 1.0))]
    means = [on_log(non_local_means(*c)) for c in itertools.product((3, 5), (5, 9), (0.4, 0.6, 0.8, 1.1))]
    found = {
        "Lee": Candidates([lee(side) for side in (3, 5, 7)]),
        "refined Lee": Candidates([refined_lee]),
        "Frost": Candidates([frost(*c) for c in itertools.product((3, 5, 7), (1.0, 2.0, 4.0, 8.0, 16.0))]),
        "wavelet": Candidates(wavelets),
        "non-local means": Candidates(means),
        "total variation": Candidates([on_log(total_variation(f)) for f in (0.3, 0.5, 0.7, 1.0, 1.4, 2.0)]),
    }
    try:
        found["BM3D"] = Candidates([on_log(bm3d(f)) for f in (0.8, 1.0, 1.2)], images=4)
    except ImportError:
        print("BM3D is left out: pip install --target FOLDER --no-deps bm3d bm4d, and put it on PYTHONPATH")
    return found


def matched(filter_: Filter, intensity: np.ndarray, looks: float, match: bool) -> np.ndarray:
    r"""A filter's result; `match` gives it the mean of I, as exp of a mean lacks."""
    found = filter_(intensity, looks)
    return cut(found * intensity.mean() / found.mean() if match else found)


def cut(x: np.ndarray) -> np.ndarray:
    r"""The range of clean intensities, which every method is told."""
    return x.clip(OFFSET, 1 + OFFSET)


def psnr(clean: np.ndarray, found: np.ndarray) -> float:
    return -10 * np.log10(((clean - found) ** 2).mean())


def score(clean: Images, found: Iterable[np.ndarray]) -> tuple[float, float]:
    r"""Mean PSNR and SSIM over images, peak 1."""
    from skimage.metrics import structural_similarity

    pairs = list(zip(clean, found, strict=True))
    similar = [structural_similarity(a, b, data_range=1.0) for a, b in pairs]
    return float(np.mean([psnr(a, b) for a, b in pairs])), float(np.mean(similar))


def tuned(method: Candidates, clean: Images, noisy: Images, looks: float) -> Callable[[np.ndarray], np.ndarray]:
    r"""The candidate, with or without the matched mean, of the best PSNR on training images."""
    options, n = list(itertools.product(method.filters, (False, True))), method.images

    def quality(option: tuple[Filter, bool]) -> float:
        pairs = zip(clean[:n], noisy[:n], strict=True)
        return float(np.mean([psnr(x, matched(option[0], i, looks, option[1])) for x, i in pairs]))

    best = max(options, key=quality)
    return lambda intensity: matched(best[0], intensity, looks, best[1])
