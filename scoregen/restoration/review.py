r"""What a restoration did to the speckle, measured on its results as they stand in their files.

Of each image: equivalent looks before and after, the ratio image's mean, variance and correlation, and how much of the
edges is left. Large images are measured on blocks of rows that are spread over them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoregen.data.intensity import intensity_of
from scoregen.data.layout import Layout
from scoregen.metrics.speckle import edge_preservation
from scoregen.restoration.arrays import Archive, ArrayFile, Stack
from scoregen.restoration.clean import Clean, fidelity
from scoregen.restoration.noise import Noise, measured
from scoregen.restoration.opening import open_scenes
from scoregen.restoration.scenes import FileScene, Scene
from scoregen.restoration.survey import Reading
from scoregen.restoration.units import Units

MOST = 500  # images that are measured
_PIXELS, _ROWS = 2**22, 256  # of an image that are measured; rows of a block of a larger one


@dataclass(frozen=True)
class Measures:
    r"""Of one image; NaN where it is too small or has too few valid pixels.

    Args:
        scene: name of the file. plane: number of the image in it.
        values: by name, what the noise says (looks_before, looks_after, ratio_mean, ratio_variance, ratio_correlation
            of speckle; residual_mean, residual_variance, residual_correlation of counts); edges, the correlation of
            the Laplacians of the logarithms before and after; and beside clean images psnr_before, psnr_after in dB,
            ssim_before, ssim_after.
    """

    scene: str
    plane: int
    values: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        r"""As plain data."""
        return {"scene": self.scene, "plane": self.plane, **self.values}


@dataclass(frozen=True)
class View:
    r"""Rows of an image and of its result.

    Args:
        observed, restored: intensities (C, rows, W) in the units of the training data, NaN without data.
        deviation: of the values of the result in its file over these values, (C, rows, W), or None.
        clean: intensities of the clean image, or None.
    """

    observed: Tensor
    restored: Tensor
    deviation: Tensor | None = None
    clean: Tensor | None = None


class Review:
    r"""The results of a restoration beside their sources.

    Args:
        scenes: the sources. units: of the planes of each. reading: of their values. noise: that was removed.
        out: folder of the results. layout: of arrays, as the sources were opened. clean: images of the sources.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        units: Sequence[Sequence[Units]],
        reading: Reading,
        noise: Noise,
        out: Path,
        *,
        layout: Layout | None = None,
        clean: Clean | None = None,
    ) -> None:
        self.scenes, self.units, self.reading, self.noise, self.out = scenes, units, reading, noise, out
        self.layout, self.clean = layout, clean
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
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = None if spread is None else torch.from_numpy(spread / np.abs(np.where(missing, np.nan, after)))
        clean = None if self.clean is None else self.clean.rows(scene, plane, first, last, self.reading)
        return View(torch.from_numpy(x / units.scale), torch.from_numpy(y / units.scale), relative, clean)

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
        values = self.noise.measures(x, y, self.units[scene][plane].scale)
        logs = (part.clamp_min(1e-30).log() for part in (y, x))
        values["edges"] = measured(lambda: edge_preservation(*logs), math.nan)
        if self.clean is not None:
            clean = [view.clean for view in views if view.clean is not None]
            for name, found in (("before", x), ("after", y)):
                values[f"psnr_{name}"], values[f"ssim_{name}"] = fidelity(list(found), clean, self.clean.peak)
        return Measures(self.scenes[scene].name, plane, values)


def _blocks(height: int, width: int) -> list[tuple[int, int]]:
    r"""First and last rows of blocks of one size; the whole image where it is small."""
    if height * width <= _PIXELS:
        return [(0, height)]
    rows = max(1, min(_ROWS, _PIXELS // width))
    count = max(1, _PIXELS // (rows * width))
    return [(int(first), int(first) + rows) for first in np.linspace(0, height - rows, count)]


def summary(found: Sequence[Measures], noise: Noise) -> str:
    r"""One line: medians over images, and the means of PSNR and SSIM."""
    names = found[0].values
    line = noise.says({name: _of(median, found, name) for name in names})
    if "psnr_after" in names:
        means = {name: _of(mean, found, name) for name in names if name[:4] in ("psnr", "ssim")}
        line += (
            f"; beside the clean images: PSNR {means['psnr_before']:.2f} -> {means['psnr_after']:.2f} dB, SSIM "
            f"{means['ssim_before']:.3f} -> {means['ssim_after']:.3f}"
        )
    return line


def _of(average: Callable[[Sequence[float]], float], found: Sequence[Measures], name: str) -> float:
    r"""An average of a measure over the images that have it."""
    return average([one.values[name] for one in found if math.isfinite(one.values[name])] or [math.nan])
