r"""Lengths of power averages, and the combination of averages that is nearest to another one.

    p_g(tau; t) = (g + 1) tau^g / t^(g+1),   0 <= tau <= t        the profile of a power average at the time t
    length = sqrt((g + 1) / ((g + 2)^2 (g + 3)))                  its standard deviation, relative to t

The combination has sum 1, which keeps constant weights, and is nearest for weights that walk at random: least squares
of the tails

    P_g(tau; t) = 1 - (tau / t)^(g+1),   the share of an average that is younger than tau <= t

The paper fits the profiles themselves (equation 151), which makes 5 times the error at length .25 (docs/averages.md).

Reference: Karras et al. (2024), arXiv 2312.02696, section 3, equations 123 and 126; written from the paper.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from scoregen.errors import UserError, closest

LONGEST = 0.28  # of a length: that of uniform weights is sqrt(1/12) = .289


def length_of(weights: object) -> float | None:
    r"""The length of "ema:LENGTH"; None for "ema" and "model".

    Raises:
        UserError: another text, or a length out of range.
    """
    if weights in ("ema", "model"):
        return None
    name, colon, text = str(weights).partition(":")
    length = None
    with suppress(ValueError):
        length = float(text) if name == "ema" and colon else None
    if length is None or length != length:
        near = f" {advice}" if (advice := closest(str(weights), ["ema", "model"])).startswith("Did") else ""
        raise UserError(f"weights: must be ema, model or ema:LENGTH (ema:0.08), got {weights!r}.{near}")
    return check_length(length)


def check_length(length: object, name: str = "weights") -> float:
    r"""The length of an average, if there is a power average of it that snapshots can fit.

    Raises:
        UserError: there is none.
    """
    if isinstance(length, bool) or not isinstance(length, int | float):
        raise UserError(f"{name}: the length of an average must be a number, got {length!r}. Give {name}=0.08.")
    if not 0.01 <= length <= LONGEST:
        raise UserError(
            f"{name}: the length of an average must lie in .01..{LONGEST}, got {length:g}. It is the standard "
            "deviation of its profile as a share of the training; .05 to .15 are usual."
        )
    return float(length)


@cache
def exponent(length: float) -> float:
    r"""g of a length: the largest root of g^3 + 7 g^2 + (16 - length^-2) g + 12 - length^-2."""
    t = length**-2
    return float(np.roots([1.0, 7.0, 16.0 - t, 12.0 - t]).real.max())


def decay(length: float, batch: int, images: int) -> float:
    r"""The share that an average keeps in a step of `batch` images after `images` were seen, this batch included."""
    return float((1 - batch / images) ** (exponent(length) + 1))


def coefficients(times: Sequence[float], lengths: Sequence[float], time: float, length: float) -> tuple[Any, float]:
    r"""The combination of averages, with sum 1, that is nearest to another one for weights that walk at random.

    Args:
        times, lengths: of the averages, (n,). time, length: of the other one.

    Returns:
        Coefficients (n,), float64; and the root mean square distance of the two averages, relative to the spread of the
        last weights.
    """
    t = np.asarray(times, dtype=np.float64) / time
    g = np.asarray([exponent(one) for one in lengths])
    wanted = exponent(length)
    gram, target = _product(t[:, None], g[:, None], t[None], g[None]), _product(t, g, 1.0, wanted)
    # x = e_n + N z has sum 1 for every z
    free = np.vstack([np.eye(len(t) - 1), -np.ones((1, len(t) - 1))])
    matrix, right = free.T @ gram @ free, free.T @ (target - gram[:, -1])
    scale = 1 / np.sqrt(np.diag(matrix))
    z = scale * np.linalg.lstsq(matrix * np.outer(scale, scale), right * scale, rcond=1e-13)[0]
    x = free @ z
    x[-1] += 1
    square = x @ gram @ x - 2 * x @ target + _product(1.0, wanted, 1.0, wanted)
    return x, float(np.sqrt(max(square, 0.0)))


def _product(t: Any, g: Any, u: Any, h: Any) -> Any:
    r"""The integral of P_g(.; t) P_h(.; u), the covariance of two averages of a random walk."""
    m = np.minimum(t, u)
    first, second = (m / t) ** (g + 1), (m / u) ** (h + 1)
    return m * (1 - first / (g + 2) - second / (h + 2) + first * second / (g + h + 3))
