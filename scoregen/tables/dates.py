r"""Dates that are texts: read as 2024-01-31 12:30 or by a pattern of strftime, and written in the same form."""

import re
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:([T ])\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")


def iso_dates(library: ModuleType, texts: "pd.Series") -> "tuple[pd.Series, str] | None":
    r"""Texts as dates, and the pattern in which they are written; None where some are no dates of ISO 8601.

    Moments of several zones become UTC.
    """
    known = texts.dropna()
    if not known.map(lambda text: isinstance(text, str) and _DATE.fullmatch(text) is not None).all():
        return None
    first = _DATE.fullmatch(known.iloc[0])
    assert first is not None
    between, seconds, fraction, zone = first.groups()
    pattern = "%Y-%m-%d" + ("" if between is None else f"{between}%H:%M")
    pattern += ("" if seconds is None else ":%S") + ("" if fraction is None else ".%f") + ("" if zone is None else "%z")
    try:
        found = library.to_datetime(texts, format="ISO8601", utc=zone is not None)
    except ValueError:  # no such day, or zones in some cells alone
        return None
    return found, pattern


def dates_by(library: ModuleType, texts: "pd.Series", form: str | None) -> "pd.Series | None":
    r"""Texts as dates of ISO 8601, or else by a pattern; None where some are neither."""
    if texts.notna().any() and (found := iso_dates(library, texts)) is not None:
        return found[0]
    if form is None or "%" not in form:
        return None
    try:
        by_pattern: pd.Series = library.to_datetime(texts, format=form)
    except (ValueError, TypeError):
        return None
    return by_pattern


def stamped(values: "pd.Series", form: str) -> "pd.Series":
    r"""Dates as texts."""
    found: Any = values.dt.strftime(form.replace("%z", ""))
    return found + "Z" if form.endswith("%z") else found
