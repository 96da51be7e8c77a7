r"""Units of measured images: intensities, amplitudes and decibels, as training and restoration read them.

intensity     v
amplitude     v = sqrt(intensity)
decibels      v = 10 log10(intensity)
"""

import math
from typing import Literal

import numpy as np

from scoregen.errors import UserError

Unit = Literal["intensity", "amplitude", "db"]
_DECIBELS = 200  # beyond any intensity that is measured; marks of missing pixels are -999 or -9999


def intensity_of(values: np.ndarray, unit: Unit) -> np.ndarray:
    r"""Intensities, float64, of values in a unit; complex values are amplitudes with a phase."""
    if values.dtype.kind == "c":
        x: np.ndarray = values.astype(np.complex128)
        x = x.real**2 + x.imag**2
        return x
    x = values.astype(np.float64)
    if unit == "amplitude":
        x = np.copysign(x * x, x)  # what is negative stays so, and is refused
    return 10 ** (x / 10) if unit == "db" else x


def check_decibels(values: np.ndarray, key: str, name: str) -> None:
    r"""Refuses decibels that are marks of pixels without data.

    Args:
        values: with data. key: of "no data", for the remedy. name: of the image, for the message.

    Raises:
        UserError: some are beyond 200 decibels.
    """
    beyond = values[np.abs(values) > _DECIBELS]
    if beyond.size:
        mark = float(beyond[0])
        raise UserError(
            f"{key}: {name} has {beyond.size:,} of {values.size:,} values beyond {_DECIBELS} decibels (first: "
            f"{mark:g}), which are no intensities. Give {key}={mark:g} if they mean no data, or check unit."
        )


def stated_intensity(key: str, value: float, unit: Unit) -> float:
    r"""The intensity of a value of a file that the user gave.

    Raises:
        UserError: it is not finite, or no intensity.
    """
    if not math.isfinite(value) or (unit != "db" and not value > 0):
        raise UserError(f"{key}: must be finite{'' if unit == 'db' else f' and > 0 for unit={unit}'}, got {value:g}.")
    return float(intensity_of(np.array(value, np.float64), unit))


def full_scale(dtype: np.dtype, unit: Unit) -> float | None:
    r"""The largest value of a type, which is 1 in the units of the training unless a scale says so; None of floats."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" and unit != "db" else None


def nodata_number(text: str, path: object, key: str) -> float:
    r"""The number that GDAL's tag 42113 of a TIFF states for pixels without data.

    Raises:
        UserError: it is no number.
    """
    try:
        return float(text.strip(" \0"))
    except ValueError as error:
        raise UserError(f"{key}: the nodata tag of '{path}' is no number: {text!r}. Repair it.") from error
