r"""Tables of mixed columns, from a file or a data frame: rows as vectors, with nan for what is missing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from scoregen.data.base import ArrayDataset, Dataset, Held, Source
from scoregen.data.parts import AUTO, NAMES, Name
from scoregen.errors import UserError
from scoregen.keys import derive_seed
from scoregen.rng import Stream
from scoregen.tables import Schema, TextForm, read_table
from scoregen.tables.cells import form_in
from scoregen.tables.text_form import stated

if TYPE_CHECKING:
    import pandas as pd

IN_MEMORY = "(data frame)"


class TableRows(ArrayDataset):
    r"""Rows of a table in memory (N, D), float32; nan is what is missing.

    Args:
        x: (N, D), finite or nan.

    Raises:
        ValueError: infinite values.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__(x.nan_to_num(0.0, posinf=float("inf"), neginf=-float("inf")))
        self.stored = x


class TableFile(Source):
    r"""A table with names of columns: a .csv file, or a .parquet file.

    Types of columns are guessed (`scoregen.tables.Schema`), and printed by a training. Text cells that are empty or
    "NA" are missing. Whole numbers become continuous by a uniform draw that the file, the row and the column decide.

    Args:
        path: the file.
        columns: kinds of columns by their names, where the guess is not right: real, positive, zero_positive, integer,
            category, date, constant or drop.
        separator, decimal, thousands, na_values, date_format, encoding, keep_default_na: how a text file writes cells
            (`scoregen.tables.TextForm`), as those of `pandas.read_csv`.
        test, validation: which data are these parts, as in `Source`; a file of a path has the same columns.

    Attributes:
        schema: the columns, and how rows become vectors.

    Raises:
        UserError: the file is missing, empty or damaged, a column twice, or values that its kind cannot have.
    """

    range = None

    def __init__(
        self,
        path: str,
        columns: Mapping[str, str] | None = None,
        separator: str = ",",
        decimal: str = ".",
        thousands: str | None = None,
        na_values: str | Sequence[str] | None = None,
        date_format: str | None = None,
        encoding: str = "utf-8",
        keep_default_na: bool = True,
        test: Held = AUTO,
        validation: Held = AUTO,
    ) -> None:
        super().__init__(test=test, validation=validation)
        self.path, self.columns = path, None if columns is None else dict(columns)
        na_values = stated("data.na_values", na_values)
        text = TextForm(separator, decimal, thousands, na_values, date_format, encoding, keep_default_na)
        self._written(text)
        self.text: TextForm = form_in(path, text)
        self.name = Path(path).stem
        frame, forms = read_table(path, self.text)
        if date_format is not None and date_format not in forms.values():
            raise UserError(
                f"data.date_format: no column of '{path}' has dates of the form {date_format} in all of its cells. "
                "Compare it with the file, or leave it out."
            )
        self._take(frame, forms)

    @classmethod
    def of_frame(
        cls,
        frame: "pd.DataFrame",
        columns: Mapping[str, str] | None = None,
        test: Held = AUTO,
        validation: Held = AUTO,
    ) -> Self:
        r"""Of a data frame, whose index is left out; arguments as of the class."""
        found = cls.__new__(cls)
        Source.__init__(found, test=test, validation=validation)
        found.path, found.columns = IN_MEMORY, None if columns is None else dict(columns)
        found._written(TextForm())
        found.name = "table"
        found._take(frame, {})
        return found

    def _written(self, text: TextForm) -> None:
        self.text, self.separator, self.decimal, self.thousands = text, text.separator, text.decimal, text.thousands
        self.na_values, self.date_format = list(text.na_values) or None, text.date_format
        self.encoding, self.keep_default_na = text.encoding, text.keep_default_na

    def _take(self, frame: "pd.DataFrame", forms: Mapping[str, str]) -> None:
        self.schema = Schema.guess(frame, self.columns, forms, self.text)
        self.frame = frame
        self._x = self.schema.encode(frame)

    def load(self, train: bool) -> TableRows | None:
        return TableRows(self._x) if train else None

    def _elsewhere(self, key: Name, path: str) -> Dataset:
        r"""Rows of another file by the columns of this one, not by a guess of their own."""
        try:
            seed = derive_seed(Stream.ELSEWHERE, NAMES.index(key))  # draws of its own, so that equal rows differ
            return TableRows(self.schema.encode(read_table(path, self.text, f"data.{key}")[0], seed))
        except UserError as error:
            text = str(error).removeprefix("data: ")
            raise error if text.startswith(f"data.{key}") else UserError(f"data.{key}: '{path}': {text}") from error

    def identity(self) -> dict[str, Any]:
        text = self.text.plain()
        return {**super().identity(), "table": self.schema.plain()} | ({"text": text} if text else {})
