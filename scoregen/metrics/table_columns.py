r"""The columns of a table as arrays, for its metrics: numbers, and categories as texts.

Dates count as numbers, in days since 1970. Constant columns and those that a schema drops are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scoregen.tables.column import NUMBERS
from scoregen.tables.values import is_numeric, nanoseconds

if TYPE_CHECKING:
    import pandas as pd

_DAY = 86_400e9  # nanoseconds


@dataclass(frozen=True)
class TableColumn:
    r"""One column of a table.

    Args:
        kind: as in `scoregen.tables.Column`.
        values: (N,) float64, NaN where a number is missing; or texts, "" where a category is missing.
        present: (N,) bool, where there is a value.
    """

    kind: str
    values: np.ndarray
    present: np.ndarray

    @property
    def numeric(self) -> bool:
        r"""Whether its values are numbers."""
        return self.kind in NUMBERS

    @property
    def known(self) -> np.ndarray:
        r"""The values that are not missing."""
        found: np.ndarray = self.values[self.present]
        return found

    def codes(self) -> tuple[np.ndarray, np.ndarray]:
        r"""The distinct texts of a category, sorted, and each present row's place among them."""
        return np.unique(self.known, return_inverse=True)


def read_columns(table: "pd.DataFrame", kinds: Mapping[str, str], what: str = "table") -> dict[str, TableColumn]:
    r"""The columns that are measured, by name, in the order of `kinds`.

    Args:
        table: holds at least these columns; others are not measured.
        kinds: name -> kind, as of `scoregen.tables.Column`.
        what: the table, in messages.

    Raises:
        ValueError: a column is missing, all of its cells are empty, or a number is no number or infinite.
    """
    named = {str(name): name for name in table.columns}
    found = {}
    for name, kind in kinds.items():
        if kind in ("constant", "drop"):
            continue
        if str(name) not in named:
            raise ValueError(f"{what}: must have the column '{name}', got {sorted(named)[:10]}.")
        found[str(name)] = _column(table[named[str(name)]], kind, f"{what}: column '{name}'")
    return found


def _column(values: "pd.Series", kind: str, where: str) -> TableColumn:
    present = values.notna().to_numpy(dtype=bool)
    if not present.any():
        raise ValueError(f"{where} must have values, got {len(values)} empty cells.")
    if kind == "category":
        texts = np.array([_text(v) if here else "" for v, here in zip(values, present, strict=True)], dtype=np.str_)
        return TableColumn(kind, texts, present)
    if kind not in NUMBERS:
        raise ValueError(f"{where} has the unknown kind '{kind}'.")
    return TableColumn(kind, _numbers(values, kind, present, where), present)


def _numbers(values: "pd.Series", kind: str, present: np.ndarray, where: str) -> np.ndarray:
    if kind == "date":
        import pandas as pd

        try:
            moments = nanoseconds(pd.to_datetime(values, format="ISO8601"), where)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where} must hold dates: {error}") from error
        return np.where(present, moments / _DAY, np.nan)
    if not is_numeric(values):
        raise ValueError(f"{where} must hold numbers, got {values[present].iloc[0]!r}.")
    numbers = np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
    if np.isinf(numbers).any():
        raise ValueError(f"{where} must be finite, got {int(np.isinf(numbers).sum())} infinite values.")
    return numbers


def _text(value: Any) -> str:
    r"""A category as a text: 1, 1.0 and "1" are the same, as a file tells none of them from the others."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
