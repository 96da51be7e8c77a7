r"""What the values of a column are to pandas: numbers, dates, or objects that hold them."""

from typing import TYPE_CHECKING

import numpy as np

from scoregen.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def is_numeric(values: "pd.Series") -> bool:
    r"""Whether the values are numbers (flags are none)."""
    from pandas.api import types

    return bool(types.is_numeric_dtype(values) and not types.is_bool_dtype(values))


def is_date(values: "pd.Series") -> bool:
    r"""Whether the values are dates of pandas."""
    from pandas.api import types

    return bool(types.is_datetime64_any_dtype(values))


def plain_objects(values: "pd.Series") -> "pd.Series":
    r"""Numbers that a frame holds as objects, as None beside them makes of them, as numbers; others as they are."""
    if values.dtype != object:
        return values
    found = values.infer_objects()
    return found if is_numeric(found) else values


def check_type(values: "pd.Series", key: str) -> None:
    r"""Refuses a type of values that has no name by which samples could get it."""
    from pandas.api import types

    try:
        types.pandas_dtype(str(values.dtype))
    except (TypeError, NotImplementedError) as error:
        made = "'category'" if "dictionary" in str(values.dtype) else "float" if is_numeric(values) else "str"
        raise UserError(
            f"{key}: the column is of type {values.dtype}, which samples cannot have. Make it another one, as by "
            f"column.astype({made}), or leave it out: {key}=drop."
        ) from error


def nanoseconds(values: "pd.Series", where: str) -> np.ndarray:
    r"""Moments as whole nanoseconds since 1970, in UTC where they have a time zone, (N,) int64.

    Raises:
        UserError: moments before 1678 or after 2261; `where` names their column.
    """
    import pandas as pd

    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    seconds = values.to_numpy(dtype="datetime64[s]")
    outside = (seconds < np.datetime64("1678-01-01")) | (seconds >= np.datetime64("2262-01-01"))  # nan is not
    if outside.any():
        raise UserError(
            f"{where}: {int(outside.sum()):,} of {len(seconds):,} dates lie outside the years 1678 to 2261 (first: "
            f"{str(seconds[outside][0])[:10]}). If they say that there is no date, leave the cells empty, or give a "
            "file's data.na_values; else give numbers of years or days."
        )
    moments: np.ndarray = values.to_numpy(dtype="datetime64[ns]").astype(np.int64)
    return moments
