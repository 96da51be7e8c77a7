r"""Dates that are texts: read as 2024-01-31 12:30 or by a pattern of strftime, and written in the same form."""

import re
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SEVERAL = "%z"  # of a pattern whose moments have several zones
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:([T ])\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")


def iso_dates(library: ModuleType, texts: "pd.Series") -> "tuple[pd.Series, str] | None":
    r"""Texts as dates, and the pattern in which they are written; None where some are no dates of ISO 8601.

    A pattern ends with the zone, as +01:00 or Z; with %z where there are several, whose moments become UTC.
    """
    known = texts.dropna()
    if not known.map(lambda text: isinstance(text, str) and _DATE.fullmatch(text) is not None).all():
        return None
    first = _DATE.fullmatch(known.iloc[0])
    assert first is not None
    between, seconds, fraction, zone = first.groups()
    pattern = "%Y-%m-%d" + ("" if between is None else f"{between}%H:%M")
    pattern += ("" if seconds is None else ":%S") + ("" if fraction is None else ".%f")
    zones = set(known.str.extract(_DATE)[3]) if zone is not None else set()
    pattern += "" if zone is None else zone if len(zones) == 1 else SEVERAL
    try:
        found = library.to_datetime(texts, format="ISO8601", utc=zone is not None)
    except ValueError:  # no such day, or zones in some cells alone
        return None
    return found, pattern


def dates_by(library: ModuleType, texts: "pd.Series", form: str | None) -> "pd.Series | None":
    r"""Texts as dates of ISO 8601, or else by a pattern; None where some are neither.

    Dates without a zone are of that of the pattern.
    """
    if texts.notna().any() and (found := iso_dates(library, texts)) is not None:
        dates, own = found
        zone = _zone(form or "")
        return dates if zone is None or _zone(own) is not None else (dates - zone).dt.tz_localize("UTC")
    if form is None or "%" not in form:
        return None
    try:
        by_pattern: pd.Series = library.to_datetime(texts, format=form)
    except (ValueError, TypeError):
        return None
    return by_pattern


def _zone(pattern: str) -> "pd.Timedelta | None":
    r"""What the zone at the end of a pattern is ahead of UTC; None where it has none."""
    import pandas as pd

    found = re.search(r"(?:Z|%z|([+-])(\d{2}):?(\d{2}))$", pattern)
    if found is None:
        return None
    sign, hours, minutes = found.groups()
    ahead = pd.Timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    return -ahead if sign == "-" else ahead


def stamped(values: "pd.Series", form: str) -> "pd.Series":
    r"""Dates as texts."""
    zone = _zone(form)
    found: Any = (values if zone is None else values + zone).dt.strftime(form.removesuffix(SEVERAL))
    return found + "Z" if form.endswith(SEVERAL) else found
