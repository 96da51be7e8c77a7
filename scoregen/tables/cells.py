r"""Cells of a text file as texts: read as they stand, and written with the quotation marks and line ends of a file."""

import codecs
import csv
import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, NoReturn, cast

from scoregen.errors import UserError
from scoregen.parallel import say_once
from scoregen.storage import write_atomically
from scoregen.tables.text_form import TextForm, is_utf_8

if TYPE_CHECKING:
    import pandas as pd

_HEAD = 2**16  # bytes in which the form of a file is seen
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def opened(file: Path) -> IO[bytes]:
    r"""A file to read, unpacked where it ends in .gz."""
    return cast(IO[bytes], gzip.open(file)) if file.suffix.lower() == ".gz" else file.open("rb")


def codec(form: TextForm) -> str:
    r"""The encoding by which a file is read, whether it begins with the mark of UTF-8 or not."""
    return "utf-8-sig" if is_utf_8(form.encoding) else form.encoding


def form_in(path: str | Path, form: TextForm) -> TextForm:
    r"""A form with what is seen in a text file: its mark of UTF-8, its ends of lines and its quotation marks.

    Args:
        path: the file; a .parquet file or none has nothing to see. form: how its cells are written.
    """
    file = Path(path).expanduser()
    if file.suffix.lower() == ".parquet" or not file.is_file():
        return form
    try:
        with opened(file) as stream:
            raw = stream.read(_HEAD)
    except (OSError, EOFError, zlib.error):
        return form  # refused where it is read
    if raw.startswith(codecs.BOM_UTF8) and is_utf_8(form.encoding):
        form = replace(form, encoding="utf-8-sig")
    rows, newline = _head(raw.decode(form.encoding, errors="ignore"), form.separator)
    if len(rows) < 2:
        return replace(form, newline=newline)
    names = [name for name, _ in rows[0]]
    columns = zip(names, zip(*(row for row in rows[1:] if len(row) == len(names)), strict=True), strict=False)
    quoted = [name for name, cells in columns if _always(cells, form.separator)]
    return replace(form, newline=newline, quoted=tuple(quoted), quoted_names=_always(rows[0], form.separator))


def _head(text: str, separator: str) -> tuple[list[list[tuple[str, bool]]], str]:
    r"""The first rows of a text, each cell with whether it stands in quotation marks; and the end of their lines."""
    part = re.compile(rf'("(?:[^"]|"")*"|[^"\r\n{re.escape(separator)}]*)({re.escape(separator)}|\r?\n)')
    rows: list[list[tuple[str, bool]]] = []
    row, place, newline = list[tuple[str, bool]](), 0, "\n"
    while (found := part.match(text, place)) is not None and len(rows) < 200:
        cell, end = found.groups()
        row.append((cell[1:-1].replace('""', '"') if cell.startswith('"') else cell, cell.startswith('"')))
        place = found.end()
        if end != separator:
            newline = newline if rows else end
            rows, row = [*rows, row] if row != [("", False)] else rows, []
    return rows, newline


def _always(cells: Sequence[tuple[str, bool]], separator: str) -> bool:
    r"""Whether all cells that are not empty stand in quotation marks, and one of them need not."""
    known = [(text, quoted) for text, quoted in cells if text or quoted]
    return all(quoted for _, quoted in known) and any(not _needs_marks(text, separator) for text, _ in known)


def _needs_marks(text: str, separator: str) -> bool:
    return any(mark in text for mark in (separator, '"', "\n", "\r"))


def read_cells(library: ModuleType, file: Path, form: TextForm, where: str) -> "pd.DataFrame":
    r"""All lines of a text file, the names among them, as texts; "" for an empty cell.

    Args:
        library: pandas. file: its ending may be .gz. form: how its cells are written. where: the key that names it.

    Raises:
        UserError: an empty file, one that is damaged, or of another separator or encoding.
    """
    options = {"sep": form.separator, "header": None, "dtype": str, "na_filter": False, "index_col": False}
    options["encoding"] = codec(form)
    try:
        texts: pd.DataFrame = library.read_csv(file, **options)
        if len(texts.columns) == 1:  # there an empty line is a cell without a value, but at the ends of the file
            texts = library.read_csv(file, skip_blank_lines=False, names=[0], **options)
            filled = (texts[0] != "").to_numpy().nonzero()[0]
            texts = texts.iloc[filled[0] : filled[-1] + 1]
    except library.errors.EmptyDataError as error:
        raise UserError(f"{where}: '{file}' is empty. It must have a line of names and then rows.") from error
    except (ValueError, OSError, EOFError, csv.Error, zlib.error) as error:
        _refuse(error, file, form, where)
    first = [str(text) for text in texts.iloc[0]]
    if len(first) == 1 or first[0].startswith("sep="):
        _check_separator(first[0], file, form.separator, where)
    _check_encoding(file, form, where)
    return texts


def _refuse(error: Exception, file: Path, form: TextForm, where: str) -> NoReturn:
    r"""Says why a file cannot be read."""
    if isinstance(error, UnicodeError):
        raise UserError(_encoding_message(error, file, form, where)) from error
    if isinstance(error, gzip.BadGzipFile | zlib.error | EOFError):
        raise UserError(
            f"{where}: '{file}' ends in .gz and cannot be unpacked ({short(error)}). Give it the ending .csv if it is "
            "not packed, or pack it again."
        ) from error
    counted = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
    if counted is not None:
        with opened(file) as stream:
            first = stream.readline(10_000).decode(form.encoding, errors="replace").lstrip("\ufeff").rstrip("\r\n")
        _check_separator(first, file, form.separator, where)
        raise UserError(
            f"{where}: line {counted[2]} of '{file}' has {counted[3]} cells, and its first line has {counted[1]}: "
            f"{first[:60]!r}. The first line must hold the names of the columns, and no line more cells. Repair it."
        ) from error
    unclosed = re.search(r"EOF inside string starting at row (\d+)", str(error))
    if unclosed is not None:
        raise UserError(
            f"{where}: a quotation mark of '{file}' is not closed, about line {int(unclosed[1]) + 1}. Repair it."
        ) from error
    raise UserError(f"{where}: '{file}' cannot be read as a table ({short(error)}). Repair it.") from error


def _encoding_message(error: UnicodeError, file: Path, form: TextForm, where: str) -> str:
    text = f"{where}: '{file}' is no text in {form.encoding} ({short(error)})."
    if where in ("table", "samples"):
        return f"{text} That is the encoding of the training table. Save it so."
    with opened(file) as stream:
        mark = _MARKS.get(stream.read(2))
    others = f"{mark}, which its first bytes say" if mark else "latin-1, or cp1252 of Windows"
    return f"{text} Give data.encoding={others}, or save it as UTF-8."


def _check_encoding(file: Path, form: TextForm, where: str) -> None:
    r"""Says that a file which is read in another encoding looks like UTF-8."""
    if is_utf_8(form.encoding):
        return
    with opened(file) as stream:
        raw = stream.read(_HEAD)
    try:
        other = not codecs.getincrementaldecoder("utf-8")().decode(raw).isascii()
    except UnicodeDecodeError:
        return
    if other:
        say_once(f"{where}: '{file}' looks like UTF-8, and is read as {form.encoding}. Compare its texts.")


def _check_separator(first: str, file: Path, separator: str, where: str) -> None:
    r"""Refuses a file whose first line has no separator, and another one."""
    key = "separator" if where == "table" else "data.separator"
    if (mark := re.match(r"sep=(.?)", first)) is not None:
        raise UserError(
            f"{where}: the first line of '{file}' is {first!r}, which Excel reads. Take it out, and give "
            f"{key}='{mark[1] or separator}'."
        )
    other = next((one for one in ";\t|," if one in first and one != separator), None)
    if separator not in first and other is not None:
        raise UserError(
            f"{where}: '{file}' has one column, {first!r}. If {other!r} stands between its cells, give {key}='{other}'."
        )


def short(error: BaseException) -> str:
    r"""A message of another library, in a line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def write_cells(names: Sequence[str], columns: Sequence[Sequence[str]], file: Path, form: TextForm) -> Path:
    r"""Writes a text file whole or not at all.

    Args:
        names: of the columns. columns: their texts. file: where it goes. form: what stands between and around them.
    """
    alone = len(names) == 1

    def marked(text: str, always: bool) -> str:
        if (always and text) or _needs_marks(text, form.separator) or (alone and not text):
            return '"' + text.replace('"', '""') + '"'
        return text

    whole = [[marked(text, name in form.quoted) for text in cells] for name, cells in zip(names, columns, strict=True)]
    lines = [form.separator.join(marked(name, form.quoted_names) for name in names)]
    lines += [form.separator.join(row) for row in zip(*whole, strict=True)]
    body = "".join(line + form.newline for line in lines).encode(form.encoding)
    return write_atomically(file, lambda stream: stream.write(body))
