r"""Files of tables: read with the types of their columns, written as they were.

A text file has no types. Its cells are read as texts first, and a column is of the narrowest type that gives every text
back: flags, whole numbers (00123 is none), numbers, dates as 2024-01-31 or 2024-01-31 12:30:00+01:00, else texts.
"""

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from scoregen.errors import UserError, absent
from scoregen.parallel import say_once
from scoregen.storage import write_atomically
from scoregen.tables.cells import read_cells, short, write_cells
from scoregen.tables.column import Column
from scoregen.tables.dates import iso_dates, stamped
from scoregen.tables.doubts import are_values, doubt_names, tell_merged, tell_short, tell_words
from scoregen.tables.schema import Schema, check_names
from scoregen.tables.text_form import TextForm
from scoregen.tables.values import is_numeric

if TYPE_CHECKING:
    import pandas as pd

TEXT = "text"  # of a column that is nothing else
_WHOLE = r"[+-]?(?:0|[1-9]\d*)"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?[iI]nf(?:inity)?"


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
    path: str | Path, text: TextForm | None = None, where: str = "data.path"
) -> "tuple[pd.DataFrame, dict[str, str]]":
    r"""A table of a .csv (also .csv.gz, .tsv, .txt) or .parquet file, and how its columns are written.

    Args:
        path: the file. text: how a text file writes cells; None: as usual. where: the key that names it, for messages.

    Raises:
        UserError: the file is missing, empty or damaged, or a name of a column occurs twice.
    """
    library, file, text = pandas(), Path(path).expanduser(), text or TextForm()
    if file.suffix.lower() == ".parquet" and file.is_file():
        return _parquet(library, file, where), {}
    cells = read_texts(file, text, where)
    texts = cells.mask(cells.isin(list(text.missing)))
    tell_merged(texts, text.separator)
    found = _columns(library, texts, text)
    doubt_names(found[0], file, where)
    if where == "data.path":
        tell_words(cells, found[0], text)
    return found


def read_texts(path: str | Path, text: TextForm, where: str) -> "pd.DataFrame":
    r"""The cells of a text file as they stand, "" for an empty one; arguments and errors as of `read_table`."""
    library, file = pandas(), Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{where}: {f'{file} is not a file.' if file.exists() else absent(file)}")
    endings = [ending.lower() for ending in file.suffixes]
    if not ({*endings[-1:]} | ({*endings[-2:-1]} if endings[-1:] == [".gz"] else set())) & {".csv", ".tsv", ".txt"}:
        raise UserError(
            f"{where}: must be a .csv, .tsv, .txt (or one of them with .gz) or .parquet file, got '{file}'. Rename it "
            "if it is a text, and write other files with pandas."
        )
    texts = read_cells(library, file, text, where)
    names = [str(name) for name in texts.iloc[0]]
    if are_values(names):
        raise UserError(
            f"{where}: the first line of '{file}' holds numbers ({', '.join(names[:3])}), and must hold the names of "
            "the columns. Add a line of names."
        )
    texts = texts.iloc[1:].reset_index(drop=True)
    if not len(texts):
        raise UserError(f"{where}: '{file}' has names of columns and no rows. Add some.")
    tell_short(texts, file, text, where)
    kept = _named(texts, names, file, where)
    names, texts = [names[k] for k in kept], texts.iloc[:, kept]
    check_names(names)
    return texts.set_axis(names, axis=1)


def _named(texts: "pd.DataFrame", names: list[str], file: Path, where: str) -> list[int]:
    r"""The columns that are read: all but an index of pandas and empty ones, which have no name and are told."""
    kept = []
    for k, name in enumerate(names):
        cells = texts.iloc[:, k]
        if name.strip():
            kept.append(k)
        elif (cells == "").all():
            say_once(f"{where}: column {k + 1} of '{file}' has no name and no value, and is left out.")
        elif k == 0 and list(cells) == [str(i) for i in range(len(cells))]:
            say_once(f"{where}: the first column of '{file}', without a name, numbers the rows, and is left out.")
        else:
            kept.append(k)  # refused
    return kept


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
        raise UserError(f"{where}: '{file}' cannot be read as a table ({short(error)}).") from error
    if frame.index.names != [None]:
        say_once(
            f"{where}: the index of '{file}', {', '.join(map(str, frame.index.names))}, is left out. If it is data, "
            "write the table with frame.reset_index()."
        )
    return frame


def _columns(library: ModuleType, texts: "pd.DataFrame", text: TextForm) -> "tuple[pd.DataFrame, dict[str, str]]":
    r"""The columns of texts with their types, and the forms of those that are not written as usual."""
    columns, forms = {}, dict[str, str]()
    for name in texts.columns:
        columns[name], form = typed_column(library, texts[name], text)
        if form is not None:
            forms[name] = form
    return library.DataFrame(columns), forms


def typed_column(
    library: ModuleType, texts: "pd.Series", text: TextForm | None = None
) -> "tuple[pd.Series, str | None]":
    r"""A column of texts with its type, and how it is written where that is not as usual."""
    text = text or TextForm()
    numbers = text.numbers(texts)
    plain, grouped = numbers or (texts, False)
    found, form = _typed(library, plain, numbers is not None)
    if form != TEXT:
        return found, f"{form or ''} grouped".strip() if grouped else form
    if text.date_format is not None and texts.notna().any():
        try:
            return library.to_datetime(texts, format=text.date_format), text.date_format
        except ValueError:
            pass
    return texts, None


def _typed(library: ModuleType, texts: "pd.Series", numeric: bool) -> "tuple[pd.Series, str | None]":
    known = texts.dropna()
    if not len(known):
        return texts, None
    if known.isin(["True", "False"]).all():
        return texts.map({"True": True, "False": False}).astype("boolean" if texts.isna().any() else "bool"), None
    if numeric and known.str.fullmatch(_WHOLE).all() and (whole := _whole_numbers(library, texts)) is not None:
        return whole, None
    if numeric and known.str.fullmatch(_NUMBER).all() and not known.str.fullmatch(r"[+-]?0\d.*").any():
        digits = known.str.extract(r"\.(\d*)$")[0].fillna("").str.len()
        fixed = not known.str.contains("[eEn]").any() and digits.nunique() == 1 and int(digits.iloc[0]) > 0
        return library.to_numeric(texts), "fixed" if fixed else None
    if (found := iso_dates(library, texts)) is not None:
        return found
    return texts, TEXT


def _whole_numbers(library: ModuleType, texts: "pd.Series") -> "pd.Series | None":
    r"""Whole numbers of 64 bits, with a sign or without one; None where some are larger."""
    found: pd.Series = library.to_numeric(texts, errors="coerce")
    if found.dtype in ("int64", "uint64"):
        return found
    values = [None if library.isna(text) else int(text) for text in texts]
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    if low < -(2**63) or high >= 2**64 or (low < 0 and high >= 2**63):
        return None
    kind = "Int64" if high < 2**63 else "UInt64"
    return library.Series(values, dtype=kind, name=texts.name).astype(kind.lower() if found.notna().all() else kind)


def write_table(frame: "pd.DataFrame", file: Path, schema: Schema, own: "pd.DataFrame | None" = None) -> Path:
    r"""Writes a table whole or not at all, in the form of its ending: .csv or .parquet.

    Args:
        frame: with columns of the schema. file: where it goes. schema: says how numbers and dates are written.
        own: for a text file, texts of the same rows and columns that stay as they are, nan for those that do not.
    """
    if file.suffix == ".parquet":
        return write_atomically(file, lambda opened: frame.to_parquet(opened, index=False))
    known = {str(column.name): column for column in schema.columns}
    texts = [_texts(written(frame[name], known.get(str(name)), schema.text)) for name in frame.columns]
    if own is not None:
        kept = [own[name].tolist() for name in frame.columns]
        texts = [
            [old if isinstance(old, str) else new for new, old in zip(*both, strict=True)]
            for both in zip(texts, kept, strict=True)
        ]
    return write_cells([str(name) for name in frame.columns], texts, file, schema.text)


def _texts(values: "pd.Series") -> list[str]:
    r"""The cells of a column as texts, "" for what is missing."""
    texts = values.astype(str) if values.dtype.kind == "M" else values.map(str, na_action="ignore")
    return ["" if gap else str(text) for text, gap in zip(texts, values.isna(), strict=True)]


def written(values: "pd.Series", column: Column | None, text: TextForm | None = None) -> "pd.Series":
    r"""The cells of a column as a text file has them."""
    form, text = "" if column is None else column.form or "", text or TextForm()
    if "%" in form:
        return stamped(values, form) if values.dtype.kind == "M" else values
    if not is_numeric(values) or not (text.decimal == "," or {"fixed", "grouped"} & set(form.split())):
        return values
    digits = _digits(column) if "fixed" in form else None
    plain = values.map(lambda value: str(value) if digits is None else f"{value:.{digits}f}", na_action="ignore")
    grouped = "grouped" in form
    return plain if text.usual else plain.map(lambda number: text.written(number, grouped), na_action="ignore")


def _digits(column: Column | None) -> int | None:
    r"""Digits after the point of all numbers of a column."""
    if column is None or column.kind != "category":
        return None if column is None else column.decimals
    return max(len(repr(value).partition(".")[2]) for value in column.categories)
