r"""Bands: rows of an image that are restored at once, whole rows of tiles, so that memory does not grow with the image.

A band needs the tiles that reach into it, also those that belong to its neighbours. So bands do not depend on one
another: they may be computed in any order, by several processes, and be kept for the next start.
"""

from dataclasses import dataclass

from scoregen.restoration.scenes import Plane
from scoregen.samplers.tiles import tile_starts

PIXELS = 2**21  # of a band, in all channels: some 200 MB while it is restored


@dataclass(frozen=True)
class Band:
    r"""Rows first .. last - 1 of a plane of a scene.

    Args:
        scene, plane: their numbers. first, last: rows.
    """

    scene: int
    plane: int
    first: int
    last: int


def rows_of_bands(plane: Plane, size: int, overlap: int, most: int | None = None) -> list[tuple[int, int]]:
    r"""First and last row of the bands of a plane, each about `most` pixels and at least a row of tiles.

    Args:
        plane: an image. size, overlap: of tiles. most: `PIXELS` unless given.
    """
    if plane.height <= size:
        return [(0, plane.height)]
    tops = tile_starts(plane.height, size, overlap)
    rows = max(1, (most or PIXELS) // (plane.channels * plane.width))
    starts = [0]
    for top, following in zip(tops, [*tops[1:], plane.height], strict=True):
        if following - starts[-1] > rows and top > starts[-1]:
            starts.append(top)
    return list(zip(starts, [*starts[1:], plane.height], strict=True))
