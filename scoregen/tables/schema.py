r"""A table: its columns in order, and rows as vectors and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scoregen.errors import UserError, closest
from scoregen.tables.column import Column, Value
from scoregen.tables.dates import dates_by, stamped
from scoregen.tables.encoding import Layout, decode_column, encode_column, one_hots, typed_values
from scoregen.tables.guess import guess_column
from scoregen.tables.text_form import TextForm

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Schema:
    r"""The columns of a table.

    Args:
        columns: in the order of the table. text: how a text file of it writes cells.
    """

    columns: tuple[Column, ...]
    text: TextForm = field(default_factory=TextForm)

    @classmethod
    def guess(
        cls,
        frame: "pd.DataFrame",
        overrides: Mapping[str, str] | None = None,
        forms: Mapping[str, str] | None = None,
        text: TextForm | None = None,
    ) -> "Schema":
        r"""The schema of a data frame; its index is left out.

        Args:
            frame: with a name of its own for each column.
            overrides: kinds by names of columns, for those that are not to be guessed.
            forms: how columns are written in a file, as `read_table` gives it. text: how its cells are.

        Raises:
            UserError: no rows, names that occur twice, an override of no column, values that a kind cannot have.
        """
        check_names(list(frame.columns))
        if len(frame) < 2:
            raise UserError(f"data: a table must have at least 2 rows, got {len(frame)}. Add some.")
        wanted = {str(name): kind for name, kind in (overrides or {}).items()}
        names = [str(name) for name in frame.columns]
        for name in wanted:
            if name not in names:
                raise UserError(f"data.columns.{name}: the table has no such column. {closest(name, names)}")
        forms = forms or {}
        found = tuple(
            guess_column(frame[column], wanted.get(name), forms.get(name))
            for column, name in zip(frame.columns, names, strict=True)
        )
        schema = cls(found, text or TextForm())
        if not schema.layout.width:
            raise UserError("data: no column of the table varies, so there is nothing to learn. Add rows or columns.")
        return schema

    @cached_property
    def layout(self) -> Layout:
        r"""Which coordinates of a row's vector stand for what."""
        return Layout.of(self.columns)

    @cached_property
    def kept(self) -> tuple[Column, ...]:
        r"""The columns that samples have: all but those that are dropped."""
        return tuple(column for column in self.columns if column.kind != "drop")

    @property
    def all_numeric(self) -> bool:
        r"""Whether rows have a density: no column has a one-hot."""
        return not self.layout.sizes

    def column(self, name: str, where: str = "columns") -> Column:
        r"""A column by its name.

        Raises:
            UserError: there is no such column; `where` is the key that names it.
        """
        for column in self.kept:
            if str(column.name) == str(name):
                return column
        known = [str(column.name) for column in self.kept]
        raise UserError(f"{where}.{name}: the table has no such column. {closest(str(name), known)}")

    def encode(self, frame: "pd.DataFrame", seed: int | None = 0) -> Tensor:
        r"""Rows as vectors (N, D), float32; nan where a value is missing.

        Args:
            frame: has the columns that are modelled; others are ignored.
            seed: of the draws that make whole numbers continuous, and of the numbers where a zero-inflated column is
                0; 0: of the rows of a training, whose draws no other rows should have. None: whole numbers as they
                are, and nan there.

        Raises:
            UserError: a column is missing, or has values that it cannot have.
        """
        check_names(list(frame.columns))
        named = {str(name): name for name in frame.columns}
        numbers, hots = [], []
        for k, column in enumerate(self.columns):
            if not (column.has_number or column.sizes):
                continue
            if str(column.name) not in named:
                raise UserError(
                    f"data: the table must have the column '{column.name}'. {closest(str(column.name), named)}"
                )
            draws = None if seed is None else np.random.default_rng((seed, k))
            number, codes = encode_column(frame[named[str(column.name)]], column, draws)
            if number is not None:
                numbers.append(torch.from_numpy(np.ascontiguousarray(number)).float())
            if codes is not None:
                hots.append(one_hots(codes, column.sizes))
        return torch.cat([torch.stack(numbers, 1) if numbers else torch.empty(len(frame), 0), *hots], 1)

    def decode(self, x: Tensor) -> "pd.DataFrame":
        r"""Rows (N, D) as a data frame with the columns, types and decimals of the user's."""
        import pandas as pd

        values, places = x.detach().cpu().double().numpy(), self.layout.places(self.columns)
        found = []
        for column in self.kept:
            number, hot = places[str(column.name)]
            found.append(
                decode_column(
                    column,
                    None if number is None else values[:, number],
                    None if hot is None else values[:, hot],
                    len(values),
                )
            )
        return pd.concat(found, axis=1) if found else pd.DataFrame(index=range(len(values)))

    def known_row(self, given: Mapping[str, Value], where: str = "condition") -> "tuple[Tensor, pd.DataFrame]":
        r"""The vector (1, D) of some values of a row, nan elsewhere; and these values as a frame of one row.

        Raises:
            UserError: an unknown column, or a value that the column cannot have.
        """
        import pandas as pd

        if not isinstance(given, Mapping):
            raise UserError(f"{where}: must be values of columns, {{species: cat, dose: 2.5}}, got {given!r:.60}.")
        columns = {str(name): self.column(str(name), where) for name in given}
        data = {}
        for name, column in columns.items():
            value = given[name]
            if pd.api.types.is_scalar(value) and pd.isna(value):
                raise UserError(f"{where}.{name}: must be a value, got {value}. Leave the column out.")
            data[column.name] = self._series(column, value, f"{where}.{name}")
        frame = pd.DataFrame(data)
        whole = {
            column.name: frame[column.name] if column.name in data else _empty(column)
            for column in self.columns
            if column.kind != "drop"
        }
        try:
            return self.encode(pd.DataFrame(whole), seed=None), frame
        except UserError as error:
            raise UserError(f"{where}.{error}") from error

    def _series(self, column: Column, value: Any, key: str) -> "pd.Series":
        r"""One value of a column, with its type."""
        import pandas as pd

        if column.kind == "constant":
            if str(value) != str(column.categories[0]):
                raise UserError(f"{key}: is {column.categories[0]!r} in all rows of the table, got {value!r}.")
            return typed_values([column.categories[0]], column)
        if column.kind == "category":
            return pd.Series([_category_of(column, value, key)], dtype=object)
        try:
            if column.kind == "integer" and not float(value).is_integer():
                raise UserError(f"{key}: must be a whole number, got {value!r}.")
            if column.has_number and column.kind != "date":
                return pd.Series([value if isinstance(value, int) else float(value)])
            if not isinstance(value, str | date | np.datetime64):
                raise UserError(f"{key}: must be a date as 2024-01-31 or 2024-01-31 12:30, got {value!r}.")
            if isinstance(value, str):
                dates = dates_by(pd, pd.Series([value]), column.form)
                if dates is None:
                    raise UserError(f"{key}: must be a date as 2024-01-31 or 2024-01-31 12:30, got {value!r}.")
                value = dates.iloc[0]
            if column.is_text_date:
                return stamped(pd.Series([pd.Timestamp(value)]), column.form or "%Y-%m-%d")
            return pd.Series([value], dtype=column.dtype)
        except (ValueError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            zones = "without a time zone" if "," not in column.dtype else "with a time zone"
            remedy = f" The table has dates {zones}." if column.kind == "date" else ""
            raise UserError(f"{key}: must be a value of a {column.kind} column, got {value!r}.{remedy}") from error

    def plain(self) -> list[dict[str, Any]]:
        r"""As plain data, for a configuration."""
        return [column.plain() for column in self.columns]

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, Any]], text: Mapping[str, Any] | None = None) -> "Schema":
        r"""From `plain`, and from that of its text form.

        Raises:
            UserError: what a configuration holds is no schema.
        """
        try:
            return cls(tuple(Column.of(node) for node in nodes), TextForm.of(text))
        except (TypeError, ValueError) as error:
            raise UserError(f"checkpoint: 'dataset.table' of its configuration is no table: {error}") from error

    def told(self) -> list[str]:
        r"""The columns in words, a line each."""
        return [f"  {column.told()}" for column in self.columns]


def _category_of(column: Column, value: Any, key: str) -> Value:
    r"""The category that a value means: itself, or the one that is written alike."""
    for known in column.categories:
        if type(known) is type(value) and known == value:
            return known
    alike = [known for known in column.categories if str(known) == str(value) or _equal(known, value)]
    if len(alike) == 1:
        return alike[0]
    names = [str(known) for known in column.categories[:50]]
    raise UserError(f"{key}: the column has no category {value!r}. {closest(str(value), names)}")


def _equal(known: Value, value: Any) -> bool:
    flags = isinstance(known, bool) or isinstance(value, bool)
    return not flags and not isinstance(known, str) and known == value


def _empty(column: Column) -> "pd.Series":
    import pandas as pd

    return pd.Series([None], dtype=column.dtype if column.kind == "date" else "float64")


def check_names(names: Sequence[object]) -> None:
    r"""Refuses names of columns that are no texts or whole numbers, are empty, or occur twice.

    Raises:
        UserError: it names them.
    """
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            raise UserError(
                f"data: names of columns must be texts or whole numbers, got {name!r}. Name each column; "
                "an index that pandas wrote is left out by to_csv(FILE, index=False)."
            )
        if str(name) in seen:
            raise UserError(f"data: the table has two columns '{name}'. Each needs a name of its own: rename one.")
        seen.add(str(name))
