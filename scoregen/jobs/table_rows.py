r"""Rows of a table from a checkpoint: sampled, given some of their values, or filled in where cells are missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoregen.errors import UserError
from scoregen.parallel import say_once
from scoregen.tables import Schema
from scoregen.tables.column import LOGARITHMIC, Column, Value
from scoregen.tables.schema import check_names
from scoregen.tables.values import is_numeric

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

_FAR = 4.0  # of a number in model coordinates, where a column has about the law N(0, 1/4)


def schema_in(checkpoint: Path) -> Schema | None:
    r"""The columns of the table that a checkpoint was trained on; None for other data."""
    from scoregen.loading import describe

    facts = describe(checkpoint).get("dataset")
    nodes, text = (facts.get(key) if isinstance(facts, dict) else None for key in ("table", "text"))
    return None if nodes is None else Schema.of(nodes, text)


def table_of(checkpoint: Path, why: str) -> Schema:
    r"""The columns of a checkpoint.

    Raises:
        UserError: it was not trained on a table; `why` says what needs one.
    """
    found = schema_in(checkpoint)
    if found is None:
        raise UserError(f"{why} needs a model of a table, and '{checkpoint}' was trained on other data.")
    return found


@dataclass(frozen=True)
class RowSampler:
    r"""Draws rows of a table.

    Args:
        denoiser: of rows. schema: their columns. sampler: how noise becomes rows. batch_size: rows at once.
    """

    denoiser: Any
    schema: Schema
    sampler: Any
    batch_size: int = 1000

    def rows(
        self, keys: Sequence[tuple[int, ...]], known: "Tensor | None" = None, where: str = "condition"
    ) -> "Tensor":
        r"""Vectors of rows (N, D), each a function of its own key.

        Args:
            keys: of the generators. known: values that are given, (1, D) for all or (N, D), nan elsewhere.
            where: the key that gives them.

        Raises:
            UserError: a row that is not finite, by a value far from those of the table or else by the sampler.
        """
        import torch

        from scoregen.interruption import end_if_asked
        from scoregen.progress import progress
        from scoregen.rng import generator

        if known is not None and (far := self._far(known)):
            say_once(f"{where}: {far}, more than 8 standard deviations from the middle. Rows there are extrapolated.")
        size = 1 if self.sampler.couples_batch else self.batch_size
        found = []
        with progress(total=len(keys), description="sampling", unit="row") as bar:
            for first in range(0, len(keys), size):
                batch = keys[first : first + size]
                given = None if known is None else known if len(known) == 1 else known[first : first + len(batch)]
                draws = [generator(*key) for key in batch]
                x = self.sampler(self._given(given), (len(batch), self.schema.layout.width), generator=draws).cpu()
                found.append(x if given is None else torch.where(given.isnan(), x, given))
                bar.update(len(batch))
                end_if_asked()
        rows = torch.cat(found) if found else torch.empty(0, self.schema.layout.width)
        if not bool(rows.isfinite().all()):
            if known is not None and self._far(known):
                raise UserError(
                    f"{where}: {self._far(known)}, too far from the values of the table for rows to be drawn. Give "
                    "values nearer to it."
                )
            raise UserError(
                f"checkpoint, sampler: {int((~rows.isfinite()).any(1).sum()):,} rows hold NaN or infinity. Choose "
                "another sampler or more steps, or check whether the training diverged."
            )
        return rows

    def _far(self, known: "Tensor") -> str:
        r"""Names a given number that lies far outside of the table; "" where none does."""
        columns = [column for column in self.schema.columns if column.has_number]
        if not columns:
            return ""
        far = self.denoiser.sde.to_chart(known)[:, : len(columns)].abs() > _FAR  # nan is not
        if not bool(far.any()):
            return ""
        row, k = far.nonzero()[0].tolist()
        value = self.schema.decode(known[row : row + 1].nan_to_num(1.0))[columns[k].name].iloc[0]
        shown = f"{value:.6g}" if columns[k].kind != "date" else value
        return f"{columns[k].name}={shown} lies far outside of the table"

    def _given(self, known: "Tensor | None") -> Any:
        if known is None or bool(known.isnan().all()):
            return self.denoiser
        from scoregen.models import Inpainting, PiGDM, TableDenoiser
        from scoregen.models.table_conditions import GivenCells

        if isinstance(self.denoiser, TableDenoiser):
            return GivenCells(self.denoiser, known)
        return PiGDM(self.denoiser, Inpainting(known.nan_to_num(0.0), ~known.isnan()))

    def sample(self, indices: Sequence[int], seed: int, condition: Mapping[str, Value] | None = None) -> "Tensor":
        r"""Vectors of the rows of these numbers, (N, D).

        Args:
            indices: row k depends on the seed and k alone. condition: values of columns, the same in all rows.
        """
        from scoregen.rng import Stream

        known = self.schema.known_row(condition)[0] if condition else None
        return self.rows([(seed, Stream.SAMPLE, 0, k) for k in indices], known)

    def frame(self, x: "Tensor", condition: Mapping[str, Value] | None = None) -> "pd.DataFrame":
        r"""Rows (N, D) as a data frame, with the values of a condition as they were given."""
        found = self.schema.decode(x)
        if condition:
            given = self.schema.known_row(condition)[1]
            for name in given.columns:
                found[name] = given[name].repeat(len(found)).set_axis(found.index).astype(found[name].dtype)
        return found

    def impute(self, frame: "pd.DataFrame", draws: int, seed: int) -> "list[pd.DataFrame]":
        r"""Copies of a table whose missing cells are filled in, each by draws of its own.

        Cells of columns that the model does not know stay as they are.
        """
        from scoregen.rng import Stream

        frame = frame.reset_index(drop=True)
        check_names(list(frame.columns))
        self._tell_constants(frame)
        named = [column for column in self.schema.kept if str(column.name) in map(str, frame.columns)]
        gaps = frame[[column.name for column in named]].isna()
        places = gaps.any(axis=1).to_numpy().nonzero()[0]
        known = self.schema.encode(frame.loc[places], seed=None)
        found = []
        for draw in range(draws):
            keys = [(seed, Stream.RESTORE, draw, int(k)) for k in places]
            made = self.schema.decode(self.rows(keys, known, "table")).set_axis(places)
            filled = frame.copy()
            for column in named:
                missing = gaps.index[gaps[column.name]]
                if len(missing):
                    filled[column.name] = _filled(filled[column.name], made[column.name], missing, column)
            found.append(filled)
        return found

    def _tell_constants(self, frame: "pd.DataFrame") -> None:
        r"""Says which column has other values than the one of the training."""
        names = {str(name): name for name in frame.columns}
        for column in self.schema.kept:
            if column.kind != "constant" or str(column.name) not in names:
                continue
            other = next(
                (v for v in frame[names[str(column.name)]].dropna().unique() if not _is_constant(v, column)), None
            )
            if other is not None:
                say_once(
                    f"table: '{column.name}' is {column.categories[0]!r} in all rows of the training, and has other "
                    f"values here, such as {str(other)!r}, of which the model knows nothing."
                )


def _is_constant(value: Any, column: Column) -> bool:
    only = column.categories[0]
    written = value.isoformat() if hasattr(value, "isoformat") else value
    return bool(written == only) or str(written) == str(only)


def _filled(own: "pd.Series", made: "pd.Series", missing: "pd.Index", column: Column) -> "pd.Series":
    r"""A column with values in its missing cells, of a type that has both."""
    from pandas.api import types

    if len(missing) == len(own):
        return made.reindex(own.index)
    if column.kind in ("real", *LOGARITHMIC) and types.is_integer_dtype(own):
        own = own.astype("float64")
    elif column.kind == "category" and not types.is_numeric_dtype(made) and types.is_numeric_dtype(own):
        own = own.map(str, na_action="ignore").astype(object)
    own = own.copy()
    own.loc[missing] = made.loc[missing]
    return own


def spread(frames: "Sequence[pd.DataFrame]", before: "pd.DataFrame") -> "pd.DataFrame":
    r"""How much the draws of each missing cell differ; empty where a cell was not missing.

        Of numbers the standard deviation; of dates the same, in days; of others the share of draws that differ from the
        most frequent one.

    Args:
        frames: of `impute`, two or more. before: the table with its missing cells.

    Raises:
        UserError: fewer than two frames.
    """
    import pandas as pd

    if len(frames) < 2:
        raise UserError(f"spread: needs two draws or more, got {len(frames)}. Fill the table in with draws=2 or more.")

    gaps, found = before.reset_index(drop=True).isna(), {}
    for name in before.columns:
        draws = pd.concat([frame[name][gaps[name]] for frame in frames], axis=1)
        values = pd.Series(float("nan"), index=gaps.index)
        if pd.api.types.is_datetime64_any_dtype(before[name]):
            first = frames[0][name][gaps[name]]
            values[gaps[name]] = draws.apply(lambda c: (c - first).dt.total_seconds() / 86_400).std(axis=1, ddof=1)  # noqa: B023
        elif is_numeric(before[name]):
            values[gaps[name]] = draws.astype("float64").std(axis=1, ddof=1)
        elif len(draws):
            values[gaps[name]] = 1 - draws.apply(lambda row: row.value_counts(normalize=True).max(), axis=1)
        found[name] = values
    return pd.DataFrame(found)
