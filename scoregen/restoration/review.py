r"""What a restoration did to the speckle, measured on its results as they stand in their files.

Of each image: equivalent looks before and after, the ratio image's mean, variance and correlation, and how much of the
edges is left. Large images are measured on blocks of rows that are spread over them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from scoregen.data.intensity import intensity_of
from scoregen.data.layout import Layout
from scoregen.metrics.speckle import RatioImage, edge_preservation, equivalent_looks, ratio_statistics
from scoregen.restoration.arrays import Archive, ArrayFile, Stack
from scoregen.restoration.opening import open_scenes
from scoregen.restoration.scenes import FileScene, Scene
from scoregen.restoration.survey import Reading
from scoregen.restoration.units import Units

T = TypeVar("T")
MOST = 500  # images that are measured
_PIXELS, _ROWS = 2**22, 256  # of an image that are measured; rows of a block of a larger one


@dataclass(frozen=True)
class Measures:
    r"""Of one image; NaN where it is too small or has too few valid pixels.

    Args:
        scene: name of the file. plane: number of the image in it.
        looks_before, looks_after: equivalent looks of its homogeneous windows.
        ratio_mean, ratio_variance, ratio_correlation: of speckled over restored intensities; 1, 1/L and 0 are right.
        edges: correlation of the Laplacians of the logarithms before and after.
    """

    scene: str
    plane: int
    looks_before: float
    looks_after: float
    ratio_mean: float
    ratio_variance: float
    ratio_correlation: float
    edges: float


@dataclass(frozen=True)
class View:
    r"""Rows of an image and of its result.

    Args:
        observed, restored: intensities (C, rows, W) in the units of the training data, NaN without data.
        deviation: of the values of the result in its file over these values, (C, rows, W), or None.
    """

    observed: Tensor
    restored: Tensor
    deviation: Tensor | None = None


class Review:
    r"""The results of a restoration beside their sources.

    Args:
        scenes: the sources. units: of the planes of each. reading: of their values. out: folder of the results.
        layout: of arrays, as the sources were opened.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        units: Sequence[Sequence[Units]],
        reading: Reading,
        out: Path,
        layout: Layout | None = None,
    ) -> None:
        self.scenes, self.units, self.reading, self.out, self.layout = scenes, units, reading, out, layout
        self._opened: dict[int, Scene | Stack] = {}

    def planes(self, most: int) -> list[tuple[int, int]]:
        r"""(scene, plane) of at most so many images, evenly spread."""
        every = [(i, k) for i, scene in enumerate(self.scenes) for k in range(len(scene.planes))]
        return every[:: -(-len(every) // most)]

    def view(self, scene: int, plane: int, first: int, last: int, *, deviation: bool = False) -> View:
        r"""Rows first .. last - 1 of an image, before and after."""
        source, units = self.scenes[scene], self.units[scene][plane]
        before, after = source.read(plane, first, last), self._result(scene).read(plane, first, last)
        missing = self.reading.missing(before, source.planes[plane])
        x, y = (np.where(missing, np.nan, intensity_of(np.where(missing, 1, v), units.unit)) for v in (before, after))
        spread = self._deviation(scene, plane, first, last) if deviation else None
        relative = None if spread is None else torch.from_numpy(spread / np.abs(np.where(missing, np.nan, after)))
        return View(torch.from_numpy(x / units.scale), torch.from_numpy(y / units.scale), relative)

    def _result(self, scene: int) -> Scene | Stack:
        source = self.scenes[scene]
        if scene not in self._opened:
            place = source.place(self.out)
            if isinstance(source, Archive):
                with np.load(place) as arrays:
                    self._opened[scene] = Stack(arrays["images"], f"'{place}'", self.layout)
            else:
                layout = self.layout if isinstance(source, ArrayFile) else None
                pixels = max(plane.height * plane.width for plane in source.planes)
                self._opened[scene] = open_scenes(str(place), pixels, layout)[0]
        return self._opened[scene]

    def _deviation(self, scene: int, plane: int, first: int, last: int) -> np.ndarray | None:
        r"""The deviations (C, rows, W) that the result has, or None."""
        source = self.scenes[scene]
        if isinstance(source, FileScene):
            place = source.deviation_place(self.out, plane)
            if not place.exists():
                return None
            values: np.ndarray = np.load(place, mmap_mode="r")[first:last]
            return np.array(values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0))
        with np.load(source.place(self.out)) as arrays:
            if "std" not in arrays:
                return None
            return Stack(arrays["std"], "std", self.layout).read(plane, first, last)

    def measures(self, scene: int, plane: int) -> Measures:
        r"""The measures of an image."""
        shape = self.scenes[scene].planes[plane]
        blocks = _blocks(shape.height, shape.width * shape.channels)
        views = [self.view(scene, plane, first, last) for first, last in blocks]
        x, y = (torch.stack([getattr(view, side) for view in views]) for side in ("observed", "restored"))
        ratio = _measured(lambda: ratio_statistics(x, y), RatioImage(math.nan, math.nan, math.nan))
        return Measures(
            self.scenes[scene].name,
            plane,
            _measured(lambda: equivalent_looks(x).value, math.nan),
            _measured(lambda: equivalent_looks(y).value, math.nan),
            ratio.mean,
            ratio.variance,
            ratio.correlation,
            _measured(lambda: edge_preservation(y.clamp_min(1e-30).log(), x.clamp_min(1e-30).log()), math.nan),
        )


def _blocks(height: int, width: int) -> list[tuple[int, int]]:
    r"""First and last rows of blocks of one size; the whole image where it is small."""
    if height * width <= _PIXELS:
        return [(0, height)]
    rows = max(1, min(_ROWS, _PIXELS // width))
    count = max(1, _PIXELS // (rows * width))
    return [(int(first), int(first) + rows) for first in np.linspace(0, height - rows, count)]


def _measured(compute: Callable[[], T], otherwise: T) -> T:
    try:
        return compute()
    except ValueError:  # too small an image, or without valid pixels
        return otherwise


def summary(found: Sequence[Measures], looks: float) -> str:
    r"""One line: the medians over images."""
    values = {name: _median([getattr(one, name) for one in found]) for name in asdict(found[0]) if name[0] in "lre"}
    return (
        f"equivalent looks {values['looks_before']:.3g} -> {values['looks_after']:.3g}; ratio image: mean "
        f"{values['ratio_mean']:.3g} (1 is right), variance {values['ratio_variance']:.3g} ({1 / looks:.3g}), "
        f"correlation {values['ratio_correlation']:.2g} (0)"
    )


def _median(values: Sequence[float]) -> float:
    return median([value for value in values if math.isfinite(value)] or [math.nan])
