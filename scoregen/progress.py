r"""Progress bars: on rank 0 only, and silent where standard error is not a terminal."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from scoregen.parallel import rank

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")


def progress(
    iterable: Iterable[T] | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    description: str = "",
    unit: str = "it",
) -> "tqdm[T]":
    r"""A tqdm bar over an iterable, or a bar to `update(n)` by hand.

    Args:
        iterable: what to iterate over, or None.
        total: number of units, for the ETA.
        initial: units done before (a resumed run).
        description: text before the bar.
        unit: what is counted.
    """
    from tqdm import tqdm

    silent = rank() != 0 or not sys.stderr.isatty()
    return tqdm(iterable, total=total, initial=initial, desc=description, unit=unit, disable=silent, dynamic_ncols=True)
