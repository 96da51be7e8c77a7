r"""Range checks of constructor arguments, in one wording: name, rule, value.

Each takes its values by name, `positive(sigma=0.5)`, and raises ValueError for the first one that breaks the rule.
"""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import NoReturn, SupportsIndex

from scoregen.errors import closest


def refuse(name: str, rule: str, value: object) -> NoReturn:
    r"""Raises the ValueError: "steps must be >= 1, got steps=0."."""
    raise ValueError(f"{name} must {rule}, got {name}={value!r}.")


def finite(**values: float) -> None:
    r"""Neither infinite nor NaN."""
    for name, value in values.items():
        if not math.isfinite(value):
            refuse(name, "be finite", value)


def positive(**values: float) -> None:
    r"""> 0 and finite."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            refuse(name, "be > 0 and finite", value)


def at_least(least: float, /, **values: float) -> None:
    r""">= `least` and finite."""
    for name, value in values.items():
        if not value >= least:
            refuse(name, f"be >= {least:g}", value)
        if value == math.inf:
            refuse(name, f"be >= {least:g} and finite", value)


def whole(least: int, /, **values: object) -> None:
    r"""A whole number >= `least`, which may be written as 5.0."""
    for name, value in values.items():
        number = float(value) if isinstance(value, float | SupportsIndex) else math.nan
        if not (number >= least and number.is_integer()) or isinstance(value, bool):
            refuse(name, f"be a whole number >= {least}", value)


def inside(low: float, high: float, ends: str = "[]", /, **values: float) -> None:
    r"""Between `low` and `high`; `ends` says which of them belong to it: "[]", "()", "[)" or "(]"."""
    for name, value in values.items():
        above = value >= low if ends[0] == "[" else value > low
        below = value <= high if ends[1] == "]" else value < high
        if not (above and below):
            refuse(name, f"lie in {ends[0]}{low:g}, {high:g}{ends[1]}", value)


def increasing(low: float, /, **values: float) -> None:
    r"""`low` < first < second < ... < infinity, as sigma_min and sigma_max of a process."""
    chain = [low, *values.values(), math.inf]
    if not all(a < b for a, b in pairwise(chain)):
        got = ", ".join(f"{name}={value}" for name, value in values.items())
        raise ValueError(f"{next(iter(values))} must satisfy {low:g} < {' < '.join(values)} < inf, got {got}.")


def one_of(choices: Iterable[str], /, **values: str) -> None:
    r"""One of the names in `choices`."""
    known = list(choices)
    for name, value in values.items():
        if value not in known:
            raise ValueError(f"{name} must be {either(known)}, got {name}={value!r}. {closest(value, known)}")


def either(choices: Iterable[object]) -> str:
    r""" "a, b or c"."""
    *most, last = [str(choice) for choice in choices]
    return f"{', '.join(most)} or {last}" if most else last
