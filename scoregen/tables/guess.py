r"""What a column is: guessed from its values, or checked against what the user says.

| values | kind |
|---|---|
| one | constant |
| texts, flags, pandas' categories | category |
| dates | date |
| at most 10 different numbers, each at least 10 times on average, or two | category |
| other whole numbers | integer |
| numbers > 0 | positive |
| numbers >= 0, at least 2 and 0.5 % of them exactly 0 | zero_positive |
| other numbers | real |
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from scoregen.errors import UserError, closest
from scoregen.parallel import say_once
from scoregen.tables.column import KINDS, Column
from scoregen.tables.dates import SEVERAL, iso_dates
from scoregen.tables.doubts import doubt_objects, doubt_texts, tell_marks, tell_names, tell_texts, tell_whole, typeable
from scoregen.tables.values import check_type, is_date, is_numeric, nanoseconds, plain_objects

if TYPE_CHECKING:
    import pandas as pd

_FEW, _OFTEN = 10, 10
_MOST_CATEGORIES = 10_000
_ZEROS = 2, 0.005
_SMALLEST, _LARGEST = 1e-37, 1e37  # of a number in float32
_DAY = 86_400 * 10**9


def guess_column(values: "pd.Series", kind: str | None, form: str | None = None) -> Column:
    r"""The column of some values.

    Args:
        values: of a data frame. kind: what the user says, None to guess. form: how they are written in their file.

    Raises:
        UserError: values that the kind cannot have, or that no kind can.
    """
    key = _key(values.name)
    try:
        return _column(values, kind, form, key)
    except UserError as error:
        raise UserError(typeable(str(error), key)) from error


def _column(values: "pd.Series", kind: str | None, form: str | None, key: str) -> Column:
    if kind is not None and kind not in KINDS:
        raise UserError(f"{key}: there is no kind of column '{kind}'. {closest(kind, KINDS)}")
    if (inferred := plain_objects(values)).dtype != values.dtype and kind != "drop":
        say_once(f"{key}: its numbers are held as objects, and become {inferred.dtype}, in samples too.")
        values = inferred
    known = values.dropna()
    name = values.name.item() if isinstance(values.name, np.integer) else values.name
    column: dict[str, Any] = {"name": name, "dtype": str(values.dtype), "form": form}
    column["missing"] = len(values) - len(known)
    if kind == "drop":
        return Column(kind="drop", **column)
    if not len(known):
        raise UserError(f"{key}: the column has no value in {len(values):,} rows. Leave it out: {key}=drop.")
    check_type(values, key)
    if kind in (None, "date") and (texts := _text_dates(known, key)) is not None:
        known, column = texts[0], column | {"form": texts[1]}
    found = kind or _guessed(known, key)
    return _MAKERS[found](known, key, column)


def _text_dates(known: "pd.Series", key: str) -> "tuple[pd.Series, str] | None":
    r"""Texts of a data frame as dates, with their pattern; None where they are none."""
    import pandas as pd

    if is_numeric(known) or is_date(known) or not isinstance(known.iloc[0], str) or _distinct(known, key) == 1:
        return None
    return iso_dates(pd, known)


def _key(name: object) -> str:
    return f"data.columns.{name}"


def _guessed(known: "pd.Series", key: str) -> str:
    different = _distinct(known, key)
    if different == 1:
        return "constant"
    if is_date(known):
        return "date"
    if not is_numeric(known):
        doubt_objects(known, key)
        doubt_texts(known, key)
        if different == len(known) > 20:
            raise UserError(
                f"{key}: all {len(known):,} texts of the column are different, as names are, so that nothing can be "
                f"learnt of them. Leave it out: {key}=drop; or give {key}=category."
            )
        tell_texts(known, key)
        tell_names(known, different, key)
        return "category"
    numbers = _numbers(known, key)
    tell_marks(numbers, key)
    if different == 2 or (different <= _FEW and len(known) >= _OFTEN * different):
        return "category"
    if _whole(known, numbers):
        tell_whole(known, key)
        return "integer"
    zeros = int((numbers == 0).sum())
    if numbers.min() > 0:
        return "real" if _is_narrow(numbers) else "positive"
    return "zero_positive" if numbers.min() == 0 and zeros >= max(_ZEROS[0], _ZEROS[1] * len(known)) else "real"


def _distinct(known: "pd.Series", key: str) -> int:
    try:
        return int(known.nunique())
    except (TypeError, NotImplementedError) as error:  # of pyarrow the second
        other = next((value for value in known if not isinstance(value, str)), known.iloc[0])
        raise UserError(
            f"{key}: the column holds values of type {type(other).__name__}, which are no numbers, texts, flags or "
            f"dates. Leave it out: {key}=drop."
        ) from error


def _numbers(known: "pd.Series", key: str) -> np.ndarray:
    r"""The values as float64; refuses what is infinite, and what no float32 holds."""
    if not is_numeric(known):
        example = next(iter(known))
        raise UserError(f"{key}: the column has values that are no numbers, {example!r}. Give {key}=category.")
    if np.iscomplexobj(known.to_numpy()):
        raise UserError(f"{key}: the column has complex numbers. Give their real and imaginary parts as columns.")
    numbers: np.ndarray = known.to_numpy(dtype=np.float64)
    if (bad := ~np.isfinite(numbers)).any():
        raise UserError(
            f"{key}: {int(bad.sum()):,} of {len(numbers):,} values are infinite. Numbers must be finite: mend them, or "
            "leave the cells empty."
        )
    return numbers


def _whole(known: "pd.Series", numbers: np.ndarray) -> bool:
    from pandas.api import types

    if types.is_integer_dtype(known):
        return True
    return bool((np.abs(numbers) < 2**53).all() and (numbers == np.round(numbers)).all())


def _decimals(numbers: np.ndarray) -> int | None:
    r"""The least number of digits after the point with which all numbers are written, None above 9."""
    for digits in range(10):
        if np.allclose(np.round(numbers, digits), numbers, rtol=1e-15, atol=0):
            return digits
    return None


def _check_size(numbers: np.ndarray, key: str) -> None:
    size = np.abs(numbers[numbers != 0])
    if len(size) and not _SMALLEST < size.min() <= size.max() < _LARGEST:
        raise UserError(
            f"{key}: numbers must lie between {_SMALLEST:g} and {_LARGEST:g} in size, or be 0, got {size.min():.3g} to "
            f"{size.max():.3g}. Give them in another unit."
        )


def _real(known: "pd.Series", key: str, column: dict[str, Any]) -> Column:
    numbers = _numbers(known, key)
    origin = float(np.median(numbers)) if _is_narrow(numbers) else 0.0
    _check_size(numbers - origin, key)
    return Column(kind="real", decimals=_decimals(numbers), origin=origin, **column)


def _is_narrow(numbers: np.ndarray) -> bool:
    r"""Whether numbers are so far from 0, compared with their spread, that float32 would lose their digits."""
    return bool(abs(np.median(numbers)) > 1000 * (numbers.max() - numbers.min() or 1.0))


def _positive(known: "pd.Series", key: str, column: dict[str, Any]) -> Column:
    numbers = _numbers(known, key)
    if numbers.min() > 0 and _is_narrow(numbers):
        say_once(
            f"{key}: its values span {numbers.min():.10g} to {numbers.max():.10g}, and a logarithm of 7 digits loses "
            f"most of that. Give {key}=real."
        )
    _refuse_below(numbers, key, numbers <= 0, "> 0", "positive", "zero_positive" if numbers.min() == 0 else "real")
    _check_size(numbers, key)
    return Column(kind="positive", decimals=_decimals(numbers), **column)


def _zero_positive(known: "pd.Series", key: str, column: dict[str, Any]) -> Column:
    numbers = _numbers(known, key)
    _refuse_below(numbers, key, numbers < 0, ">= 0", "zero_positive", "real")
    zeros = int((numbers == 0).sum())
    if not 0 < zeros < len(numbers):
        raise UserError(
            f"{key}: a zero_positive column has zeros and other values, got {zeros:,} zeros of {len(numbers):,}. Give "
            f"{key}={'constant' if zeros else 'positive'}."
        )
    _check_size(numbers, key)
    return Column(kind="zero_positive", decimals=_decimals(numbers), **column)


def _refuse_below(numbers: np.ndarray, key: str, bad: np.ndarray, rule: str, kind: str, other: str) -> None:
    if bad.any():
        raise UserError(
            f"{key}: a {kind} column must have values {rule}, got {int(bad.sum()):,} of {len(numbers):,} that are not "
            f"(first: {numbers[bad][0]:g}). Give {key}={other}."
        )


def _integer(known: "pd.Series", key: str, column: dict[str, Any]) -> Column:
    numbers = _numbers(known, key)
    if not _whole(known, numbers):
        broken = numbers[numbers != np.round(numbers)]
        raise UserError(
            f"{key}: an integer column must have whole numbers, got {broken[0] if len(broken) else numbers[0]:g}. Give "
            f"{key}=real."
        )
    least, most = int(known.min()), int(known.max())  # exact beyond 2^53
    if most - least >= 2**24:
        say_once(
            f"{key}: its whole numbers span {most - least:,}, and samples have 7 digits of that. If they are numbers "
            f"of things, as keys are, leave the column out: {key}=drop."
        )
    return Column(kind="integer", origin=least, low=0 if least >= 0 else None, **column)


def _category(known: "pd.Series", key: str, column: dict[str, Any]) -> Column:
    import pandas as pd

    if is_date(known):
        raise UserError(f"{key}: dates cannot be a category. Give {key}=date, or the column as texts.")
    if is_numeric(known):
        _numbers(known, key)
    if isinstance(known.dtype, pd.CategoricalDtype):
        values = list(known.cat.categories)
        column = column | {"form": "ordered" if known.cat.ordered else None}
    else:
        values = sorted(known.unique(), key=lambda value: (type(value).__name__, value))
    if len(values) > _MOST_CATEGORIES:
        raise UserError(
            f"{key}: a category must have at most {_MOST_CATEGORIES:,} values, got {len(values):,}. Leave it out: "
            f"{key}=drop."
        )
    return Column(kind="category", categories=tuple(_plain(value, key) for value in values), **column)


def _plain(value: Any, key: str) -> str | int | float | bool:
    found = value.item() if hasattr(value, "item") else value
    if not isinstance(found, str | int | float | bool):
        raise UserError(
            f"{key}: the column holds values of type {type(found).__name__}, which are no numbers, texts, flags or "
            f"dates. Leave it out: {key}=drop."
        )
    return found


def _constant(known: "pd.Series", key: str, column: dict[str, Any]) -> Column:
    if (different := _distinct(known, key)) != 1:
        raise UserError(f"{key}: a constant column must have one value, got {different:,}. Leave {key} out.")
    value = known.iloc[0]
    kept = value.isoformat() if is_date(known) else _plain(value, key)
    if isinstance(kept, float) and not np.isfinite(kept):
        raise UserError(f"{key}: its value is infinite. Numbers must be finite: leave it out: {key}=drop.")
    return Column(kind="constant", categories=(kept,), **column)


def _date(known: "pd.Series", key: str, column: dict[str, Any]) -> Column:
    if not is_date(known):
        raise UserError(
            f"{key}: the column has values that are no dates, {str(known.iloc[0])!r}. Dates are those of pandas, or "
            "texts as 2024-01-31 or 2024-01-31 12:30:00 in a file."
        )
    if str(column.get("form")).endswith(SEVERAL):
        say_once(f"{key}: its moments have several time zones, and become UTC. Samples are written as 12:30Z.")
    moments = nanoseconds(known, key)
    step = int(np.gcd.reduce(np.abs(moments - moments.min()))) or 1
    kept = next(unit for unit in (_DAY, 3600 * 10**9, 60 * 10**9, 10**9, 10**6, 1000, 1) if step % unit == 0)
    return Column(kind="date", origin=int(moments.min()), step=kept, **column)


_MAKERS: dict[str, Callable[["pd.Series", str, dict[str, Any]], Column]] = {
    "real": _real,
    "positive": _positive,
    "zero_positive": _zero_positive,
    "integer": _integer,
    "category": _category,
    "constant": _constant,
    "date": _date,
}
