r"""A survey of the scenes before any is restored: what is missing, dark, wrong or in other units, and how bright it is.

Every value is read once, a few rows at a time. Counts and a histogram of the log intensity, of all scenes together, are
kept: 32 bins an octave, so that a quantile is right within 2 %.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scoregen.data.intensity import check_decibels
from scoregen.data.units import percent
from scoregen.errors import UserError
from scoregen.restoration.nodata import is_missing
from scoregen.restoration.noise import BRIGHT, Noise
from scoregen.restoration.scenes import KEY, Plane, Scene
from scoregen.restoration.units import Units

_ROWS = 2**21  # pixels that are read at once
_BINS, _OCTAVES = 32, 512
FACTOR = 10.0  # off the training range, from which on a scale is refused


@dataclass
class Survey:
    r"""Counts over scenes.

    Attributes:
        pixels, missing, raised: all, those without data, those below the floor.
        histogram: of log2 of the intensities in the units of the training.
    """

    pixels: int = 0
    missing: int = 0
    raised: int = 0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(2 * _BINS * _OCTAVES, np.int64))

    def quantile(self, share: float) -> float:
        r"""The intensity below which a share of the valid pixels lies."""
        total = self.histogram.cumsum()
        place = int(np.searchsorted(total, share * total[-1]))
        return float(2 ** ((place + 0.5) / _BINS - _OCTAVES))

    def bright(self, noise: Noise, units: Units) -> float:
        r"""The bright end of the scenes: the 99 % quantile of the intensities without that of their noise."""
        return noise.bright(self.quantile(BRIGHT), units.scale)


@dataclass(frozen=True)
class Reading:
    r"""How values are read.

    Args:
        nodata: value that means "no data", besides NaN and what a file says.
    """

    nodata: float | None = None

    def missing(self, values: np.ndarray, plane: Plane) -> np.ndarray:
        r"""True where values are without data."""
        return is_missing(values, plane.nodata, self.nodata)


def look(scene: Scene, units: Sequence[Units], reading: Reading, survey: Survey) -> None:
    r"""Adds a scene to a survey.

    Args:
        scene: it. units: of its planes. reading: of its values.

    Raises:
        UserError: values that are negative, infinite, or zero without a floor.
    """
    for k, plane in enumerate(scene.planes):
        name = f"'{scene.name}'" + (f", image {k}," if len(scene.planes) > 1 else "")
        for first, last in rows_of(scene, plane):
            values = scene.read(k, first, last)
            missing = reading.missing(values, plane)
            if units[k].unit == "db":
                check_decibels(values[~missing], "nodata", name.rstrip(","))
            with np.errstate(over="ignore"):
                x = units[k].training(values)[~missing]
            _check(x, name, units[k])
            low = units[k].lowest
            survey.pixels += values.size
            survey.missing += int(missing.sum())
            survey.raised += 0 if low is None else int((x < low).sum())
            shown = np.maximum(units[k].raised(x), np.finfo(np.float64).tiny)
            bins = ((np.log2(shown) + _OCTAVES) * _BINS).astype(np.int64).clip(0, len(survey.histogram) - 1)
            survey.histogram += np.bincount(bins, minlength=len(survey.histogram))


def rows_of(scene: Scene, plane: Plane) -> Iterator[tuple[int, int]]:
    r"""First and last row of the parts of a plane that are read at once."""
    step = plane.height if scene.whole else max(1, _ROWS // (plane.channels * plane.width))
    for first in range(0, plane.height, step):
        yield first, min(first + step, plane.height)


def check_values(
    scenes: Sequence[Scene], units: Sequence[Sequence[Units]], reading: Reading, check: Callable[[Tensor], None]
) -> None:
    r"""Hands all values to a check, in the units of the training, NaN without data.

    Args:
        scenes: them. units: of the planes of each. reading: of their values. check: raises ValueError.

    Raises:
        UserError: it did, with the name of the file.
    """
    for scene, own in zip(scenes, units, strict=True):
        for k, plane in enumerate(scene.planes):
            for first, last in rows_of(scene, plane):
                values = scene.read(k, first, last)
                missing = reading.missing(values, plane)
                x = own[k].raised(own[k].training(np.where(missing, values.dtype.type(1), values)))
                try:
                    check(torch.from_numpy(np.where(missing, np.nan, x)).float())
                except ValueError as error:
                    raise UserError(f"observation: '{scene.name}': {error}") from error


def _check(x: np.ndarray, name: str, units: Units) -> None:
    r"""Refuses intensities that have no logarithm."""
    negative = x < 0
    if negative.any():
        share, lowest = percent(float(negative.mean())), units.scale * x.min()
        raise UserError(
            f"{KEY}: {name} has negative values ({share}, down to {lowest:.4g}). Intensities and amplitudes are >= 0. "
            "Give unit=db for decibels, or nodata=VALUE for the value of pixels without data."
        )
    if not np.isfinite(x).all():
        raise UserError(f"{KEY}: {name} has infinite values. Give nodata=inf if they mean no data, or repair it.")
    if units.floor is None and not units.zeros and not x.all():
        count = int((x == 0).sum())
        raise UserError(
            f"{KEY}: {name} has {count} intensities of zero, of {x.size}; zero has no logarithm. Give nodata=0 for "
            "pixels without data, or a floor for dark ones: floor=0.5 is half a step of integers."
        )


def check_scale(survey: Survey, noise: Noise, ends: tuple[float, float], units: Units, given: bool) -> str | None:
    r"""Compares the brightness of the scenes with the range of the training.

    Args:
        survey: of all scenes, in the units of the training. noise: of them.
        ends: lowest and highest intensity of the training. units: of the first file, for the advice.
        given: whether the scale is the user's own choice.

    Returns:
        What is to be told, or None.

    Raises:
        UserError: they are a factor of 10 brighter; or darker, where the scale is not the user's own choice, or where
            all of them are darker than the training.
    """
    (low, top), bright = ends, survey.bright(noise, units)
    if top / FACTOR <= bright <= top * FACTOR:
        return None
    likely = units.value(bright / top)
    text = (
        f"the bright end of the images is {bright:.3g} in the units of the training data, whose highest intensity is "
        f"{top:.3g}"
    )
    if given and low <= bright < top:
        return f"scale: {text}; the likely scale is {likely:.2g}"
    raise UserError(
        f"scale: {text}. They must agree within a factor of {FACTOR:g}. Check unit, and give the value in the file "
        f"that is 1 in these units: scale={likely:.2g} is likely, scale=auto takes it from the images."
    )
