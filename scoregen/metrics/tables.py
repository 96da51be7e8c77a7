r"""An evaluation of a synthetic table: its numbers, each beside its floor, and a page of its columns.

reference = the training rows      floor = the same number for the held-out real rows in place of synthetic ones
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scoregen.data.pictures import spread
from scoregen.metrics.associations import association_error, associations, correlation_error, correlations
from scoregen.metrics.marginals import Columns, missing, total_variation, wasserstein, worst, zeros
from scoregen.metrics.measurement import Settings
from scoregen.metrics.neighbours import NearestNeighbours, nearest_neighbours
from scoregen.metrics.records import closest_records, exact_copies, record_vectors
from scoregen.metrics.report import Number, Report
from scoregen.metrics.table_columns import TableColumn, read_columns
from scoregen.metrics.table_page import write_table_page
from scoregen.metrics.usefulness import choose_target, usefulness

if TYPE_CHECKING:
    import pandas as pd

_SUSPICIOUS = 10
NAMES = {"zeros": "zeros", "missing": "missing cells"}
PRIVACY = "No number here shows that a table is private. Copies and near copies are looked for, nothing else."


def evaluate_table(
    synthetic: "pd.DataFrame",
    training: "pd.DataFrame",
    held_out: "pd.DataFrame | None",
    kinds: Mapping[str, str],
    settings: Settings | None = None,
    *,
    target: str | None = None,
    protocol: Mapping[str, Any] | None = None,
    page: Path | None = None,
    further: Sequence[Number] = (),
) -> Report:
    r"""Measures a synthetic table against real rows.

    Args:
        synthetic: rows of a model. training: the rows that it was trained on. held_out: rows that it was not trained
            on, for the floor and the usefulness; None without them.
        kinds: kinds of the columns by name, as of `scoregen.tables.Column`; constant and dropped ones are not measured.
        settings: subset (rows in the numbers of quadratic cost), alpha and seed count.
        target: the column that is predicted; None for the last one that is no date.
        protocol: origin of the rows, added to the report.
        page: HTML file for the marginals and the association matrices; None for no page.
        further: numbers of the model of the rows, added to the report.

    Raises:
        ValueError: a table lacks a column or rows, holds values that its kind cannot have, or there is no such target.
    """
    measured = TableMeasurement(
        read_columns(synthetic, kinds, "samples"),
        read_columns(training, kinds, "training rows"),
        None if held_out is None else read_columns(held_out, kinds, "held-out rows"),
        settings or Settings(),
        target,
    )
    report = measured.report(protocol or {})
    report.numbers.extend(further)
    if page is not None:
        write_table_page(page, measured.synthetic, measured.training, report)
    return report


@dataclass(frozen=True)
class TableMeasurement:
    r"""The numbers of an evaluation of a table, from columns; arguments as of `evaluate_table`."""

    synthetic: Mapping[str, TableColumn]
    training: Mapping[str, TableColumn]
    held_out: Mapping[str, TableColumn] | None
    settings: Settings
    target: str | None = None

    def __post_init__(self) -> None:
        if not self.training:
            raise ValueError("a table must have a column that is not constant, got none.")
        if len(self.training) > 1:
            choose_target(self.training, self.target)  # before any work

    def report(self, protocol: Mapping[str, Any]) -> Report:
        r"""All numbers, in the order of the table."""
        numbers = [*self._marginals(), *self._dependence(), *self._copies(), *self._usefulness()]
        rows = {"generated_rows": _rows(self.synthetic), "reference_rows": _rows(self.training)}
        rows |= {"floor_rows": 0 if self.held_out is None else _rows(self.held_out)}
        facts = {**rows, "evaluation_seed": self.settings.seed, **protocol}
        return Report(numbers, facts, {"columns": self._columns(), **self._suspicious()}, self._warnings())

    def _marginals(self) -> list[Number]:
        distance, floor = wasserstein(self.synthetic, self.training), self._floor(wasserstein)
        variation, variation_floor = total_variation(self.synthetic, self.training), self._floor(total_variation)
        found = []
        if distance:
            note = f"mean of {len(distance)} columns, in standard deviations; most: {worst(distance)}"
            found.append(Number("W1", _mean(distance), "lower", _mean(floor), note=note))
        if variation:
            note = f"mean of {len(variation)} categories; most: {worst(variation)}"
            found.append(Number("total variation", _mean(variation), "lower", _mean(variation_floor), note=note))
        for name, shares in (("zeros", zeros), ("missing", missing)):
            real = shares(self.training)
            if not any(real.values()) and not any(shares(self.synthetic).values()):
                continue
            off = _differences(shares(self.synthetic), real)
            held = None if self.held_out is None else _differences(shares(self.held_out), real)
            note = f"mean error of the share of {NAMES[name]}; most: {worst(off)}"
            found.append(Number(name, _mean(off), "lower", _mean(held), note=note))
        return found

    def _dependence(self) -> list[Number]:
        found = []
        if sum(column.numeric for column in self.training.values()) > 1:
            error, held = self._error(correlations, correlation_error)
            found.append(Number("correlation", error, "lower", held, note="root mean square error of Pearson's r"))
        if len(self.training) > 1:
            error, held = self._error(associations, association_error)
            note = "mean error of Spearman's rho, Cramer's V and the correlation ratio"
            found.append(Number("association", error, "lower", held, note=note))
        return found

    def _error(self, matrix: Any, error: Any) -> tuple[float, float | None]:
        reference = matrix(self.training)
        held = None if self.held_out is None else error(matrix(self.held_out), reference)
        return error(matrix(self.synthetic), reference), held

    def _copies(self) -> list[Number]:
        copies, few = exact_copies(self.synthetic, self.training), self._few(self.synthetic)
        own = None if self.held_out is None else float(exact_copies(self.held_out, self.training).mean())
        note = f"share of rows that equal a training row; {int(copies.sum())} of {len(copies)}"
        found = [Number("copies", float(copies.mean()), "lower", own, note=note)]
        near = closest_records(few, self.training)
        held = None if self.held_out is None else closest_records(self._few(self.held_out), self.training)
        note = f"median; 5 % of rows are nearer than {near.fifth:.3g}" + (f" (floor: {held.fifth:.3g})" if held else "")
        distance = Number("distance to training", near.distance, "none", held and held.distance, note=note)
        found.append(distance)
        if self._near is not None:
            note = "share flagged as near copies of training rows; floor: by chance"
            found.append(Number("memorised", self._near.fraction, "lower", self.settings.alpha, note=note))
        return found

    def _usefulness(self) -> list[Number]:
        if self.held_out is None or len(self.training) < 2:
            return []
        target = choose_target(self.training, self.target)
        found = usefulness(self.synthetic, self.training, self.held_out, target, self.settings.seed)
        note = f"of a random forest trained on the rows, tested on held-out ones; guessing: {found.guess:.3g}"
        return [Number(f"{found.measure} of {target}", found.synthetic, "higher", found.real, note=note)]

    def _floor(self, distance: Callable[[Columns, Columns], dict[str, float]]) -> dict[str, float] | None:
        r"""A distance of the held-out rows."""
        return None if self.held_out is None else distance(self.held_out, self.training)

    def _few(self, columns: Columns) -> dict[str, TableColumn]:
        r"""At most `subset` rows, evenly spread."""
        chosen = np.array(spread(_rows(columns), self.settings.subset))
        return {name: TableColumn(c.kind, c.values[chosen], c.present[chosen]) for name, c in columns.items()}

    @cached_property
    def _near(self) -> NearestNeighbours | None:
        r"""Nearest training rows, judged by held-out ones; None where there are none or too few."""
        if self.held_out is None or _rows(self.held_out) < 2:
            return None
        made, training, held_out = (
            record_vectors(columns, self.training)
            for columns in (self._few(self.synthetic), self.training, self.held_out)
        )
        return nearest_neighbours(made, training, held_out, alpha=self.settings.alpha)

    def _suspicious(self) -> dict[str, Any]:
        r"""The synthetic rows that are nearest to a training row, as far as held-out rows can tell."""
        if self._near is None:
            return {}
        places = spread(_rows(self.synthetic), self.settings.subset)
        return {
            "nearest_training_rows": [
                {
                    "generated": places[i],
                    "training": int(self._near.index[i, 0]),
                    "distance": float(self._near.distance[i, 0]),
                    "ratio": float(self._near.ratio[i]),
                }
                for i in self._near.ratio.argsort()[:_SUSPICIOUS].tolist()
            ]
        }

    def _columns(self) -> dict[str, dict[str, Any]]:
        r"""The distance of each column, beside its floor."""
        found: dict[str, dict[str, Any]] = {}
        for name, distance in (("W1", wasserstein), ("total variation", total_variation)):
            held = self._floor(distance) or {}
            for column, value in distance(self.synthetic, self.training).items():
                kind = self.training[column].kind
                found[column] = {"kind": kind, "measure": name, "value": value, "floor": held.get(column)}
        return {name: found[name] for name in self.training}

    def _warnings(self) -> list[str]:
        r"""Reasons why numbers cannot be compared with others."""
        made, real, found = _rows(self.synthetic), _rows(self.training), []
        if self.held_out is None:
            found.append(
                "the data have one part alone, so that the numbers have no floor, and usefulness is not known."
            )
        elif _rows(self.held_out) * self.settings.alpha < 1:
            found.append(
                f"{_rows(self.held_out)} held-out rows are too few for memorisation at alpha={self.settings.alpha}."
            )
        least = min(made, real if self.held_out is None else _rows(self.held_out))
        if least < 100:
            found.append(f"{least} rows are few: distances and associations are biased upward. Compare with the floor.")
        strange = {name: sorted(_strange(self.synthetic[name], column)) for name, column in self.training.items()}
        for name, values in strange.items():
            if values:
                found.append(f"column '{name}' has values that the training rows have not: {', '.join(values[:5])}.")
        return [*found, PRIVACY]


def _strange(column: TableColumn, reference: TableColumn) -> set[str]:
    r"""Categories that the reference does not have."""
    return set() if column.numeric else set(column.known.tolist()) - set(reference.known.tolist())


def _rows(columns: Columns) -> int:
    return len(next(iter(columns.values())).values)


def _mean(values: Mapping[str, float] | None) -> Any:
    return None if values is None else float(np.mean(list(values.values())))


def _differences(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {name: abs(a[name] - b[name]) for name in b}
