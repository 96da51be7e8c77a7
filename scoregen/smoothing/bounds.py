r"""Confidence bounds for a binomial probability, and a guarantee for several certificates together.

A count A ~ Bin(n, p) gives, with probability at least 1 - alpha, the one-sided Clopper-Pearson bounds

    p >= L(A) = I^{-1}_alpha(A, n - A + 1),        p <= U(A) = I^{-1}_{1 - alpha}(A + 1, n - A),

with I the regularised incomplete beta function. L(A) > q is the same event as P(Bin(n, q) >= A) < alpha.
All functions are exact (no normal approximation) and take arrays.

Reference: Clopper, Pearson (1934), Biometrika 26; Cohen, Rosenfeld, Kolter (2019), arXiv 1902.02918, section 3.2.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from scoregen.checks import inside

DECIMALS = 6  # of a radius at least; of a small one, as many significant digits
LEAST = 1e-30  # alpha; below, the inverse of the beta function is no longer exact
MOST = 10**12  # draws; beyond, the bound of a double moves by less than its rounding


def round_down(value: float, decimals: int | None = None) -> float:
    r"""Rounds down to a number of decimal places, so that no printed radius exceeds the proved one.

    Args:
        value: any number.
        decimals: places; None: 6, or as many as give 6 significant digits (data may have small units).
    """
    if not math.isfinite(value):
        return value
    if decimals is None:
        decimals = DECIMALS if abs(value) < 1e-200 else max(DECIMALS, DECIMALS - 1 - math.floor(math.log10(abs(value))))
    scale: int = 10**decimals
    scaled = math.floor(value * scale) / scale
    return scaled if scaled <= value else (math.floor(value * scale) - 1) / scale


def safe(length: float, least: int = 3) -> float:
    r"""A length in few digits, three at least that count, never a larger one."""
    return round_down(length, max(least, 2 - math.floor(math.log10(length)))) if length > 0 else 0.0


def percent(share: float, up: bool = False) -> str:
    r"""A share as percent with one decimal place, rounded down, or up where the smaller number would flatter."""
    hundredfold = round(100 * share, 9)  # .29 is 29.0 %, despite rounding
    return f"{abs(round_down(-hundredfold, 1)) if up else round_down(hundredfold, 1):.1f}"


def significant(value: float) -> float:
    r"""A number with nine significant digits, whatever its units."""
    return float(f"{value:.9g}")


def check_alpha(alpha: float) -> float:
    r"""Returns alpha, a failure probability in [1e-30, 1/2).

    Raises:
        ValueError: it is outside.
    """
    inside(LEAST, 0.5, "[)", alpha=alpha)
    return float(alpha)


def lower_bound(count: ArrayLike, n: ArrayLike, alpha: float) -> np.ndarray:
    r"""A lower bound L of a probability p: P(L > p) <= alpha for every p.

    Args:
        count: successes A, 0 <= A <= n.
        n: draws.
        alpha: failure probability of this one bound.

    Returns:
        L, in [0, 1); 0 where the count is 0.
    """
    from scipy.special import betaincinv

    count, n = np.asarray(count), np.asarray(n)
    return np.where(count > 0, betaincinv(np.maximum(count, 1), n - count + 1, alpha), 0.0)


def upper_bound(count: ArrayLike, n: ArrayLike, alpha: float) -> np.ndarray:
    r"""An upper bound U of a probability p: P(U < p) <= alpha for every p; arguments as `lower_bound`."""
    from scipy.special import betainccinv

    count, n = np.asarray(count), np.asarray(n)
    return np.where(count < n, betainccinv(count + 1, np.maximum(n - count, 1), alpha), 1.0)


def smallest_count(n: int, alpha: float, p: float) -> int:
    r"""The smallest count A of n draws with lower_bound(A, n, alpha) > p; n + 1 if no count has it.

    Bisection on the bound, which grows with the count.
    """
    low, high = 0, n + 1
    while low < high:
        middle = (low + high) // 2
        if middle <= n and lower_bound(middle, n, alpha) <= p:
            low = middle + 1
        else:
            high = middle
    return low


def smallest_n(alpha: float, p: float) -> int:
    r"""The smallest n whose all-successes bound alpha^(1/n) exceeds p: fewer draws cannot certify p at all.

    Raises:
        ValueError: it would take more than 10^12 draws.
    """
    if alpha ** (1.0 / MOST) <= p:
        raise ValueError(f"{MOST:.0e} draws do not prove a probability above {p:.15g}. Choose a smaller radius.")
    low, high = 0, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if alpha ** (1.0 / middle) > p else (middle, high)
    return high


def two_sided_p_value(count: int, n: int) -> float:
    r"""The p-value of the two-sided binomial test of p = 1/2."""
    from scipy.special import betainc

    more = max(count, n - count)
    return min(1.0, 2.0 * float(betainc(more, n - more + 1, 0.5))) if n > 0 else 1.0


def high_probability_accuracy(correct: int, m: int, alpha: float, rho: float = 1e-3) -> float:
    r"""A lower bound of the true certified accuracy, right with probability 1 - rho at all radii at once.

    The m certificates are drawn independently and each is false with probability at most alpha. So with probability 1 -
    rho at most q of them are false, q the 1 - rho quantile of Bin(m, alpha), and which are false does not depend on the
    radius of the question.

    Args:
        correct: number of the m inputs that are certified at a radius with the right label.
        m: inputs, abstentions included.
        alpha: failure probability of one certificate.
        rho: failure probability of the statement.

    Reference: Cohen, Rosenfeld, Kolter (2019), arXiv 1902.02918, appendix on the high-probability guarantee, which has
    an approximation by Bernstein's inequality.
    """
    return max(0, correct - most_false(m, alpha, rho)) / m


def most_false(m: int, alpha: float, rho: float) -> int:
    r"""The smallest q with P(Bin(m, alpha) > q) <= rho."""
    low, high = 0, m
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _exceeds(middle, m, alpha) <= rho else (middle + 1, high)
    return low


def _exceeds(q: int, m: int, alpha: float) -> float:
    r"""P(Bin(m, alpha) > q)."""
    from scipy.special import betainc

    return float(betainc(q + 1, m - q, alpha)) if q < m else 0.0
