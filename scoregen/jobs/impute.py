r"""Imputation: the missing cells of a table filled in by draws of a model, and how much the draws differ."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from scoregen.checks import whole
from scoregen.description import built_option
from scoregen.errors import UserError
from scoregen.jobs.conditioning import announced, find_checkpoint
from scoregen.jobs.fast import FastJob
from scoregen.jobs.job import Job, Plan, Weights, origin
from scoregen.jobs.table_rows import RowSampler, spread, table_of
from scoregen.samplers import Sampler


@dataclass(frozen=True, kw_only=True)
class Impute(FastJob):
    r"""Fills in the missing cells of a table; keys as in conf/impute.yaml.

    Args:
        checkpoint: a checkpoint of a table, or a run folder (its last one). weights: "ema", "model" or "ema:LENGTH".
        table: a .csv or .parquet file with the columns of the training table. separator: between cells of a text
            file; None: as that of the training. Numbers, dates and missing values are written as there.
        draws: copies of the table, each filled in anew.
        sampler: how noise becomes rows.
        format: format of the copies, "csv" or "parquet".
        batch_size: rows a process fills in at once; does not change them.
        seed: row k of draw m depends on the seed, k and m alone.
    """

    known: ClassVar = ("imputed", "spread.csv")
    free: ClassVar = (*Job.free, "draws")
    checkpoint: str | None = None
    weights: Weights = "ema"
    table: str | None = None
    separator: str | None = None
    draws: int = 5
    sampler: Sampler = field(default_factory=built_option("sampler", "velocity_abm"))
    format: Literal["csv", "parquet"] = "csv"
    batch_size: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(1, draws=self.draws, batch_size=self.batch_size)
        if self.table is None:
            raise UserError("table: a value is required. Give table=FILE.csv or table=FILE.parquet.")

    def plan(self, out: Path) -> Plan:
        from scoregen.jobs.calls import check_sampler, network_calls
        from scoregen.storage import digest
        from scoregen.tables import read_table
        from scoregen.tables.cells import form_in

        checkpoint, file = find_checkpoint(self.checkpoint), Path(str(self.table)).expanduser().resolve()
        schema = table_of(checkpoint, "checkpoint: impute")
        text = schema.text if self.separator is None else replace(schema.text, separator=self.separator)
        schema = replace(schema, text=form_in(file, text))
        frame, _ = read_table(file, text, "table")
        schema.encode(frame, seed=None)  # refuses what no column can have
        model = self.loaded(checkpoint, self.weights)
        check_sampler(self.sampler, model)
        calls = network_calls(self.sampler, model.sde)
        rows = RowSampler(model, schema, self.sampler, self.batch_size)
        known = {str(column.name) for column in schema.kept}
        gaps = frame[[name for name in frame.columns if name in known]].isna()
        lines = [
            announced(checkpoint, self.weights),
            f"table: {file}, {int(gaps.to_numpy().sum()):,} missing cells in {int(gaps.any(axis=1).sum()):,} of "
            f"{len(frame):,} rows",
            f"out: {out}, {self.draws} draws",
        ]
        if others := [name for name in frame.columns if name not in known]:
            lines.insert(2, f"columns that the model does not know stay as they are: {', '.join(others)}")
        facts = origin(checkpoint, self.weights) | {"table_sha256": digest(file), "network_calls": calls}
        return Plan(lambda: self._fill(rows, frame, file, out), lines, facts)

    def _fill(self, rows: RowSampler, frame: Any, file: Path, out: Path) -> None:
        from scoregen import parallel
        from scoregen.interruption import check_folder
        from scoregen.tables import write_table
        from scoregen.tables.files import read_texts

        if parallel.rank() != 0:
            return  # rows are small; the first process fills them in
        frames = rows.impute(frame, self.draws, self.seed)
        check_folder()
        cells = None if file.suffix.lower() == ".parquet" else read_texts(file, rows.schema.text, "table")
        for draw, filled in enumerate(frames):
            own = None if cells is None else cells.where(frame.notna() | filled.isna())
            print(write_table(filled, out / "imputed" / f"{draw}.{self.format}", rows.schema, own))
        if self.draws > 1:
            print(write_table(spread(frames, frame), out / "spread.csv", replace(rows.schema, columns=())))
