r"""Pixels without data: which they are, and what the denoiser sees in their place.

A network needs a number everywhere. A pixel without data gets the mean log intensity of the smallest block around it
that has enough valid pixels: blocks of 2, 4, 8, ... pixels on a grid that is fixed to the image. So the number does not
depend on how the image is cut for the computation. What the network makes of such a pixel is thrown away.
"""

import numpy as np

from scoregen.restoration.units import fits

_ENOUGH = 16  # valid pixels of a block, whose mean varies by a quarter of the speckle's deviation


def is_missing(values: np.ndarray, *marks: float | None) -> np.ndarray:
    r"""True where values are NaN, or one of the marks as their type has it."""
    missing = np.isnan(values) if values.dtype.kind in "fc" else np.zeros(values.shape, bool)
    for mark in marks:
        if mark is not None and fits(mark, values.dtype):
            missing |= values == values.dtype.type(mark)
    return missing


def reach(size: int) -> int:
    r"""Side of the largest blocks that serve tiles of a size: a power of 2, twice a tile or more."""
    return 1 << max(1, (2 * size - 1).bit_length())


def filled(logs: np.ndarray, valid: np.ndarray, side: int, rest: float) -> np.ndarray:
    r"""Log intensities with numbers where they are not valid.

    Args:
        logs: (C, H, W) float64, anything where not valid. valid: the same shape. side: of the largest blocks, a power
            of 2; the first row must lie on their grid. rest: of pixels farther from valid ones than that.
    """
    if valid.all():
        return logs
    height, width = logs.shape[-2:]
    pad = ((0, 0), (0, -height % side), (0, -width % side))
    sums, counts = (np.pad(part, pad) for part in (np.where(valid, logs, 0.0), valid.astype(np.float64)))
    levels = []
    block = 1
    while block < side:
        sums, counts = _halved(sums), _halved(counts)
        levels.append(np.where(counts >= min(_ENOUGH, 4 * block), sums / np.maximum(counts, 1), np.nan))
        block *= 2
    found = np.full_like(levels[-1], rest)
    for level in reversed(levels):
        while found.shape != level.shape:
            found = found.repeat(2, axis=1).repeat(2, axis=2)
        found = np.where(np.isnan(level), found, level)
    found = found.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]
    return np.where(valid, logs, found)


def _halved(x: np.ndarray) -> np.ndarray:
    r"""Sums over blocks of 2 x 2, in an order that does not depend on the size of the array."""
    sums: np.ndarray = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
    return sums
