r"""Files of tables: read with the types of their columns, written as they were.

A text file has no types. Its cells are read as texts first, and a column is of the narrowest type that gives every text
back: flags, whole numbers (00123 is none), numbers, dates as 2024-01-31 or 2024-01-31 12:30:00+01:00, else texts.
"""

import csv
import gzip
import io
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from scoregen.errors import UserError, absent
from scoregen.parallel import say_once
from scoregen.storage import write_atomically
from scoregen.tables.column import Column
from scoregen.tables.doubts import are_values, tell_merged
from scoregen.tables.schema import Schema, check_names

if TYPE_CHECKING:
    import pandas as pd

_WHOLE = r"[+-]?(?:0|[1-9]\d*)"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?[iI]nf(?:inity)?"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:([T ])\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")


def pandas() -> ModuleType:
    r"""The library pandas.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UserError(
            f"data: tables need the library pandas ({error}). Install it: pip install 'scoregen[tables]'."
        ) from error
    module: ModuleType = pandas
    return module


def read_table(
    path: str | Path, separator: str = ",", where: str = "data.path"
) -> "tuple[pd.DataFrame, dict[str, str]]":
    r"""A table of a .csv (also .csv.gz, .tsv, .txt) or .parquet file, and how its columns are written.

    Args:
        path: the file. separator: between the cells of a text file. where: the key that names it, for messages.

    Raises:
        UserError: the file is missing, empty or damaged, or a name of a column occurs twice.
    """
    library, file = pandas(), Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{where}: {f'{file} is not a file.' if file.exists() else absent(file)}")
    if file.suffix == ".parquet":
        return _parquet(library, file, where), {}
    if not set(file.suffixes[-2:]) & {".csv", ".tsv", ".txt"}:
        raise UserError(f"{where}: must be a .csv or .parquet file, got '{file}'.")
    try:
        texts = library.read_csv(file, sep=separator, header=None, dtype=str, skip_blank_lines=True, index_col=False)
    except library.errors.EmptyDataError as error:
        raise UserError(f"{where}: '{file}' is empty. It must have a line of names and then rows.") from error
    except (ValueError, OSError, EOFError, csv.Error) as error:
        if isinstance(error, UnicodeError):
            raise UserError(f"{where}: '{file}' is no text in UTF-8 ({_short(error)}). Save it as UTF-8.") from error
        _check_separator(file, separator, where)
        raise UserError(f"{where}: '{file}' cannot be read as a table ({_short(error)}). Repair it.") from error
    names = ["" if library.isna(name) else str(name) for name in texts.iloc[0]]
    if len(names) == 1:
        _check_separator(file, separator, where)
    if are_values(names):
        raise UserError(
            f"{where}: the first line of '{file}' holds numbers ({', '.join(names[:3])}), and must hold the names of "
            "the columns. Add a line of names."
        )
    check_names(names)
    texts = texts.iloc[1:].reset_index(drop=True).set_axis(names, axis=1)
    if not len(texts):
        raise UserError(f"{where}: '{file}' has names of columns and no rows. Add some.")
    tell_merged(texts, separator)
    return _typed(library, texts)


def _check_separator(file: Path, separator: str, where: str) -> None:
    r"""Refuses a file whose first line has no separator, and another one."""
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8-sig", errors="replace") as text:
        first = text.readline(10_000).rstrip("\r\n")
    other = next((one for one in ";\t|," if one in first and one != separator), None)
    if separator not in first and other is not None:
        key = "separator" if where == "table" else "data.separator"
        raise UserError(
            f"{where}: '{file}' has one column, {first!r}. If {other!r} stands between its cells, give {key}='{other}'."
        )


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _parquet(library: ModuleType, file: Path, where: str) -> "pd.DataFrame":
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{where}: a .parquet file needs the library pyarrow ({error}). Install it: pip install 'scoregen[tables]'."
        ) from error
    try:
        frame: pd.DataFrame = library.read_parquet(file)
    except (ValueError, OSError, KeyError) as error:
        raise UserError(f"{where}: '{file}' cannot be read as a table ({_short(error)}).") from error
    if frame.index.names != [None]:
        say_once(
            f"{where}: the index of '{file}', {', '.join(map(str, frame.index.names))}, is left out. If it is data, "
            "write the table with frame.reset_index()."
        )
    return frame


def _typed(library: ModuleType, texts: "pd.DataFrame") -> "tuple[pd.DataFrame, dict[str, str]]":
    r"""The columns of texts with their types, and the forms of those that are not written as usual."""
    columns, forms = {}, dict[str, str]()
    for name in texts.columns:
        columns[name], form = typed_column(library, texts[name])
        if form is not None:
            forms[name] = form
    return library.DataFrame(columns), forms


def typed_column(library: ModuleType, texts: "pd.Series") -> "tuple[pd.Series, str | None]":
    r"""A column of texts with its type, and how it is written where that is not as usual."""
    known = texts.dropna()
    if not len(known):
        return texts, None
    if known.isin(["True", "False"]).all():
        return texts.map({"True": True, "False": False}).astype("boolean" if texts.isna().any() else "bool"), None
    if known.str.fullmatch(_WHOLE).all():
        try:
            return library.to_numeric(texts).astype("int64"), None
        except (ValueError, OverflowError):  # missing cells, or beyond 64 bits
            whole = _nullable(library, texts)
            if whole is not None:
                return whole, None
    if known.str.fullmatch(_NUMBER).all() and not known.str.fullmatch(r"[+-]?0\d.*").any():
        digits = known.str.extract(r"\.(\d*)$")[0].fillna("").str.len()
        fixed = not known.str.contains("[eEn]").any() and digits.nunique() == 1 and int(digits.iloc[0]) > 0
        return library.to_numeric(texts), "fixed" if fixed else None
    matches = known.str.fullmatch(_DATE)
    if matches.all() and (found := _dates(library, texts)) is not None:
        return found
    return texts, None


def _nullable(library: ModuleType, texts: "pd.Series") -> "pd.Series | None":
    values = [library.NA if library.isna(text) else int(text) for text in texts]
    try:
        found: pd.Series = library.Series(values, dtype="Int64", name=texts.name)
    except (OverflowError, TypeError, ValueError):
        return None
    return found


def _dates(library: ModuleType, texts: "pd.Series") -> "tuple[pd.Series, str] | None":
    r"""A column of dates, and the pattern in which they are written; moments of several zones become UTC."""
    first = _DATE.fullmatch(texts.dropna().iloc[0])
    assert first is not None  # the caller has looked
    between, seconds, fraction, zone = first.groups()
    pattern = "%Y-%m-%d" + ("" if between is None else f"{between}%H:%M")
    pattern += ("" if seconds is None else ":%S") + ("" if fraction is None else ".%f") + ("" if zone is None else "%z")
    try:
        found = library.to_datetime(texts, format="ISO8601", utc=zone is not None)
    except ValueError:  # no such day, or zones in some cells alone
        return None
    return found, pattern


def write_table(frame: "pd.DataFrame", file: Path, schema: Schema) -> Path:
    r"""Writes a table whole or not at all, in the form of its ending: .csv or .parquet.

    Args:
        frame: with columns of the schema. file: where it goes. schema: says how numbers and dates are written.
    """
    if file.suffix == ".parquet":
        return write_atomically(file, lambda opened: frame.to_parquet(opened, index=False))
    known = {str(column.name): column for column in schema.columns}
    texts = {name: written(frame[name], known.get(str(name))) for name in frame.columns}
    text = io.StringIO()
    pandas().DataFrame(texts).to_csv(text, index=False, lineterminator="\n")
    return write_atomically(file, lambda opened: opened.write(text.getvalue().encode()))


def written(values: "pd.Series", column: Column | None) -> "pd.Series":
    r"""The cells of a column as a text file has them."""
    if column is None:
        return values
    if column.form == "fixed" and column.decimals is not None and column.kind != "category":
        return values.map(lambda value: f"{value:.{column.decimals}f}", na_action="ignore")
    if column.form == "fixed" and column.kind == "category":
        digits = max(len(repr(value).partition(".")[2]) for value in column.categories)
        return values.map(lambda value: f"{value:.{digits}f}", na_action="ignore")
    if column.form is not None and "%" in column.form:
        return _stamped(values, column.form)
    return values


def _stamped(values: "pd.Series", form: str) -> "pd.Series":
    found: Any = values.dt.strftime(form.replace("%z", ""))
    return found + "Z" if form.endswith("%z") else found
