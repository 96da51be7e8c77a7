r"""TIFF files and their comparison, for the tests of scenes."""

from pathlib import Path

import numpy as np

from scoregen.restoration import Band, Results
from scoregen.restoration.scenes import Scene


def same(scene: Scene, out: Path, rows: int = 7) -> Path:
    r"""A restoration that changes nothing, in bands of some rows."""
    bands = [
        Band(0, k, first, min(first + rows, plane.height))
        for k, plane in enumerate(scene.planes)
        for first in range(0, plane.height, rows)
    ]
    results = Results([scene], [bands], out)
    for band in reversed(results.missing().bands):
        values = scene.read(band.plane, band.first, band.last)
        results.put(band, values, np.abs(values).astype(np.float32))
    assert results.missing().planes == len(scene.planes)
    return results.finish(0)


def values(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    draw = np.random.default_rng(0)
    x = 100 * draw.random(shape)
    return (x * np.exp(2j * np.pi * draw.random(shape)) if dtype[0] == "c" else x).astype(dtype)


def tiff(path: Path, *pages: np.ndarray, **options: object) -> None:
    import tifffile

    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, **{"metadata": None, "photometric": "minisblack"} | options)
