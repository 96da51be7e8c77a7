r"""Does a synthetic table repeat rows of the training table? Distances to the closest record, and exact copies.

Each row becomes a vector: numbers standardised by the training table (positive ones by their logarithms, zero-inflated
ones by log(1 + x / median of the positive values)), categories as one-hots times 1/sqrt(2), so that two that differ are
1 apart. A missing number stands at the mean, with a coordinate more that says so; a missing category is one of its own.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scoregen.metrics.distances import nearest
from scoregen.metrics.table_columns import TableColumn

Columns = Mapping[str, TableColumn]


class ClosestRecords(NamedTuple):
    r"""How near the rows of a table are to those of the training table."""

    distance: float  # median Euclidean distance to the closest training row
    fifth: float  # its 5 % quantile
    copies: int  # rows that equal a training row in every column
    rows: int


def closest_records(table: Columns, training: Columns) -> ClosestRecords:
    r"""The distances of a table's rows to the closest training rows, and how many are exact copies.

    A row is a copy if every cell equals that of one training row. Where few different rows are possible, honest tables
    have copies too: compare with held-out rows.
    """
    distance = nearest(record_vectors(table, training), record_vectors(training, training), 1)[0][:, 0].sqrt()
    copies = exact_copies(table, training)
    return ClosestRecords(float(distance.quantile(0.5)), float(distance.quantile(0.05)), int(copies.sum()), len(copies))


def exact_copies(table: Columns, training: Columns) -> np.ndarray:
    r"""Which rows (N,) equal a training row in every cell."""
    known = set(_cells(training))
    return np.array([row in known for row in _cells(table)])


def _cells(table: Columns) -> list[tuple[object, ...]]:
    columns = []
    for column in table.values():
        cells = column.values.tolist()
        columns.append([cell if here else None for cell, here in zip(cells, column.present.tolist(), strict=True)])
    return list(zip(*columns, strict=True))


def record_vectors(table: Columns, training: Columns) -> Tensor:
    r"""The rows of a table as vectors (N, F), float64, in the units of the training table."""
    parts: list[np.ndarray] = []
    for name, reference in training.items():
        column = table[name]
        parts += _numbers(column, reference) if column.numeric else _one_hot(column, reference)
    return torch.from_numpy(np.stack(parts, 1))


def _numbers(column: TableColumn, reference: TableColumn) -> list[np.ndarray]:
    known = reference.known
    if reference.kind == "positive" and (known > 0).all():
        least = known.min() * 1e-3  # a table from elsewhere may hold zeros
        x, own = np.log(np.maximum(column.values, least)), np.log(known)
    elif reference.kind == "zero_positive" and (known > 0).any():
        unit = float(np.median(known[known > 0]))
        x, own = np.log1p(np.maximum(column.values, 0) / unit), np.log1p(np.maximum(known, 0) / unit)
    else:
        x, own = column.values, known
    standard = (x - own.mean()) / (float(own.std()) or 1.0)
    return [np.where(column.present, standard, 0.0), np.where(column.present, 0.0, 1.0)]


def _one_hot(column: TableColumn, reference: TableColumn) -> list[np.ndarray]:
    r"""A coordinate for each training value, one for "missing", and one for all values that training has not."""
    values = np.unique(reference.known)
    hot = [column.present & (column.values == value) for value in values]
    other = column.present & ~np.any(hot, axis=0)
    return [part / np.sqrt(2) for part in (*hot, ~column.present, other)]
