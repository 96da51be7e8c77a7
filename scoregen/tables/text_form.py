r"""How a text file writes the cells of a table: what stands between them, in numbers and dates, and for no value."""

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from scoregen.errors import UserError

_GROUPS = (None, ",", ".", " ", "'", "_", "\u202f", "\u00a0", "\u2019")
_WORDS: tuple[str, ...] = (
    "NA",
    "N/A",
    "n/a",
    "NaN",
    "nan",
    "-NaN",
    "-nan",
    "NULL",
    "null",
    "None",
    "<NA>",
    "#N/A",
    "#N/A N/A",
    "#NA",
)
_WORDS += ("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN")  # those of pandas


@dataclass(frozen=True)
class TextForm:
    r"""The form of a text file; names and meanings are those of `pandas.read_csv`.

    Args:
        separator: between cells (`sep`). decimal: point of numbers, "." or ",".
        thousands: between groups of three digits, None for no groups.
        na_values: texts that mean "no value", besides empty cells, NA and the other ones of pandas.
        date_format: of dates that are not written as 2024-01-31, by strftime: "%d.%m.%Y". None: there are none.
        encoding: of the file: "utf-8", "latin-1", "cp1252", "utf-16" or another one of Python; "utf-8-sig" has a mark.
        keep_default_na: whether NA, None and the other words of pandas mean "no value".
        newline: end of a line. quoted: columns whose cells always stand in quotation marks. quoted_names: whether
            their names do. These three are seen in a file (`scoregen.tables.cells.form_in`).

    Raises:
        UserError: a value that means nothing, or two that are one.
    """

    separator: str = ","
    decimal: str = "."
    thousands: str | None = None
    na_values: tuple[str, ...] = ()
    date_format: str | None = None
    encoding: str = "utf-8"
    keep_default_na: bool = True
    newline: str = "\n"
    quoted: tuple[str, ...] = ()
    quoted_names: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "na_values", tuple(map(str, self.na_values)))
        object.__setattr__(self, "quoted", tuple(map(str, self.quoted)))
        if self.decimal not in (".", ","):
            raise UserError(f"data.decimal: must be '.' or ',', got {self.decimal!r}.")
        if len(self.separator) != 1 or self.separator in '"\r\n':
            raise UserError(f"data.separator: must be one character, got {self.separator!r}. Give ',' or ';' or '\\t'.")
        if self.thousands not in _GROUPS or self.thousands == self.decimal:
            choices = ", ".join(repr(one) for one in _GROUPS[1:5] if one != self.decimal)
            raise UserError(
                f"data.thousands: must be null or one of {choices}, and not the decimal point, got {self.thousands!r} "
                f"with data.decimal={self.decimal!r}."
            )
        if self.date_format is not None and "%d" not in self.date_format and "%j" not in self.date_format:
            raise UserError(
                f"data.date_format: must be a pattern of strftime with a day, as %d.%m.%Y, got {self.date_format!r}."
            )
        if not _is_encoding(self.encoding):
            raise UserError(
                f"data.encoding: there is no encoding {self.encoding!r}. Usual ones are utf-8, latin-1, cp1252 (of "
                "Windows) and utf-16."
            )

    @classmethod
    def of(cls, node: Any) -> "TextForm":
        r"""From `plain`.

        Raises:
            UserError: what a configuration holds is no form.
        """
        try:
            return cls(**(node or {}))
        except (TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"checkpoint: 'dataset.text' of its configuration is no form of a file: {error}") from error

    def plain(self) -> dict[str, Any]:
        r"""As plain data, without what is usual."""
        usual = asdict(TextForm())
        found = {key: value for key, value in asdict(self).items() if value != usual[key]}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}

    @property
    def usual(self) -> bool:
        r"""Whether numbers are written with a point and without groups."""
        return self.decimal == "." and self.thousands is None

    @cached_property
    def missing(self) -> frozenset[str]:
        r"""The texts that mean "no value"; a number among `na_values` in every way of writing it, -999 and -999.0."""
        found = {"", *self.na_values, *(_WORDS if self.keep_default_na else ())}
        for text in self.na_values:
            if re.fullmatch(r"[+-]?\d+(\.0*)?", text):
                found |= {text.partition(".")[0], f"{text.partition('.')[0]}.0"}
        return frozenset(found)

    def numbers(self, texts: Any) -> "tuple[Any, bool] | None":
        r"""Numbers as texts with a decimal point and without groups, and whether there were groups; None for others.

        Args:
            texts: series of pandas.
        """
        if self.usual:
            return texts, False
        point = re.escape(self.decimal)
        group = None if self.thousands is None else re.escape(self.thousands)
        whole = r"\d+" if group is None else rf"(?:\d{{1,3}}(?:{group}\d{{3}})+|\d+)"
        pattern = rf"[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?"
        if not texts.dropna().str.fullmatch(pattern).all():
            return None
        grouped = group is not None and bool(texts.str.contains(group, na=False).any())
        plain = texts.str.replace(self.thousands, "", regex=False) if grouped else texts
        return plain.str.replace(self.decimal, ".", regex=False), grouped

    def written(self, number: str, grouped: bool) -> str:
        r"""A number that was written with a decimal point, in this form."""
        if number in ("nan", "<NA>"):
            return ""
        whole, point, rest = number.partition(".")
        if grouped and self.thousands is not None and "e" not in number:
            sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
            whole = sign + f"{int(digits):,}".replace(",", self.thousands)
        return whole + point.replace(".", self.decimal) + rest


def _is_encoding(name: object) -> bool:
    try:
        return isinstance(name, str) and isinstance("".encode(name), bytes)
    except (LookupError, UnicodeError):
        return False


def is_utf_8(encoding: str) -> bool:
    r"""Whether an encoding is UTF-8, with or without the mark at the beginning of a file."""
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def stated(key: str, na_values: str | Sequence[str] | None) -> tuple[str, ...]:
    r"""One text or several as a tuple."""
    found = (na_values,) if isinstance(na_values, str | int | float) else tuple(na_values or ())
    if isinstance(na_values, Mapping) or not all(isinstance(one, str | int | float) for one in found):
        raise UserError(f'{key}: must be texts, got {na_values!r}. Give {key}=\'["-", "?"]\'.')
    return tuple(map(str, found))
