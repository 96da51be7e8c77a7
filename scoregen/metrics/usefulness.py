r"""Is a synthetic table of use? A random forest trained on it and tested on real rows, beside one trained on real rows.

The target is one column: accuracy where it is a category, R^2 = 1 - SS_residual / SS_total where it is a number. All
other columns are features, categories as one-hots; rows without a target are left out.

Reference: Esteban, Hyland, Ratsch (2017), arXiv 1706.02633, section 4.2 (train on synthetic, test on real).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from scoregen.errors import closest
from scoregen.metrics.table_columns import TableColumn

Columns = Mapping[str, TableColumn]
TREES = 100


class Usefulness(NamedTuple):
    r"""Scores on the held-out real rows."""

    synthetic: float  # trained on synthetic rows
    real: float  # trained on real rows
    guess: float  # of the most frequent category of training, or of its mean
    measure: str  # "accuracy" or "R^2"


def choose_target(columns: Columns, target: str | None = None) -> str:
    r"""The column to be predicted: `target`, or else the last one that is no date.

    Raises:
        ValueError: there is no such column, or it is the only one.
    """
    names = [name for name, column in columns.items() if column.kind != "date"]
    if target is not None and target not in names:
        raise ValueError(f"target: must be a column that is measured and no date, got '{target}'. "
                         f"{closest(target, names)}")  # fmt: skip
    if not names or len(columns) < 2:
        raise ValueError("target: prediction needs at least two columns.")
    return target or names[-1]


def usefulness(
    synthetic: Columns, training: Columns, held_out: Columns, target: str | None = None, seed: int = 0
) -> Usefulness:
    r"""Train on synthetic, test on real, beside train on real, test on real.

    Args:
        synthetic: as many rows as training has are used, the first ones.
        training, held_out: real rows.
        target: the column to be predicted; by default as `choose_target` says.
        seed: seed of the forests.

    Raises:
        ValueError: no such target, or a table has no row with a value of it.
    """
    name = choose_target(training, target)
    values = {other: np.unique(column.known) for other, column in training.items() if not column.numeric}
    tests = _rows(held_out, name, values, "held_out")
    real = _rows(training, name, values, "training")
    made = _rows(synthetic, name, values, "synthetic", len(next(iter(training.values())).values))
    numeric = training[name].numeric
    guess = np.full(len(tests[1]), real[1].mean() if numeric else _most_frequent(real[1]))
    return Usefulness(
        synthetic=_score(made, tests, numeric, seed),
        real=_score(real, tests, numeric, seed),
        guess=_measure(guess, tests[1], numeric),
        measure="R^2" if numeric else "accuracy",
    )


def _rows(
    table: Columns, target: str, values: Mapping[str, np.ndarray], what: str, most: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Features (N, F) and targets (N,) of the rows that have a target."""
    kept = np.flatnonzero(table[target].present[:most])
    if not len(kept):
        raise ValueError(f"{what}: no row has a value of the target '{target}'. Choose another target.")
    features: list[np.ndarray] = []
    for name, column in table.items():
        if name == target:
            continue
        features += [column.values] if column.numeric else [(column.values == v) * 1.0 for v in values[name]]
    return np.stack(features, 1)[kept], table[target].values[kept]


def _score(
    rows: tuple[np.ndarray, np.ndarray], tests: tuple[np.ndarray, np.ndarray], numeric: bool, seed: int
) -> float:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind: Any = RandomForestRegressor if numeric else RandomForestClassifier
    forest = kind(n_estimators=TREES, random_state=seed).fit(*rows)
    return _measure(forest.predict(tests[0]), tests[1], numeric)


def _measure(predicted: np.ndarray, actual: np.ndarray, numeric: bool) -> float:
    if not numeric:
        return float((predicted == actual).mean())
    spread = float(((actual - actual.mean()) ** 2).sum())
    return 1 - float(((actual - predicted) ** 2).sum()) / spread if spread > 0 else float("nan")


def _most_frequent(texts: np.ndarray) -> str:
    names, counts = np.unique(texts, return_counts=True)
    return str(names[counts.argmax()])
