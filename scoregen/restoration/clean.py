r"""Clean images beside restored ones: which belongs to which, and how far a result is from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scoregen.data.intensity import intensity_of
from scoregen.data.layout import Layout
from scoregen.errors import UserError, closest
from scoregen.metrics.reconstruction import ssim_map
from scoregen.restoration.opening import open_scenes
from scoregen.restoration.scenes import Scene
from scoregen.restoration.survey import Reading, rows_of
from scoregen.restoration.units import Units

_FACTOR = 2.0  # between the mean intensities, which noise leaves alone


@dataclass(frozen=True)
class Clean:
    r"""The clean images of scenes, in their order.

    Args:
        scenes: them. units: of the planes of each. peak: intensity of the training that is white; None: the brightest
            of each image.
    """

    scenes: Sequence[Scene]
    units: Sequence[Sequence[Units]]
    peak: float | None

    def rows(self, scene: int, plane: int, first: int, last: int, reading: Reading) -> Tensor:
        r"""Intensities (C, rows, W) in the units of the training, NaN without data."""
        source, units = self.scenes[scene], self.units[scene][plane]
        values = source.read(plane, first, last)
        missing = reading.missing(values, source.planes[plane])
        x = np.where(missing, np.nan, intensity_of(np.where(missing, values.dtype.type(1), values), units.unit))
        return torch.from_numpy(x / units.scale)


def open_clean(path: str, scenes: Sequence[Scene], max_pixels: int, layout: Layout | None) -> list[Scene]:
    r"""The clean image of each scene: of the same name, with the same suffix or another one, and the same sizes.

    Args:
        path: a folder, or a file for one scene. scenes: that are restored. max_pixels, layout: as for the scenes.

    Raises:
        UserError: a scene has none, or one of another size; or files that cannot be read.
    """
    try:
        found = open_scenes(path, max_pixels, layout)
    except UserError as error:
        raise UserError(f"clean: {str(error).removeprefix('images: ')}") from error
    if len(scenes) == 1 and Path(path).is_file():
        chosen = found
    else:
        exact, stems = {one.name: one for one in found}, dict[str, list[Scene]]()
        for one in found:
            stems.setdefault(_stem(one), []).append(one)
        chosen = [exact.get(scene.name) or _only(stems.get(_stem(scene), []), scene, exact, path) for scene in scenes]
    for scene, one in zip(scenes, chosen, strict=True):
        sizes, others = ([plane.shape for plane in s.planes] for s in (scene, one))
        if sizes != others:
            raise UserError(f"clean: '{one.name}' has {_sizes(others)}, '{scene.name}' {_sizes(sizes)}. Give its own.")
    return chosen


def _stem(scene: Scene) -> str:
    return str(Path(scene.name).with_suffix(""))


def _only(found: Sequence[Scene], scene: Scene, known: dict[str, Scene], path: str) -> Scene:
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(f"'{one.name}'" for one in found)
        raise UserError(f"clean: '{scene.name}' could be {names} of '{path}'. Leave one.")
    raise UserError(
        f"clean: '{path}' has no clean image for '{scene.name}'. Names must be the same, but for the "
        f"suffix. {closest(scene.name, known)}"
    )


def _sizes(shapes: Sequence[tuple[int, int, int]]) -> str:
    text = "{1} x {2} pixels of {0} channels".format(*shapes[0]) if shapes else "no images"
    return text if len(set(shapes)) < 2 and len(shapes) < 2 else f"{len(shapes)} images, the first of {text}"


def check_clean(scenes: Sequence[Scene], units: Sequence[Sequence[Units]], reading: Reading, clean: Clean) -> None:
    r"""Compares the mean intensities of images and clean ones, which speckle and counts leave as they are.

    Raises:
        UserError: they differ by a factor of 2, so that one is in other units.
    """
    own = Clean(scenes, units, None)
    sums = np.zeros(3)
    for i, scene in enumerate(scenes):
        for k, plane in enumerate(scene.planes):
            for first, last in rows_of(scene, plane):
                x, y = (one.rows(i, k, first, last, reading) for one in (own, clean))
                valid = x.isfinite() & y.isfinite()
                sums += [x[valid].sum().item(), y[valid].sum().item(), int(valid.sum())]
    noisy, right, pixels = sums
    if not pixels:
        raise UserError("clean: no pixel has data both in the images and in the clean ones. Check nodata.")
    if not right / _FACTOR <= noisy <= right * _FACTOR:
        raise UserError(
            f"clean: the mean intensity of the clean images is {right / pixels:.3g} in the units of the training data, "
            f"that of the images {noisy / pixels:.3g}. They must agree within a factor of {_FACTOR:g}, since the noise "
            "has mean 1. Give both in one unit, type and scale."
        )


def fidelity(found: Sequence[Tensor], clean: Sequence[Tensor], peak: float | None) -> tuple[float, float]:
    r"""PSNR in dB and SSIM of blocks of an image, over valid pixels, and over windows without invalid ones.

    Args:
        found, clean: blocks (C, rows, W), NaN where invalid. peak: intensity that is white; None: the brightest clean.
    """
    valid = [a.isfinite() & b.isfinite() for a, b in zip(found, clean, strict=True)]
    if not any(bool(v.any()) for v in valid):
        return math.nan, math.nan
    top = peak or max(b[v].max().item() for b, v in zip(clean, valid, strict=True) if v.any())
    pairs = [
        ((a / top).where(v, math.nan)[None].double(), (b / top).where(v, math.nan)[None].double())
        for a, b, v in zip(found, clean, valid, strict=True)
    ]
    error = torch.cat([(a - b).square().flatten() for a, b in pairs]).nanmean()
    similar = torch.cat([ssim_map(a, b).flatten() for a, b in pairs]).nanmean()
    return -10 * math.log10(max(error.item(), 1e-20)), similar.item()
