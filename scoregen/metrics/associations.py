r"""How the columns of a table depend on each other, in pairs.

    numbers i, j          Spearman's rho, the correlation of the ranks, in [-1, 1]
    categories i, j       Cramer's V = sqrt(chi^2 / (n (min(r, c) - 1))), in [0, 1]
    number, category      eta = sqrt(SS_between / SS_total) of the ranks: the correlation ratio, in [0, 1]

All three are unchanged by an increasing map of the numbers, so that heavy tails do not rule them. A rank is a value's
place among all present values of its column, ties shared; a pair uses the rows in which both are present. V and eta are
biased upward by about 1/sqrt(n): compare tables of the same number of rows. Where a column does not vary, 0.

Reference: Cramer (1946), section 21.9; Kruskal & Wallis (1952): H = (n - 1) eta^2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scoregen.metrics.table_columns import TableColumn

_FLAT = 1e-12  # share of a column's squares below which what is left of its variance is round-off


@dataclass(frozen=True)
class Associations:
    r"""The association matrix of a table.

    Args:
        names: names of the columns. values: (D, D), symmetric, 1 on the diagonal.
    """

    names: list[str]
    values: np.ndarray


def correlations(columns: Mapping[str, TableColumn]) -> Associations:
    r"""Pearson's correlation of the columns of numbers, each pair on the rows in which both are present."""
    names = [name for name, column in columns.items() if column.numeric]
    return Associations(names, _pearson(_stacked([columns[name].values for name in names])))


def associations(columns: Mapping[str, TableColumn]) -> Associations:
    r"""The association of all pairs of columns, as in the head of this file."""
    names = list(columns)
    found = np.eye(len(names))
    numbers = [i for i, name in enumerate(names) if columns[name].numeric]
    ranks = {i: _ranks(columns[names[i]].values) for i in numbers}
    found[np.ix_(numbers, numbers)] = _pearson(_stacked(list(ranks.values())))
    codes = {i: _codes(columns[name]) for i, name in enumerate(names) if not columns[name].numeric}
    for i, code in codes.items():
        for j in range(len(names)):
            if j in ranks:
                found[i, j] = found[j, i] = correlation_ratio(ranks[j], code)
            elif j > i:
                found[i, j] = found[j, i] = cramers_v(code, codes[j])
    return Associations(names, found)


def correlation_error(a: Associations, b: Associations) -> float:
    r"""The root mean square of the differences of two matrices off their diagonals."""
    difference = _pairs(a, b)
    return float(np.sqrt(np.mean(difference**2)))


def association_error(a: Associations, b: Associations) -> float:
    r"""The mean of the absolute differences of two matrices off their diagonals."""
    return float(np.mean(np.abs(_pairs(a, b))))


def _pairs(a: Associations, b: Associations) -> np.ndarray:
    if a.names != b.names or len(a.names) < 2:
        raise ValueError(f"two tables must have the same columns, at least 2 of them, got {a.names} and {b.names}.")
    above = np.triu_indices(len(a.names), 1)
    difference: np.ndarray = a.values[above] - b.values[above]
    return difference


def cramers_v(a: np.ndarray, b: np.ndarray) -> float:
    r"""Cramer's V of two categories, by codes >= 0 and -1 where missing; 0 where one of them does not vary."""
    both = (a >= 0) & (b >= 0)
    rows, columns = (np.unique(x[both], return_inverse=True) for x in (a, b))
    size = (len(rows[0]), len(columns[0]))
    if min(size) < 2:
        return 0.0
    table = np.bincount(rows[1] * size[1] + columns[1], minlength=size[0] * size[1]).reshape(size)
    n = table.sum()
    expected = table.sum(1)[:, None] * table.sum(0) / n
    chi_squared = float(((table - expected) ** 2 / expected).sum())
    return min(1.0, float(np.sqrt(chi_squared / (n * (min(size) - 1)))))


def correlation_ratio(values: np.ndarray, codes: np.ndarray) -> float:
    r"""The correlation ratio of numbers on a category, NaN and -1 where missing; 0 where nothing varies."""
    both = ~np.isnan(values) & (codes >= 0)
    x, code = values[both], codes[both]
    if not len(x):
        return 0.0
    x = x - x.mean()
    total = float((x**2).sum())
    count = np.bincount(code)
    sums = np.bincount(code, weights=x)
    between = float((sums[count > 0] ** 2 / count[count > 0]).sum())
    return float(np.sqrt(min(1.0, between / total))) if total > 0 else 0.0


def _codes(column: TableColumn) -> np.ndarray:
    codes = np.full(len(column.values), -1)
    codes[column.present] = column.codes()[1]
    return codes


def _ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    found: np.ndarray = rankdata(values, nan_policy="omit")
    return found


def _stacked(columns: list[np.ndarray]) -> np.ndarray:
    return np.stack(columns, 1) if columns else np.empty((0, 0))


def _pearson(x: np.ndarray) -> np.ndarray:
    r"""Correlations (D, D) of the columns of (N, D), each pair on the rows where neither is NaN."""
    if not x.size:
        return np.empty((0, 0))
    present = ~np.isnan(x)
    centred = np.where(present, x - np.nanmean(x, 0), 0.0)
    size = np.abs(centred).max(0)
    centred = centred / np.where(size > 0, size, 1.0)  # squares of 1e200 are infinite
    here = present.astype(np.float64)
    count = np.maximum(here.T @ here, 1)
    sums, squares = centred.T @ here, (centred**2).T @ here  # (i, j): of column i where j is present
    variance = squares - sums**2 / count
    covariance = centred.T @ centred - sums * sums.T / count
    scale = np.sqrt(np.maximum(variance * variance.T, 0))
    flat = variance <= _FLAT * squares + 1e-300
    flat = flat | flat.T
    found = np.where(flat, 0.0, covariance / np.where(flat, 1.0, scale)).clip(-1, 1)
    np.fill_diagonal(found, 1.0)
    return found
