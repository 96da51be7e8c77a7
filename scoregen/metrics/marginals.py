r"""Distances between the columns of two tables, one column at a time.

W1(a, b) = int |F_a(x) - F_b(x)| dx           numbers, in standard deviations of the reference column
TV(p, q) = 1/2 sum_k |p_k - q_k|              categories
"""

import math
from collections.abc import Mapping

import numpy as np

from scoregen.metrics.table_columns import TableColumn

Columns = Mapping[str, TableColumn]


def wasserstein(generated: Columns, reference: Columns) -> dict[str, float]:
    r"""The Wasserstein-1 distance of each column of numbers, in standard deviations of the reference column.

    Missing values are left out. A column that is constant in the reference is measured in its own units.
    """
    from scipy.stats import wasserstein_distance

    found = {}
    for name, column in reference.items():
        if column.numeric:
            scale = float(column.known.std()) or 1.0
            distance = wasserstein_distance(generated[name].known / scale, column.known / scale)
            found[name] = float(distance)
    return found


def total_variation(generated: Columns, reference: Columns) -> dict[str, float]:
    r"""The total variation distance of each category: half the sum of the differences of its shares, in [0, 1]."""
    found = {}
    for name, column in reference.items():
        if not column.numeric:
            first, second = shares(generated[name]), shares(column)
            differences = (abs(first.get(k, 0.0) - second.get(k, 0.0)) for k in first.keys() | second.keys())
            found[name] = math.fsum(differences) / 2
    return found


def shares(column: TableColumn) -> dict[str, float]:
    r"""The shares of the values of a category among those that are not missing."""
    names, counts = np.unique(column.known, return_counts=True)
    return dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))


def zeros(columns: Columns) -> dict[str, float]:
    r"""The share of zeros in each zero-inflated column, among values that are not missing."""
    return {name: float((c.known == 0).mean()) for name, c in columns.items() if c.kind == "zero_positive"}


def missing(columns: Columns) -> dict[str, float]:
    r"""The share of missing cells in each column."""
    return {name: float((~column.present).mean()) for name, column in columns.items()}


def worst(values: Mapping[str, float]) -> str:
    r"""The column with the largest value, as "name (value)"."""
    name = max(values, key=lambda key: values[key])
    return f"{name} ({values[name]:.3g})"
