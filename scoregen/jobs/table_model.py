r"""A table in Python: fit a data frame, sample rows, densities, missing values."""

import shutil
import weakref
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Self

from scoregen.checks import whole
from scoregen.config import Node, build
from scoregen.description import merged, option
from scoregen.errors import UserError
from scoregen.jobs.picks import table_steps
from scoregen.jobs.table_rows import RowSampler, spread, table_of
from scoregen.jobs.train import Train
from scoregen.keys import derive_seed
from scoregen.rng import Stream
from scoregen.tables import Schema
from scoregen.tables.column import Value

if TYPE_CHECKING:
    import pandas as pd

_BATCH = 1000


class TableModel:
    r"""A generative model of the rows of a table.

    Args:
        columns: kinds of columns by their names, where the guess is not right (`scoregen.tables.KINDS`).
        steps: number of steps of training; None: 2.5 times the number of rows less 150, from 200 to 4000.
        batch_size: rows a step.
        seed: seed of the training.
        width, depth, dropout: of the network, `scoregen.models.TableMLP`.
        folder: run folder of the training; None: one that is deleted with the model.

    Attributes:
        schema: the columns of the table.
        denoiser: the trained denoiser.
        checkpoint: folder of the checkpoint.

    Raises:
        ValueError: values out of range.
    """

    schema: Schema
    denoiser: Any
    checkpoint: Path

    def __init__(
        self,
        columns: Mapping[str, str] | None = None,
        *,
        steps: int | None = None,
        batch_size: int = 128,
        seed: int = 0,
        width: int = 256,
        depth: int = 4,
        dropout: float = 0.1,
        folder: Path | str | None = None,
    ) -> None:
        if steps is not None:
            whole(1, steps=steps)
        if columns is not None and not isinstance(columns, Mapping):
            raise UserError(f"columns: must be kinds by names, {{'price': 'positive'}}, got {columns!r:.60}.")
        whole(1, batch_size=batch_size)
        self.columns, self.steps, self.batch_size, self.seed = columns, steps, batch_size, seed
        self.width, self.depth, self.dropout, self.folder = width, depth, dropout, folder

    def fit(self, frame: "pd.DataFrame") -> Self:
        r"""Trains on all rows of a data frame; missing values are left out of the loss.

        Raises:
            UserError: a column of which nothing can be learnt, a kind that does not suit it, or a run folder in use.
        """
        from scoregen.data import TableFile

        _check_frame(frame, "fit")
        source = TableFile.of_frame(frame, self.columns, test="none", validation="none")
        out = self._new_folder() if self.folder is None else Path(self.folder)
        Train(data=source, trainer=self._trainer(len(frame)), model=self._model(), preview=None, seed=self.seed).run(
            out
        )
        return self._take(out)

    def _new_folder(self) -> Path:
        folder = mkdtemp(prefix="scoregen-table-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def _trainer(self, rows: int) -> Node:
        steps = self.steps or table_steps(rows)
        given = {"steps": steps, "batch_size": self.batch_size, "checkpoint_every": steps, "precision": "no"}
        given |= {"ema_halflife": 30_000, "schedule": {"warmup": min(100, steps // 2)}}
        return Node(merged(option("trainer", "default"), given))

    def _model(self) -> Node:
        network = {"width": self.width, "depth": self.depth, "dropout": self.dropout}
        return Node(merged(option("model", "table"), {"network": network}))

    def _take(self, path: Path, weights: str = "ema", trust: Collection[str] = ()) -> Self:
        from scoregen.loading import find, load
        from scoregen.parallel import device

        self.checkpoint = find(path).resolve()
        self.schema = table_of(self.checkpoint, "TableModel")
        self.denoiser = load(self.checkpoint, weights, device(), trust)
        return self

    @classmethod
    def load(cls, path: Path | str, weights: str = "ema", trust: Collection[str] = ()) -> Self:
        r"""A model of a checkpoint or a run folder, of `save`, or of a training by the command.

        Args:
            path, weights, trust: as in `scoregen.load`.

        Raises:
            UserError: nothing there, damaged, or not trained on a table.
        """
        return cls()._take(Path(path), weights, trust)

    def save(self, path: Path | str) -> Path:
        r"""Copies the checkpoint to a new folder, which `load` and every job take.

        Raises:
            UserError: the folder is there already.
        """
        from scoregen.storage import put_folder

        self._fitted()
        out = Path(path)
        if out.exists():
            raise UserError(f"path: '{out}' is there already. Give a new folder.")
        partial = out.with_name(f".{out.name}.partial")
        shutil.copytree(self.checkpoint, partial, dirs_exist_ok=True)
        put_folder(partial, out)
        return out

    def sample(
        self,
        n: int,
        condition: Mapping[str, Value] | None = None,
        seed: int = 0,
        *,
        sampler: Any = None,
        batch_size: int = _BATCH,
    ) -> "pd.DataFrame":
        r"""New rows, with the columns, types and decimals of the table.

        Args:
            n: rows; row k depends on the seed and k alone.
            condition: values of columns that all rows have: {"species": "cat", "dose": 2.5}.
            seed: seed of the rows. sampler: as of the job sample. batch_size: rows at once.

        Raises:
            UserError: an unknown column or value.
        """
        whole(1, n=n)
        rows = self._rows(sampler, batch_size)
        return rows.frame(rows.sample(range(n), seed, condition), condition)

    def log_prob(self, frame: "pd.DataFrame", *, batch_size: int = _BATCH) -> Any:
        r"""The log-density of each row, in nats and in units of the table, (N,) float64 of numpy.

        Whole numbers count with a uniform draw in [-1/2, 1/2) added; columns that are constant or left out do not
        count.

        Args:
            frame: rows without missing values. batch_size: rows at once.

        Raises:
            UserError: a column is no number, or a value is missing.
        """
        import torch

        from scoregen.samplers import log_likelihood

        self._fitted()
        _check_frame(frame, "log_prob")
        if not self.schema.all_numeric:
            column = next(column for column in self.schema.columns if column.sizes)
            raise UserError(
                f"log_prob: all columns must be numbers, and '{column.name}' is of kind {column.kind}. Fit a table "
                f"without it, or columns={{'{column.name}': 'real'}} where it holds numbers."
            )
        x = self.schema.encode(frame, derive_seed(Stream.ELSEWHERE))
        if bool(x.isnan().any()):
            raise UserError(
                f"log_prob: {int(x.isnan().any(1).sum()):,} of {len(x):,} rows have missing values. Fill them in "
                "first (impute), or leave these rows out."
            )
        if not len(x):
            raise UserError("log_prob: the data frame has no rows. Add some.")
        place = next(self.denoiser.parameters()).device
        parts = [log_likelihood(self.denoiser, part.to(place)).log_prob.cpu() for part in torch.split(x, batch_size)]
        return torch.cat(parts).double().numpy()

    def impute(
        self, frame: "pd.DataFrame", draws: int = 5, seed: int = 0, *, sampler: Any = None, batch_size: int = _BATCH
    ) -> "list[pd.DataFrame]":
        r"""Copies of a table whose missing cells are filled in, each by draws of its own; `spread` compares them.

        Args:
            frame: with the columns of the table. draws: copies. seed: seed of the draws.
            sampler: as of the job sample. batch_size: rows at once.

        Raises:
            UserError: a value that its column cannot have.
        """
        whole(1, draws=draws)
        _check_frame(frame, "impute")
        return self._rows(sampler, batch_size).impute(frame, draws, seed)

    @staticmethod
    def spread(frames: "list[pd.DataFrame]", before: "pd.DataFrame") -> "pd.DataFrame":
        r"""How much the draws of each missing cell differ (`scoregen.jobs.table_rows.spread`)."""
        return spread(frames, before)

    def _rows(self, sampler: Any, batch_size: int) -> RowSampler:
        self._fitted()
        whole(1, batch_size=batch_size)
        chosen = build(option("sampler", "velocity_abm"), where="sampler") if sampler is None else sampler
        return RowSampler(self.denoiser, self.schema, chosen, batch_size)

    def _fitted(self) -> None:
        if not hasattr(self, "denoiser"):
            raise UserError("TableModel: it has no weights yet. Call fit(frame) first, or TableModel.load(path).")


def _check_frame(frame: Any, what: str) -> None:
    r"""Refuses what is no data frame."""
    from scoregen.tables.files import pandas

    library = pandas()
    if not isinstance(frame, library.DataFrame):
        remedy = (
            "frame, _ = scoregen.tables.read_table(path)" if isinstance(frame, str | Path) else "pandas.DataFrame(x)"
        )
        raise UserError(f"{what}: needs a data frame of pandas, got {type(frame).__name__}. Make one: {remedy}.")
