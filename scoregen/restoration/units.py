r"""The units of images with speckle: intensities, amplitudes or decibels, and the numbers in which a file has them.

    intensity     v
    amplitude     v = sqrt(intensity)
    decibels      v = 10 log10(intensity)

Speckle multiplies the intensity, so that is what is restored. Complex values z are amplitudes with a phase: their
intensity is |z|^2, and the phase is given back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scoregen.data.intensity import Unit, full_scale, intensity_of, stated_intensity
from scoregen.errors import UserError


def in_unit(intensity: np.ndarray, unit: Unit) -> np.ndarray:
    r"""Values in a unit of intensities > 0, float64."""
    found: np.ndarray = intensity
    if unit == "amplitude":
        found = np.sqrt(intensity)
    elif unit == "db":
        found = 10 * np.log10(intensity)
    return found


def deviation_in_unit(mean: np.ndarray, deviation: np.ndarray, unit: Unit) -> np.ndarray:
    r"""The standard deviation in a unit, of intensities of this mean and deviation that are log-normal.

    v = log(1 + (deviation/mean)^2) is the variance of the logarithm; amplitudes have exp(m - v/4) (e^{v/4} - 1) as
    their variance, with exp(m) the mean, and decibels 10/ln 10 sqrt(v) as their deviation.
    """
    if unit == "intensity":
        return deviation
    v: np.ndarray = np.log1p((deviation / mean) ** 2)
    found: np.ndarray = np.sqrt(mean * np.exp(-v / 4) * np.expm1(v / 4))
    return 10 / math.log(10) * np.sqrt(v) if unit == "db" else found


@dataclass(frozen=True)
class Units:
    r"""How the values of a file become intensities in the units of the training data, and back.

    Args:
        unit: unit of the values.
        scale: intensity, in the numbers of the file, that is 1 in the units of the training.
        floor: intensity, in the numbers of the file, to which darker ones are raised; None: they are refused.
        zeros: whether they are taken as they are, for a law of what was rounded to them.
    """

    unit: Unit
    scale: float
    floor: float | None = None
    zeros: bool = False

    @property
    def lowest(self) -> float | None:
        r"""The floor in the units of the training."""
        return None if self.floor is None else self.floor / self.scale

    def raised(self, x: np.ndarray) -> np.ndarray:
        r"""Intensities in the units of the training, at the floor where they were darker."""
        return x if self.lowest is None else np.maximum(x, self.lowest)

    def training(self, values: np.ndarray) -> np.ndarray:
        r"""Intensities in the units of the training, float64, of values as they stand in the file."""
        return intensity_of(values, self.unit) / self.scale

    def file(self, intensity: np.ndarray) -> np.ndarray:
        r"""Values as the file would have them, float64, of intensities in the units of the training."""
        return in_unit(intensity.astype(np.float64) * self.scale, self.unit)

    def deviation(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        r"""The standard deviation of the file's values, float32."""
        x, y = (part.astype(np.float64) * self.scale for part in (mean, deviation))
        return deviation_in_unit(x, y, self.unit).astype(np.float32)

    def value(self, intensity: float) -> float:
        r"""The value in the file of one intensity in the units of the training."""
        return float(self.file(np.array(intensity)))


def units_of(dtype: np.dtype, unit: Unit, scale: float | None, floor: float | None, top: float) -> Units:
    r"""The units of a file.

    Args:
        dtype: of its values. unit: of them; complex values are amplitudes.
        scale: value in the file that is 1 in the units of the training; None: for integers full scale is `top`, and
            others are in these units.
        floor: value in the file to which darker ones are raised, or None.
        top: highest value of the training data.

    Raises:
        UserError: a scale or floor that is no intensity, or decibels of complex values.
    """
    if dtype.kind == "c":
        if unit == "db":
            raise UserError(f"unit: complex values ({dtype}) are amplitudes with a phase, got unit=db. Leave it out.")
        unit = "amplitude"
    lowest = None if floor is None else stated_intensity("floor", floor, unit)
    if scale is not None:
        return Units(unit, stated_intensity("scale", scale, unit), lowest)
    full = full_scale(dtype, unit)
    return Units(unit, 1.0 if full is None else stated_intensity("scale", full, unit) / top, lowest)


def stored(values: np.ndarray, like: np.ndarray, marks: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    r"""Restored values in the type of the file, and where they were beyond the ends of it, and cut.

    Args:
        values: float64, >= 0 or decibels. like: what stood in the file, for the type and the phase.
        marks: values that mean "no data" there, which no restored value may become.
    """
    dtype = like.dtype
    if dtype.kind == "c":
        size = np.abs(like)
        phase = np.where(size > 0, like / np.where(size > 0, size, 1), 1)
        return (values * phase).astype(dtype), np.zeros(values.shape, bool)
    ends = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    rounded = np.rint(values) if dtype.kind in "iu" else values
    low, high = float(ends.min), float(ends.max)
    cut = (rounded < low) | (rounded > high)
    found = rounded.clip(low, high).astype(dtype)
    for mark in marks:
        if fits(mark, dtype):
            _avoid(found, dtype.type(mark))
    return found, cut


def fits(mark: float, dtype: np.dtype) -> bool:
    r"""Whether a value can stand in an array of this type, and be told by `==`."""
    if np.isnan(mark):
        return False
    if dtype.kind not in "iu":
        return True
    ends = np.iinfo(dtype)
    return math.isfinite(mark) and mark == int(mark) and ends.min <= mark <= ends.max


def _avoid(found: np.ndarray, mark: Any) -> None:
    r"""Moves what is equal to a mark to the next value."""
    same = found == mark
    if found.dtype.kind == "f":
        found[same] = np.nextafter(mark, found.dtype.type(np.inf if mark < 0 or mark == 0 else 0))
    else:
        found[same] = mark + 1 if mark < np.iinfo(found.dtype).max else mark - 1
