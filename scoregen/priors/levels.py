r"""The noise ratios that a prior looks at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scoregen import checks


@dataclass(frozen=True)
class Annealed:
    r"""Noise ratios from high to low in equal steps of log s: `ScorePrior.at` picks one of them.

    Args:
        high, low: 0 < low <= high. Start at about the error of the first x, or at sigma_data from far away.

    Raises:
        ValueError: values out of range.
    """

    high: float
    low: float

    def __post_init__(self) -> None:
        checks.positive(low=self.low, high=self.high)
        checks.at_least(self.low, high=self.high)

    def at(self, step: int, steps: int) -> float:
        r"""The ratio of one of `steps` steps, counted from 0."""
        share = step / max(1, steps - 1)
        return math.exp((1 - share) * math.log(self.high) + share * math.log(self.low))


def ratios(levels: float | Sequence[float] | Annealed) -> list[float]:
    r"""The noise ratios of levels that are no law; of annealed ones both ends.

    Raises:
        ValueError: none, or one that is not > 0.
    """
    if isinstance(levels, Annealed):
        return [levels.high, levels.low]
    found = [float(s) for s in levels] if isinstance(levels, Sequence) else [float(levels)]
    if not found:
        raise ValueError("levels must name a noise ratio, got an empty list.")
    checks.positive(**{f"levels[{k}]": s for k, s in enumerate(found)})
    return found
