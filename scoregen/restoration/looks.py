r"""The equivalent number of looks of scenes, from small blocks that are spread over all of them."""

from collections.abc import Sequence

import numpy as np
import torch

from scoregen.errors import UserError
from scoregen.metrics.speckle import EquivalentLooks, equivalent_looks
from scoregen.restoration.scenes import Scene
from scoregen.restoration.survey import Reading
from scoregen.restoration.units import Units

_PIXELS, _PLANES = 2**21, 512  # that are read at most
_SIDES = (32, 16, 8)  # of a block; windows lie inside blocks


def estimate_looks(scenes: Sequence[Scene], units: Sequence[Sequence[Units]], reading: Reading) -> EquivalentLooks:
    r"""The equivalent number of looks of all scenes together.

    Args:
        scenes: of one kind of speckle. units: of the planes of each. reading: of their values.

    Raises:
        UserError: images too small, or without a window of valid pixels.
    """
    planes = [(i, k) for i, scene in enumerate(scenes) for k in range(len(scene.planes))]
    chosen = planes[:: -(-len(planes) // _PLANES)]
    shortest = min(min(scenes[i].planes[k].shape[1:]) for i, k in chosen)
    side = next((side for side in _SIDES if side <= shortest), None)
    if side is None:
        raise UserError(f"looks: are estimated from windows of 8 x 8 pixels, got images of {shortest}. Give a number.")
    blocks = [_blocks(scenes[i], k, units[i][k], reading, side, _PIXELS // len(chosen)) for i, k in chosen]
    try:
        return equivalent_looks(torch.from_numpy(np.concatenate(blocks)))
    except ValueError as error:
        raise UserError(f"looks: cannot be estimated from the images: {error}") from error


def _blocks(scene: Scene, k: int, units: Units, reading: Reading, side: int, most: int) -> np.ndarray:
    r"""Blocks (N, side, side) of a plane, NaN without data: rows of blocks, evenly spread, at least one."""
    plane = scene.planes[k]
    rows = plane.height // side
    wanted = min(rows, max(1, most // (side * plane.width * plane.channels)))
    found = []
    for row in np.linspace(0, rows - 1, wanted).round().astype(int):
        values = scene.read(k, int(row) * side, int(row + 1) * side)[:, :, : plane.width // side * side]
        missing = reading.missing(values, plane)
        x = units.training(np.where(missing, values.dtype.type(1), values))
        x[missing] = np.nan
        found.append(x.reshape(plane.channels, side, -1, side).transpose(0, 2, 1, 3).reshape(-1, side, side))
    return np.concatenate(found)
