r"""The job sample where the samples are rows of a table: one file with the columns of the user's."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoregen.errors import UserError
from scoregen.jobs.conditioning import announced, autocast, find_checkpoint
from scoregen.jobs.job import Plan, origin
from scoregen.jobs.table_rows import RowSampler, table_of

if TYPE_CHECKING:
    from scoregen.jobs.sample import Sample

_IMAGES = ("label", "prompts", "guidance", "autoguidance", "null_label", "clamp")


def table_plan(job: "Sample", out: Path) -> Plan:
    r"""The plan of a job with format=csv or parquet."""
    from scoregen.jobs.calls import check_sampler, network_calls

    checkpoint = find_checkpoint(job.checkpoint)
    schema = table_of(checkpoint, f"format: {job.format}")
    job.refuse_ignored(dict.fromkeys(_IMAGES, "is not for rows of a table, which condition={COLUMN: VALUE} asks for"))
    model = job.loaded(checkpoint, job.weights)
    check_sampler(job.sampler, model)
    condition = dict(job.condition or {})
    schema.known_row(condition)
    rows = RowSampler(model, schema, job.sampler, job.batch_size)
    calls = network_calls(job.sampler, model.sde)
    file = out / f"samples.{job.format}"

    def work() -> None:
        from scoregen import parallel
        from scoregen.interruption import check_folder
        from scoregen.tables import write_table

        indices = parallel.shard(range(job.n))
        with autocast(job.precision):
            parts = parallel.gather((indices, rows.sample(indices, job.seed, condition)))
        if parallel.rank() == 0:
            check_folder()
            print(write_table(rows.frame(_in_order(parts), condition), file, schema))

    given = ", ".join(f"{name}={value}" for name, value in condition.items())
    lines = [
        announced(checkpoint, job.weights),
        f"sampler: {type(job.sampler).__name__}; {job.n:,} rows" + (f" with {given}" if given else ""),
        f"out: {out}",
    ]
    return Plan(work, lines, origin(checkpoint, job.weights) | {"network_calls": calls})


def _in_order(parts: list[tuple[list[int], Any]]) -> Any:
    r"""The rows of all processes by their numbers."""
    import torch

    numbers = torch.tensor([k for indices, _ in parts for k in indices])
    return torch.cat([x for _, x in parts])[numbers.argsort()]


def refuse_condition(job: "Sample") -> None:
    r"""Refuses a condition for samples that are no rows of a table."""
    if job.condition is not None:
        raise UserError(
            f"condition: is for rows of a table, format=csv or format=parquet, got format={job.format}. Leave it out."
        )
