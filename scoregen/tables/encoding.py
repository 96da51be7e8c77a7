r"""Rows of a table as vectors: numbers first, then the one-hots; nan stands for what is missing.

    x = (numbers of the columns that have one, in order; one-hots of the columns that have one, in order)

A zero-inflated column has both. Where it is 0 its number is a draw of its other values, independent of all else: then
the coordinate tells nothing about the zero, and the law of (number, one-hot) is a law of complete vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scoregen.errors import UserError, closest
from scoregen.parallel import say_once
from scoregen.tables.column import Column, Value
from scoregen.tables.dates import dates_by, stamped
from scoregen.tables.values import is_numeric, nanoseconds, plain_objects

if TYPE_CHECKING:
    import pandas as pd

DAY = 86_400 * 10**9
_FIRST, _LAST = (int(np.datetime64(day, "ns").astype(np.int64)) for day in ("1678-01-01", "2261-12-31"))


@dataclass(frozen=True)
class Layout:
    r"""Which coordinates stand for what.

    Args:
        numbers: of the coordinates that are numbers, which come first.
        logarithmic: for each of them whether it is positive and modelled by its logarithm.
        sizes: lengths of the one-hots, in order.
    """

    numbers: int
    logarithmic: tuple[bool, ...]
    sizes: tuple[int, ...]

    @property
    def width(self) -> int:
        r"""Length of the vector of a row."""
        return self.numbers + sum(self.sizes)

    @classmethod
    def of(cls, columns: Sequence[Column]) -> "Layout":
        r"""Of the columns of a table."""
        numbers = [column for column in columns if column.has_number]
        sizes = tuple(column.sizes for column in columns if column.sizes)
        return cls(len(numbers), tuple(column.logarithmic for column in numbers), sizes)

    def places(self, columns: Sequence[Column]) -> dict[str, tuple[int | None, slice | None]]:
        r"""Of each column, by its name as a text: the place of its number, and the places of its one-hot."""
        number, first, found = 0, self.numbers, {}
        for column in columns:
            hot = slice(first, first + column.sizes) if column.sizes else None
            found[str(column.name)] = (number if column.has_number else None, hot)
            number, first = number + column.has_number, first + column.sizes
        return found


def encode_column(values: "pd.Series", column: Column, draws: np.random.Generator | None) -> tuple[Any, Any]:
    r"""The number (N,) float64 and the codes (N,) int64 of a column; None for what it has not, nan and -1 for missing.

    Args:
        values: of the column. draws: for whole numbers and zeros, None for neither: whole numbers as they are, and nan
            for the number of a zero.

    Raises:
        UserError: values that the column cannot have.
    """
    values = plain_objects(values) if column.has_number else values
    missing = values.isna().to_numpy(dtype=bool)
    if column.kind == "category":
        return None, _codes(values, column, missing)
    if column.kind in ("constant", "drop"):
        return None, None
    if column.kind == "date":
        return _days(values, column, missing), None
    numbers = _floats(values, column, missing)
    if column.kind == "integer":
        if (broken := ~missing & (numbers != np.round(numbers))).any():
            raise UserError(
                f"{column.name}: an integer column must have whole numbers, got {int(broken.sum()):,} that are not "
                f"(first: {numbers[broken][0]:g}). Mend them, or train with data.columns.{column.name}=real."
            )
        spread = draws.uniform(-0.5, 0.5, len(numbers)) if draws is not None else 0.0
        return _from_origin(values, column, missing, numbers) + spread, None
    if column.kind == "real":
        return numbers - column.origin, None
    low = numbers < 0 if column.kind == "zero_positive" else numbers <= 0
    if low.any():
        rule = ">= 0" if column.kind == "zero_positive" else "> 0"
        raise UserError(
            f"{column.name}: a {column.kind} column must have values {rule}, got {int(low.sum()):,} that are not "
            f"(first: {numbers[low][0]:g}). Mend them, or train with data.columns.{column.name}=real."
        )
    if column.kind == "positive":
        return numbers, None
    zero = numbers == 0
    others = numbers[~zero & ~missing]
    fill = draws.choice(others, int(zero.sum())) if draws is not None and len(others) else np.nan
    numbers[zero] = fill
    return numbers, np.where(missing, -1, np.where(zero, 0, 1))


def _floats(values: "pd.Series", column: Column, missing: np.ndarray) -> np.ndarray:
    if not is_numeric(values):
        found = next((value for value in values if isinstance(value, str)), None)
        if found is not None or not missing.all():
            example = next(iter(values.dropna()))
            raise UserError(f"{column.name}: must hold numbers, got {example!r}. The table was trained with numbers.")
        return np.full(len(values), np.nan)
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(numbers).any():
        raise UserError(f"{column.name}: {int(np.isinf(numbers).sum()):,} values are infinite. Numbers must be finite.")
    return np.array(numbers)


def _from_origin(values: "pd.Series", column: Column, missing: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    from pandas.api import types

    if not types.is_integer_dtype(values):
        return numbers - column.origin
    whole = values.fillna(0).to_numpy() if missing.any() else values.to_numpy()
    # exact beyond 2^53: the difference wraps around as the numbers do
    difference = whole.astype(np.uint64) - np.uint64(int(column.origin) % 2**64)
    return np.where(missing, np.nan, difference.view(np.int64).astype(np.float64))


def _days(values: "pd.Series", column: Column, missing: np.ndarray) -> np.ndarray:
    from pandas.api import types

    if missing.all():
        return np.full(len(values), np.nan)
    if not types.is_datetime64_any_dtype(values):
        import pandas as pd

        texts, example = dates_by(pd, values, column.form), values.dropna().iloc[0]
        if texts is None:
            raise UserError(
                f"{column.name}: must hold dates, got {example!r}. Give pandas' dates, or texts as 2024-01-31."
            )
        values = texts
    moments = nanoseconds(values, str(column.name))
    return np.where(missing, np.nan, (moments - int(column.origin)) / DAY)


def _codes(values: "pd.Series", column: Column, missing: np.ndarray) -> np.ndarray:
    import pandas as pd

    known = pd.Index(list(column.categories), dtype=object)
    codes: np.ndarray = known.get_indexer(pd.Index([plain_value(v) for v in values], dtype=object))
    if (written := {str(value): k for k, value in enumerate(known)}) and len(written) == len(known):
        # a file with a part of the categories may hold 1 where the training has the text '1'
        alike = [written.get(str(plain_value(value)), -1) for value in values[codes < 0]]
        codes[codes < 0] = alike
    codes[missing] = -1
    unknown = (codes < 0) & ~missing
    if unknown.any():
        first = plain_value(values.to_numpy()[unknown][0])
        raise UserError(
            f"{column.name}: {int(unknown.sum()):,} values are none of its {len(known):,} categories (first: "
            f"{first!r}). {closest(str(first), map(str, column.categories[:50]))}"
        )
    return codes


def plain_value(value: Any) -> Any:
    r"""A scalar of numpy as one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def decode_column(column: Column, number: np.ndarray | None, hot: np.ndarray | None, count: int) -> "pd.Series":
    r"""The values of a column.

    Args:
        number: (N,) its coordinate. hot: (N, K) its one-hot, of which the largest counts. count: N.
    """
    import pandas as pd

    if column.kind == "constant":
        return typed_values([column.categories[0]] * count, column)
    if column.kind == "category":
        assert hot is not None
        chosen = hot.argmax(1)
        if column.dtype == "category":
            every = pd.Index(list(column.categories))
            return pd.Series(
                pd.Categorical.from_codes(chosen, every, ordered=column.form == "ordered"), name=column.name
            )
        return typed_values([column.categories[k] for k in chosen], column)
    assert number is not None
    number = number.astype(np.float64)
    if column.kind == "date":
        return _moments(number, column)
    if column.kind == "integer":
        return _whole(number, column)
    values = _rounded(number, column)
    if hot is not None:
        values = np.where(hot.argmax(1) == 0, 0.0, values)
    return pd.Series(values.astype(_float_type(column.dtype)), name=column.name).astype(column.dtype)


def _rounded(number: np.ndarray, column: Column) -> np.ndarray:
    r"""Numbers with the decimals of the column, or else the 7 digits that float32 has."""
    if column.decimals is None:
        return np.array([float(f"{value:.6e}") for value in number.tolist()]) + column.origin
    values: np.ndarray = np.round(number + column.origin, column.decimals)
    # a number > 0 is not rounded to 0
    return np.maximum(values, 10.0**-column.decimals) if column.logarithmic else values


def _float_type(dtype: str) -> str:
    return "float32" if dtype in ("float32", "float16") else "float64"


def typed_values(values: list[Value], column: Column) -> "pd.Series":
    r"""Values of a category or a constant, with the type of their column."""
    import pandas as pd

    if column.dtype.startswith("datetime64"):
        return pd.Series(pd.to_datetime(values, format="ISO8601"), name=column.name).astype(column.dtype)
    return pd.Series(values, name=column.name, dtype=column.dtype)


def _whole(number: np.ndarray, column: Column) -> "pd.Series":
    import pandas as pd

    rounded, origin = np.round(number), int(column.origin)
    least, most = _limits(column)
    outside = (rounded < least - origin) | (rounded > most - origin)
    if outside.any():
        say_once(
            f"{column.name}: {int(outside.sum()):,} of {len(number):,} sampled whole numbers were outside {least} to "
            f"{most}, and were moved to the nearest end."
        )
        rounded = rounded.clip(float(least - origin), float(most - origin))
    if column.dtype.lower().startswith("float"):
        return pd.Series(rounded + origin, name=column.name).astype(column.dtype)
    exact = rounded.clip(-(2.0**63), 2.0**63 - 1024).astype(np.int64).view(np.uint64) + np.uint64(origin % 2**64)
    kind = np.uint64 if column.dtype.lower() == "uint64" else np.int64
    return pd.Series(exact.view(kind), name=column.name).astype(column.dtype)


def _limits(column: Column) -> tuple[int, int]:
    r"""The least and the largest whole number that a column may hold."""
    name = column.dtype.lower().partition("[")[0]  # int64[pyarrow]
    limits = np.iinfo(name if name.startswith(("int", "uint")) else "int64")
    least = int(limits.min) if column.low is None else max(column.low, int(limits.min))
    return least, int(limits.max)


def _moments(number: np.ndarray, column: Column) -> "pd.Series":
    import pandas as pd

    steps = np.round(number * (DAY / column.step))
    low, high = ((end - int(column.origin)) // column.step for end in (_FIRST, _LAST))
    if (outside := (steps < low) | (steps > high)).any():
        say_once(
            f"{column.name}: {int(outside.sum()):,} of {len(steps):,} sampled dates were outside the years 1678 to "
            "2261, and were moved to the nearest end."
        )
    steps = steps.clip(low, high).astype(np.int64)
    moments = (int(column.origin) + steps * column.step).view("datetime64[ns]")
    found = pd.Series(moments, name=column.name)
    if column.is_text_date:
        return stamped(found, column.form or "%Y-%m-%d").astype(column.dtype)
    if "," in column.dtype:  # datetime64[ns, Europe/Berlin]
        found = found.dt.tz_localize("UTC")
    return found.astype(column.dtype)


def one_hots(codes: np.ndarray, size: int) -> Tensor:
    r"""(N, K) float32 of codes (N,); rows of nan for -1."""
    found = torch.zeros(len(codes), size)
    place = torch.from_numpy(codes.astype(np.int64))
    found[torch.arange(len(codes)), place.clamp_min(0)] = 1.0
    found[place < 0] = torch.nan
    return found
