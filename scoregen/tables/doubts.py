r"""Columns whose guess would be wrong without a word: refused where nothing can be right, told where something can.

A kind that the user gives is not doubted.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scoregen.errors import UserError
from scoregen.parallel import say_once
from scoregen.tables.cells import codec, opened
from scoregen.tables.text_form import TextForm

if TYPE_CHECKING:
    import pandas as pd

_FEW = 10  # different values that a category may have whatever they look like
_PLAIN = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_WRITTEN = r"['\s]*[+-]?\s*[€$£¥]?\s*[.,]?\d[\d.,'’\s]*(?:[eE][+-]?\d+)?\s*[%€$£¥]?['\s]*"
_CODE = r"[+-]?0\d.*"  # 00123
_DATES = (
    r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}(?:[ T].*)?",
    r"\d{4}[./-]\d{1,2}[./-]\d{1,2}(?:[ T].*)?",
    r"(?:19|20)\d\d-(?:0[1-9]|1[0-2])",
    r"\d{1,2}\.?[ -][^\W\d_]{3,9}\.?[ -]\d{2,4}",
    r"[^\W\d_]{3,9}\.? \d{1,2},? \d{4}",
    r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?",
)
_MARKS = (-99, -999, -9999, -99999, 999, 9999, 99999)  # that stand for a missing value in many files
_REMEDIES = {
    "Decimal": "Make them numbers: column.astype(float)",
    "date": "Make them dates of pandas: pandas.to_datetime(column)",
    "datetime": "Make them dates of pandas: pandas.to_datetime(column)",
    "Timestamp": "Make them dates of one time zone: pandas.to_datetime(column, utc=True)",
    "Timedelta": "Make them numbers: column.dt.total_seconds()",
    "Period": "Make them dates: column.dt.to_timestamp()",
}


def doubt_objects(known: "pd.Series", key: str) -> None:
    r"""Refuses values that are neither texts nor flags nor numbers, with what makes numbers or dates of them.

    Raises:
        UserError: there are some.
    """
    other = next((value for value in known if not isinstance(value, str | bool | int | float | np.generic)), None)
    if other is None or isinstance(other, complex | np.generic):
        return
    name = type(other).__name__
    raise UserError(
        f"{key}: the column holds values of type {name}, which are no numbers, texts, flags or dates. "
        f"{_REMEDIES.get(name, 'Make them one of these')}, or leave it out: {key}=drop."
    )


def doubt_texts(known: "pd.Series", key: str) -> None:
    r"""Refuses texts that are numbers or dates in other forms than a file may have, or numbers and some words.

    Raises:
        UserError: more than ten different values are.
    """
    if not known.map(lambda value: isinstance(value, str)).any():
        return  # numbers and flags of a category of pandas
    texts = known.map(str)
    if texts.nunique() <= _FEW:
        return
    if texts.str.fullmatch("|".join(_DATES)).all():
        raise UserError(
            f"{key}: the texts of the column look like dates or times, {texts.iloc[0]!r}, in a form that is not taken "
            f"for one. Say how a file writes them, data.date_format='%d.%m.%Y', or make dates of a data frame's by "
            f"pandas.to_datetime; times as numbers; or give {key}=category, or {key}=drop."
        )
    if texts.str.fullmatch(_CODE).any():
        return
    plain, written = texts.str.fullmatch(_PLAIN), texts.str.fullmatch(_WRITTEN)
    broken = texts[~plain | texts.str.contains(r"[.eE]")]  # no whole numbers
    first = texts.iloc[0] if broken.empty else broken.iloc[0]
    if broken.empty:
        raise UserError(
            f"{key}: the column has whole numbers beyond 64 bits, {max(texts, key=len)}. If they are names of things, "
            f"leave it out: {key}=drop; else give them in another unit."
        )
    if texts.str.strip("' ").str.fullmatch(_PLAIN).all() and texts.str.contains("[' ]").any():
        raise UserError(
            f"{key}: the texts of the column are numbers with spaces or marks around them, {first!r}. Take these out "
            f"of the table. Or give {key}=category."
        )
    if written.all():
        raise UserError(
            f"{key}: the texts of the column look like numbers, {first!r}. Write them as 1234.5, or say how a file "
            "writes them: data.decimal=\"','\", data.thousands=\"','\" (of pandas.read_csv: decimal=, "
            f"thousands=); units and % go into the name of the column. Or give {key}=category."
        )
    if plain.mean() >= 0.5 and texts[plain].nunique() > _FEW:
        raise UserError(
            f"{key}: {int((~plain).sum()):,} of {len(texts):,} values are no numbers, and the others are (first: "
            f"{texts[~plain].iloc[0]!r}). If they say that a value is missing, leave these cells empty, or give a "
            f"file's data.na_values='[\"{texts[~plain].iloc[0]}\"]'; else give {key}=category."
        )


def tell_texts(known: "pd.Series", key: str) -> None:
    r"""Says which categories differ by spaces at their ends or by capitals alone."""
    values = [value for value in known.unique() if isinstance(value, str)]
    seen: dict[str, str] = {}
    for value in values:
        first = seen.setdefault(re.sub(r"\s+", " ", value).strip().casefold(), value)
        if first != value:
            say_once(f"{key}: {first!r} and {value!r} are two categories. Write them alike if they are one.")
            return


def tell_names(known: "pd.Series", different: int, key: str) -> None:
    r"""Says which texts differ in most rows, as names do."""
    if different > max(20, 0.9 * len(known)):
        say_once(
            f"{key}: {different:,} of {len(known):,} texts are different, as names are, of which little can be learnt. "
            f"Leave the column out: {chosen(key, 'drop')}."
        )


def tell_whole(known: "pd.Series", key: str) -> None:
    r"""Says which whole numbers look like those of rows, or like dates."""
    numbers = known.to_numpy(dtype=np.int64 if known.dtype.kind == "i" else np.float64)
    if len(numbers) > _FEW and (np.diff(numbers) == 1).all():
        say_once(
            f"{key}: numbers the rows from {int(numbers[0])} to {int(numbers[-1])} in their order, as an index does. "
            f"It is modelled like any column; leave it out: {chosen(key, 'drop')}."
        )
        return
    year, month, day = numbers // 10_000, numbers // 100 % 100, numbers % 100
    dates = (year >= 1900) & (year < 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    if dates.all():
        say_once(
            f"{key}: its whole numbers look like dates, {int(numbers[0])}, and are modelled as numbers. Write them as "
            "2024-01-31 to make them dates."
        )


def tell_marks(numbers: np.ndarray, key: str) -> None:
    r"""Says which number looks like a mark of missing values: it occurs often, far from all others."""
    for mark in _MARKS:
        others, count = numbers[numbers != mark], int((numbers == mark).sum())
        if count < 2 or len(others) < _FEW:
            continue
        low, high = float(others.min()), float(others.max())
        if mark < low - (high - low) or mark > high + (high - low):
            say_once(
                f"{key}: {mark} occurs {count:,} times, far from the other values, {low:g} to {high:g}. If it says "
                f"that a value is missing, leave these cells empty, or give a file's data.na_values=[{mark}]."
            )


def chosen(key: str, kind: str) -> str:
    r"""What gives a column a kind on the command line: data.columns.price=real, or a mapping for a name like no key."""
    name = key.removeprefix("data.columns.")
    return f"{key}={kind}" if re.fullmatch(r"[^\W\d]\w*", name) else f"""'data.columns={{"{name}": {kind}}}'"""


def typeable(text: str, key: str) -> str:
    r"""A message in which what gives this column a kind can be typed."""
    return re.sub(re.escape(key) + r"=(\w+)", lambda found: chosen(key, found[1]), text)


def tell_merged(texts: "pd.DataFrame", separator: str) -> None:
    r"""Says which cell may be several rows, after a quotation mark without its second."""
    for name in texts.columns if len(texts.columns) > 1 else ():
        merged = texts[name].str.contains(f"\n[^\n]*{re.escape(separator)}", na=False)
        if merged.any():
            first = str(texts[name][merged].iloc[0])
            say_once(
                f"data.columns.{name}: {int(merged.sum()):,} cells hold line breaks and separators (first: "
                f"{first[:40]!r}). If they are rows, a quotation mark before them is not closed."
            )


def tell_short(texts: "pd.DataFrame", file: Path, form: TextForm, where: str) -> None:
    r"""Says how many rows of a text file have fewer cells than there are names, which are then missing."""
    width = len(texts.columns)
    if width < 2 or not (texts.iloc[:, -1] == "").any():
        return
    with opened(file) as raw, io.TextIOWrapper(raw, codec(form), newline="") as lines:
        rows = [len(row) for row in csv.reader(lines, delimiter=form.separator) if row]
    short = [k for k, cells in enumerate(rows) if cells < rows[0]]
    if short:
        say_once(
            f"{where}: {len(short):,} rows of '{file}' have fewer cells than the {rows[0]} names (first: row "
            f"{short[0]}, with {rows[short[0]]}). The cells after them count as missing."
        )


def tell_words(cells: "pd.DataFrame", typed: "pd.DataFrame", form: TextForm) -> None:
    r"""Says which texts of a category, such as NA, were taken for "no value"."""
    for name in cells.columns:
        if typed[name].dtype.kind not in "OU" or not typed[name].map(lambda value: isinstance(value, str)).any():
            continue
        words = cells[name][cells[name].isin(list(form.missing - {"", *form.na_values}))]
        if len(words):
            say_once(
                f"data.columns.{name}: {len(words):,} cells hold {words.iloc[0]!r}, which counts as no value. If it is "
                "a value like the others, give data.keep_default_na=false."
            )


def doubt_names(frame: "pd.DataFrame", file: Path, where: str) -> None:
    r"""Refuses names that are a row: each fits its column, and some are numbers with a point or dates.

    Raises:
        UserError: they are.
    """
    fits, telling = [], False
    for name in frame.columns:
        values = frame[name]
        if values.dtype.kind in "iuf" or str(values.dtype) in ("Int64", "UInt64"):
            fits.append(re.fullmatch(_PLAIN, name) is not None)
            telling |= fits[-1] and not name.isdigit()
        elif values.dtype.kind == "M":
            fits.append(any(re.fullmatch(pattern, name) for pattern in _DATES))
            telling |= fits[-1]
        else:
            fits.append(name in set(values.dropna().map(str)))
    if telling and all(fits):
        raise UserError(
            f"{where}: the first line of '{file}' fits the rows below it ({', '.join(map(str, frame.columns[:3]))}), "
            "and must hold the names of the columns. Add a line of names."
        )


def are_values(names: Sequence[str]) -> bool:
    r"""Whether names of columns are numbers, not all of them whole, as in a file without names."""
    return all(re.fullmatch(_PLAIN, name) for name in names) and not all(name.isdigit() for name in names)
