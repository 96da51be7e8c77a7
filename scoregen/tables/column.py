r"""One column of a table: its kind, and what is needed to give values back as the user has them.

| kind | values | coordinates of a row's vector |
|---|---|---|
| real | finite numbers | the number, from an origin |
| positive | numbers > 0 | the number |
| zero_positive | numbers >= 0, some of them exactly 0 | the number, and a one-hot of two: "is 0", "is not" |
| integer | whole numbers | the number from an origin, plus a uniform draw in [-1/2, 1/2) |
| category | texts, numbers or flags without an order | a one-hot |
| date | dates or times | days from the first one |
| constant | one value | none: it is kept aside and given back |
| drop | anything | none: the column is left out |
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from scoregen.checks import one_of

KINDS = ("real", "positive", "zero_positive", "integer", "category", "date", "constant", "drop")
NUMBERS = ("real", "positive", "zero_positive", "integer", "date")  # the kinds that have a number
LOGARITHMIC = ("positive", "zero_positive")  # the kinds whose numbers are modelled by their logarithms

Value = str | int | float | bool


@dataclass(frozen=True)
class Column:
    r"""A column of a table.

    Args:
        name: of the column, as the user has it.
        kind: one of `KINDS`.
        dtype: type of its values in a data frame, by pandas' name.
        categories: of a category: its values, in order; of a constant: its value.
        decimals: digits after the point of all numbers; None where there is no such number.
        form: how values are written in a text file: "fixed" for numbers with all their decimals, "grouped" for those
            with separators of thousands, "fixed grouped" for both, a pattern of strftime for dates; of a category in a
            frame "ordered". None: as usual.
        origin: what is subtracted from numbers first; of dates: nanoseconds since 1970.
        step: of dates: nanoseconds between the moments that occur, to which samples are rounded.
        low: of an integer: the least value that a sample may have, 0 where no value is negative.
        missing: number of cells without a value.

    Raises:
        ValueError: an unknown kind.
    """

    name: str | int
    kind: str
    dtype: str
    categories: tuple[Value, ...] = ()
    decimals: int | None = None
    form: str | None = None
    origin: int | float = 0
    step: int = 1
    low: int | None = None
    missing: int = 0

    def __post_init__(self) -> None:
        one_of(KINDS, kind=self.kind)

    @property
    def has_number(self) -> bool:
        r"""Whether one coordinate of a row is its number."""
        return self.kind in NUMBERS

    @property
    def is_text_date(self) -> bool:
        r"""Whether its values are dates that a data frame holds as texts."""
        return self.kind == "date" and not ("datetime64" in self.dtype or "timestamp" in self.dtype)

    @property
    def logarithmic(self) -> bool:
        r"""Whether its numbers are positive, and modelled by their logarithms."""
        return self.kind in LOGARITHMIC

    @property
    def sizes(self) -> int:
        r"""Length of its one-hot, 0 where it has none."""
        return {"category": len(self.categories), "zero_positive": 2}.get(self.kind, 0)

    def plain(self) -> dict[str, Any]:
        r"""As plain data, for a configuration; what is as usual is left out."""
        usual = {part.name: part.default for part in fields(self)}
        found = {name: value for name, value in asdict(self).items() if value != usual[name]}
        return found | ({"categories": list(self.categories)} if self.categories else {})

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> "Column":
        r"""From `plain`."""
        return cls(**{**node, "categories": tuple(node.get("categories", ()))})

    def told(self) -> str:
        r"""In words: "species: category, 3 values"."""
        what = self.kind.replace("_", "-")
        if self.kind == "category":
            what += f", {len(self.categories):,} values"
        elif self.kind == "constant":
            what += f", {self.categories[0]!r}"
        elif self.decimals is not None and self.kind in ("real", *LOGARITHMIC):
            what += f", {self.decimals} decimals"
        return f"{self.name}: {what}" + (f", {self.missing:,} missing" if self.missing else "")
