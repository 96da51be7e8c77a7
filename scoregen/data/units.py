r"""The units of data: a stated range of values, what lies outside of it, and data that hardly vary in it.

Floats carry no units: the same pictures may be in [0, 1], [-1, 1] or [0, 255]. So a range is stated, [0, 1] for images
unless `data.range` says otherwise, and a value outside of it is a mistake, wherever it is found.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from scoregen.errors import UserError
from scoregen.parallel import say_once

Range = tuple[float, float]
UNIT: Range = (0.0, 1.0)
USUAL: tuple[Range, ...] = (UNIT, (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
_ROUND_OFF = 1e-5  # of the range, by which a value may lie outside
_FLAT = 0.01  # of the range; data that fill less of it are told
_DARK = 8  # integers that stay below this part of their full scale are told


def as_range(given: Sequence[float] | None, usual: Range | None = UNIT) -> Range | None:
    r"""The range that `data.range` states, or the usual one.

    Raises:
        UserError: it is not a lower and a higher number; only the higher may be infinite.
    """
    if given is None:
        return usual
    numbers = isinstance(given, Sequence) and all(isinstance(x, int | float) for x in given)
    if (
        not numbers
        or len(given) != 2
        or not (math.isfinite(given[0]) and given[0] < given[1])
        or (math.isinf(given[1]) and given[0] != 0)
    ):
        raise UserError(
            f"data.range: must be the lowest and the highest value of the data, such as [0,255], got {given}. The "
            "highest may be inf (in a file .inf) where the lowest is 0."
        )
    return float(given[0]), float(given[1])


def check_units(x: Tensor, stated: Range, name: str) -> None:
    r"""Refuses floats that are not finite, or lie outside a range.

    Args:
        x: values, of any shape. stated: the range. name: of what holds them, for the message.

    Raises:
        UserError: with the share outside, and the likely range.
    """
    if not x.numel():
        return
    low, high = (float(end) for end in x.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        share = (~x.isfinite()).double().mean().item()
        raise UserError(
            f"data.path: {percent(share)} of the values of {name} are not finite. Replace them, or leave their samples "
            "out."
        )
    slack = _ROUND_OFF * (stated[1] - stated[0]) if math.isfinite(stated[1]) else 0.0
    if low < stated[0] - slack or high > stated[1] + slack:
        share = ((x < stated[0] - slack) | (x > stated[1] + slack)).double().mean().item()
        raise UserError(
            f"data.range: {percent(share)} of the values of {name} lie outside {_text(stated)}: they run from {low:g} "
            f"to {high:g}. {_guess(low, high, stated)}"
        )


def check_near(x: Tensor, stated: Range | None, name: str, owner: str, remedy: str) -> None:
    r"""Refuses values that a model can hardly have made: not finite, or further than half the range outside of it.

    Args:
        x: values, of any shape. stated: the range of the data; None allows all finite values.
        name: the key that gave them, and what holds them. owner: whose range it is. remedy: ends the message.

    Raises:
        UserError: with the values and the range.
    """
    low, high = (float(end) for end in x.aminmax())
    least, most = (-math.inf, math.inf) if stated is None else stated
    beside = (most - least) / 2 if math.isfinite(most - least) else 0.0
    if not (math.isfinite(low) and math.isfinite(high) and least - beside <= low and high <= most + beside):
        raise UserError(
            f"{name} run from {low:g} to {high:g}, and those of {owner} lie in [{least:g}, {most:g}]. {remedy}"
        )


def tell_flat(x: Tensor, stated: Range | None, name: str, full: int | None = None) -> None:
    r"""Says on standard error that data are constant, or fill hardly any of their range.

    Args:
        x: values in the units of the range. stated: the range. name: of what holds them, for the message.
        full: the integer that the top of the range stands for; None of floats.
    """
    low, high = (float(end) for end in x.aminmax())
    if low == high:
        say_once(f"data: all values of {name} are {low:g}. Is this the right file?")
    elif stated is not None and full is not None:
        _tell_integers(low, high, stated, name, full)
    elif stated is not None and math.isfinite(stated[1]) and high - low < _FLAT * (stated[1] - stated[0]):
        say_once(
            f"data: {name} hardly vary: their values run from {low:g} to {high:g}, {percent(high - low, stated)} of "
            f"the range {_text(stated)}. {_guess(low, high, stated)}"
        )


def _tell_integers(low: float, high: float, stated: Range, name: str, full: int) -> None:
    r"""Says that integers use little of their full scale, or that a range has no end to map it to."""
    ends = stated if math.isfinite(stated[1]) else UNIT
    if ends is not stated:
        say_once(f"data.range: {_text(stated)} has no end, so {full}, the full scale of the integers of {name}, is 1.")
    least, most = (round((end - ends[0]) / (ends[1] - ends[0]) * full) for end in (low, high))
    if _DARK * most < full:
        likely = next(top for top in (1, 255, 1023, 4095, 16383) if top >= most) if full > 255 else most
        say_once(
            f"data: the integers of {name} run from {least} to {most}, and {full} is taken for their full scale. If "
            f"that is {likely}, store them as floats and give data.range=[0,{likely}]."
        )


def percent(part: float, stated: Range = UNIT) -> str:
    r"""A share in percent, with two digits; never 0 % or 100 % of what is not."""
    share = 100 * part / (stated[1] - stated[0])
    return f"{share:.2g} %" if share < 99.5 else f"{math.floor(10 * share) / 10:g} %"


def _guess(low: float, high: float, stated: Range) -> str:
    likely = next((one for one in USUAL if one[0] <= low and high <= one[1] and one != stated), None)
    if likely is None:
        return f"Give data.range=[LOWEST,HIGHEST] of what these values can be, here at least [{low:g},{high:g}]."
    return f"Is it {_text(likely)}? Give data.range=[{likely[0]:g},{likely[1]:g}]."


def _text(one: Range) -> str:
    return f"[{one[0]:g}, {one[1]:g}]"


def in_range(fraction: Tensor, stated: Range) -> Tensor:
    r"""Fractions of full scale in the units of a range; in [0, 1] where it has no end."""
    if stated == UNIT:
        return fraction
    low, high = stated if math.isfinite(stated[1]) else UNIT
    return fraction if (low, high) == UNIT else fraction * (high - low) + low
