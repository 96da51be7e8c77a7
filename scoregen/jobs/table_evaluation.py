r"""The job evaluate where the data are a table: rows from a file or a checkpoint, measured column by column."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoregen.checks import either
from scoregen.data import TableFile
from scoregen.data.parts import Held, Name, divide, is_path
from scoregen.errors import UserError, closest
from scoregen.jobs.conditioning import find_checkpoint, require_shape
from scoregen.jobs.job import Plan
from scoregen.jobs.measuring import LEAST, provenance
from scoregen.jobs.table_rows import schema_in
from scoregen.storage import digest
from scoregen.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

    from scoregen.metrics import Number, Report

FILES = ("samples.csv", "samples.parquet")
PAGE = "report.html"


def table_plan(job: Any, out: Path) -> Plan:
    r"""What the job evaluate does with a table.

    Args:
        job: an `Evaluate` whose data are a `TableFile`. out: its folder.

    Raises:
        UserError: values that mean nothing for a table, or samples that cannot be measured.
    """
    source: TableFile = job.data
    job.refuse_ignored(
        {"features": "is of images and vectors; tables are measured column by column", "cache": "is of features"}
        | dict.fromkeys(("dimension", "memorisation", "information"), "is of images and vectors, not of tables")
    )
    _check_target(source, job.target)
    facts: dict[str, Any] = {}
    if job.checkpoint is None:
        file = _samples_file(str(job.samples))
        _check_columns(source, file)
        facts["samples_sha256"] = digest(file)
    else:
        checkpoint = find_checkpoint(job.checkpoint)
        require_shape(checkpoint, source)
        drawn = replace(job.drawn_by(job.sampler), format="csv")
        made = drawn.plan(out / "samples")
        facts = {key: made.facts[key] for key in ("checkpoint", "weights_sha256")}

    def work() -> None:
        from scoregen.parallel import rank

        folder = job.samples or drawn.run(out / "samples")
        if rank() == 0:
            report = _measured(job, _samples_file(str(folder)), out / PAGE)
            print(report.table())
            print(f"\n{report.write(out / 'metrics.json')}\n{out / PAGE}")

    lines = [told(source), f"out: {out}"]
    return Plan(work, lines, facts)


def refuse_rows(job: Any) -> None:
    r"""Refuses rows of a table, by their file or their checkpoint, where the data are none.

    Args:
        job: an `Evaluate` whose data are no `TableFile`.

    Raises:
        UserError: the key `data` must be the table.
    """
    if job.checkpoint is not None:
        rows = schema_in(find_checkpoint(job.checkpoint)) is not None
    else:
        path = Path(str(job.samples)).expanduser()
        rows = path.suffix in (".csv", ".parquet") or any((path / name).is_file() for name in FILES)
    if rows:
        what = "samples" if job.checkpoint is None else "checkpoint"
        raise UserError(
            f"data: must be a table, as {what}='{getattr(job, what)}' has rows of one, got {job.data.name}. Give "
            "data=table data.path=FILE.csv, the table of the training."
        )


def told(source: TableFile) -> str:
    r"""The line that says which rows are used."""
    parts: list[tuple[str, Name]] = [("reference", "train"), ("floor", "test")]
    found = [f"{what}: {len(frame):,} rows" for what, name in parts if (frame := part_of(source, name)) is not None]
    return f"data: {source.name}; {'; '.join(found)}{'' if len(found) == 2 else '; no floor'}"


def part_of(source: TableFile, name: Name) -> "pd.DataFrame | None":
    r"""The rows of a part, as they are in the file; None where there is no such part."""
    import pandas as pd

    stored: dict[Name, pd.DataFrame] = {"train": source.frame}
    choices: dict[Name, Held] = {"test": source.test_from, "validation": source.validation_from}
    for key, choice in choices.items():
        if is_path(choice):
            stored[key] = read_table(str(choice), source.text, f"data.{key}")[0]
    sizes = {key: len(frame) for key, frame in stored.items()}
    pieces = divide(sizes, source.test_from, source.validation_from, source.seed_of_parts).get(name)
    if not pieces:
        return None
    frames = [stored[p.stored] if p.chosen is None else stored[p.stored].iloc[p.chosen.numpy()] for p in pieces]
    return pd.concat(frames, ignore_index=True)


def _check_target(source: TableFile, target: str | None) -> None:
    names = [str(column.name) for column in source.schema.columns if column.kind not in ("constant", "drop", "date")]
    if target is not None and target not in names:
        raise UserError(
            f"target: must be a column of {source.name} that varies and is no date, got '{target}'. "
            f"{closest(target, names)}"
        )


def _check_columns(source: TableFile, file: Path) -> None:
    r"""Refuses samples without a column that is measured, or with too few rows, before any work."""
    frame = read_table(str(file), source.text, "samples")[0]
    names = [str(name) for name in frame.columns]
    for column in source.schema.columns:
        if column.kind not in ("constant", "drop") and str(column.name) not in names:
            raise UserError(
                f"samples: '{file}' must have the column '{column.name}' of {source.name}. "
                f"{closest(str(column.name), names)}"
            )
    if len(frame) < LEAST:
        raise UserError(f"samples: must be at least {LEAST} rows to be measured, got {len(frame)} in '{file}'.")


def _likelihood(job: Any) -> "list[Number]":
    r"""The log-density of the held-out rows, where the checkpoint has one: all columns are numbers."""
    source: TableFile = job.data
    if job.checkpoint is None or not source.schema.all_numeric or source.part("test") is None:
        return []
    x = source.test.in_units(slice(None))[0]
    whole = x[~x.isnan().any(1)]
    if not len(whole):
        return []
    from scoregen.metrics import Number
    from scoregen.parallel import device
    from scoregen.samplers import log_likelihood

    model = job.loaded(find_checkpoint(job.checkpoint), job.weights)
    found = log_likelihood(model, whole.to(device())).log_prob.double()
    reach = 1.96 * float(found.std()) / len(found) ** 0.5 if len(found) > 1 else 0.0
    mean, left = float(found.mean()), len(x) - len(whole)
    note = f"nats a held-out row in units of the data, 95 %; {len(whole)} rows" + (
        f", {left} with missing cells left out" if left else ""
    )
    return [Number("log-likelihood", mean, "higher", None, mean - reach, mean + reach, note)]


def _samples_file(path: str) -> Path:
    r"""The file of a table that `samples` names: itself, or the one in a folder of the job sample."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return folder
    found = next((folder / name for name in FILES if (folder / name).exists()), None)
    if found is None:
        raise UserError(f"samples: '{path}' must contain {either(FILES)}. Sample with format=csv, or name a file.")
    return found


def _measured(job: Any, file: Path, page: Path | None) -> "Report":
    r"""The report of a file of rows; and its page, where one is wanted."""
    from scoregen.metrics.tables import evaluate_table

    source: TableFile = job.data
    made, protocol = read_table(str(file), source.text, "samples")[0], {"data": source.name, "samples": str(file)}
    training, held_out = part_of(source, "train"), part_of(source, "test")
    if training is None:
        training, held_out = held_out, None
    assert training is not None  # a source has one part at least
    kinds = {str(column.name): column.kind for column in source.schema.columns}
    try:
        return evaluate_table(
            made,
            training,
            held_out,
            kinds,
            job.metrics,
            target=job.target,
            protocol=protocol | provenance(file),
            page=page,
            further=_likelihood(job),
        )
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error
