r"""Sampling from a checkpoint: sharded over processes, one seed an image, resumable."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from scoregen.checks import at_least
from scoregen.data.identity import Known
from scoregen.description import built_option
from scoregen.errors import UserError
from scoregen.jobs.conditioning import (
    Label,
    Precision,
    announced,
    autocast,
    find_checkpoint,
    guided,
    image_shape,
    known_of,
    labels_of,
    named,
    pictured,
    told_unlabelled,
    weak_weights,
)
from scoregen.jobs.fast import FastJob
from scoregen.jobs.job import Job, Plan, Weights, origin
from scoregen.jobs.table_rows import schema_in
from scoregen.jobs.table_samples import refuse_condition, table_plan
from scoregen.pictures import has_ends
from scoregen.samplers import Sampler
from scoregen.storage import write_atomically
from scoregen.whole import is_array, is_png, said


@dataclass(frozen=True, kw_only=True)
class Sample(FastJob):
    r"""Generates samples; keys as in conf/sample.yaml.

    Args:
        checkpoint: a checkpoint, or a run folder (its last one). weights: "ema", "model" or "ema:LENGTH".
        sampler: how noise becomes data.
        n: samples. batch_size: images a process makes at once; does not change them.
        format: "png", or "npz" for values that are not rounded; "csv" or "parquet" for rows of a table.
        seed: image k depends on the seed and k alone.
        label: None, one for all, a list, "all" (in turn) or "random" (drawn for each image); classes by number or name.
        condition: for a table the values of columns that all rows have, {species: cat, dose: 2.5}.
        prompts: texts of a text-to-image model, which labels 0, 1, ... mean; in turn unless label is given.
        guidance: scale of classifier-free guidance; 1 is none.
        autoguidance: true guides away from the short average of the run (trainer.ema_snapshots), in place of the model
            without labels; or the weights of the weaker model, "ema:0.03" or "model".
        null_label: of a class-conditional network of diffusers: its class for "no label", which guidance needs.
        clamp: [low, high] in units of the data, to which D is cut at every call; null leaves an end open. clamped.json
            says how many values were cut. It changes the flow: leave it out unless samples leave the range.
        precision: "no", or "bf16" for the network; samples then change with batch_size by its rounding.
    """

    known: ClassVar = ("images", "parts", "grid.png", "samples.npz", "samples.csv", "samples.parquet", "clamped.json")
    free: ClassVar = (*Job.free, "n")
    checkpoint: str | None = None
    weights: Weights = "ema"
    sampler: Sampler = field(default_factory=built_option("sampler", "velocity_abm"))
    n: int = 64
    batch_size: int = 64
    format: Literal["png", "npz", "csv", "parquet"] = "png"
    seed: int = 0
    label: Label = None
    condition: dict[str, Any] | None = None
    prompts: list[str] | None = None
    guidance: float = 1.0
    autoguidance: bool | str = False
    null_label: int | None = None
    clamp: list[float | None] | None = None
    precision: Precision = "no"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, n=self.n, batch_size=self.batch_size)
        if self.clamp is not None:
            from scoregen.jobs.clamping import check_range

            check_range(self.clamp)
        if self.format not in ("csv", "parquet"):
            refuse_condition(self)

    @cached_property
    def known_data(self) -> Known:
        r"""What the checkpoint says of its data."""
        return known_of(find_checkpoint(self.checkpoint))

    def plan(self, out: Path) -> Plan:
        from scoregen import parallel
        from scoregen.jobs.calls import check_sampler, network_calls
        from scoregen.jobs.clamping import clamped, tell

        if self.format in ("csv", "parquet"):
            return table_plan(self, out)
        checkpoint = find_checkpoint(self.checkpoint)
        model: Any = pictured(self.loaded(checkpoint, self.weights, self.null_label), self.prompts)
        shape = image_shape(checkpoint, model)
        self._check_format(shape)
        check_sampler(self.sampler, model)
        wanted: Label = "all" if self.prompts and self.label is None else self.label
        labels = labels_of(wanted, self.n, model, self.seed, self.known_data.classes)
        weak = weak_weights(self.autoguidance, self.weights, self.guidance)
        worse = None if weak is None else self.loaded(checkpoint, weak, self.null_label)
        denoiser = guided(model, self.guidance, labels, worse)
        clamp = clamped(denoiser, self.clamp, self.known_data.range)
        calls = network_calls(self.sampler, model.sde) * (1 if self.guidance == 1 else 2)
        todo, damaged = self._missing(out, shape)

        def work() -> None:
            mine = parallel.shard(todo)
            with autocast(self.precision):
                self._generate(denoiser if clamp is None else clamp, shape, labels, mine, out)
            parallel.barrier()
            if clamp is not None:
                tell(clamp, len(mine), out)
            if parallel.rank() == 0:
                self._finish(labels, out)

        unlabelled = told_unlabelled(checkpoint, labels, self.guidance if weak is None else 1)
        lines = [announced(checkpoint, self.weights), *unlabelled, *self._lines(len(todo), damaged), f"out: {out}"]
        facts = origin(checkpoint, self.weights) | {"network_calls": calls}
        if self.clamp is not None:
            lines.insert(2, f"clamp: D to {self.clamp} in units of the data, at every call")
        if weak is not None:
            lines.insert(1, f"guidance: {self.guidance:g}, away from {named(weak)} weights")
            facts["weak_sha256"] = origin(checkpoint, weak)["weights_sha256"]
        return Plan(work, lines, facts)

    def _lines(self, todo: int, damaged: int) -> list[str]:
        steps = f", {self.sampler.steps} steps" if hasattr(self.sampler, "steps") else ""
        there = f"{self.n} samples, {self.n - todo} already there{said(damaged)}"
        return [f"sampler: {type(self.sampler).__name__}{steps}; {there}"]

    def _check_format(self, shape: tuple[int, ...]) -> None:
        if self.format == "png" and not (len(shape) == 3 and shape[0] in (1, 3)):
            known = "csv" if schema_in(find_checkpoint(self.checkpoint)) else "npz"
            raise UserError(
                f"format: png needs grey or RGB images, the model makes shape {shape}. Give format={known}."
            )
        if self.format == "png" and not has_ends(self.known_data.range):
            raise UserError(
                f"format: png needs a range of the data that has ends, got {self.known_data.range}. Give format=npz."
            )

    def _path(self, out: Path, index: int) -> Path:
        return out / ("images" if self.format == "png" else "parts") / f"{index:06d}.{self._suffix()}"

    def _suffix(self) -> str:
        return "png" if self.format == "png" else "npy"

    def _missing(self, out: Path, shape: tuple[int, ...]) -> tuple[list[int], int]:
        r"""The samples that are not there yet, the same on all processes, and how many of them are damaged."""
        from scoregen.parallel import gather, rank

        there = {int(path.stem) for path in self._path(out, 0).parent.glob("*") if path.stem.isdigit()}
        if there and max(there) >= self.n:
            raise UserError(
                f"n: '{out}' already contains {max(there) + 1} samples, but n={self.n}. Set n>={max(there) + 1} or "
                "choose another out."
            )
        is_whole = is_png if self.format == "png" else is_array
        damaged = {i for i in there if not is_whole(self._path(out, i), shape)} if rank() == 0 else set()
        missing = [i for i in range(self.n) if i not in there or i in damaged]
        found: tuple[list[int], int] = gather((missing, len(damaged)))[0]
        return found

    def _generate(self, denoiser: Any, shape: tuple[int, ...], labels: Any, indices: list[int], out: Path) -> None:
        from scoregen.interruption import check_folder, end_if_asked
        from scoregen.progress import progress
        from scoregen.rng import Stream, generators

        size = 1 if self.sampler.couples_batch else self.batch_size  # else a sample would depend on its company
        with progress(total=len(indices), description="sampling", unit="image") as bar:
            for first in range(0, len(indices), size):
                batch = indices[first : first + size]
                label = None if labels is None else labels[batch]
                draws = generators(self.seed, Stream.SAMPLE, 0, batch)
                samples = self.sampler(denoiser, (len(batch), *shape), label=label, generator=draws)
                check_folder()
                for index, sample in zip(batch, samples, strict=True):
                    self._write(index, sample, out)
                bar.update(len(batch))
                end_if_asked()

    def _write(self, index: int, sample: Any, out: Path) -> None:
        import numpy as np

        from scoregen.pictures import UNIT, save_image

        if not bool(sample.isfinite().all()):
            raise UserError(
                f"checkpoint, sampler: sample {index} holds NaN or infinity. Choose another sampler, more steps or "
                "precision=no, or check whether the training diverged."
            )
        path = self._path(out, index)
        if self.format == "png":
            save_image(sample, path, data_range=self.known_data.range or UNIT)
        else:
            write_atomically(path, lambda file: np.save(file, sample.float().cpu().numpy()))

    def _finish(self, labels: Any, out: Path) -> None:
        r"""The grid, and for format=npz the archive: images, and labels where they were given."""
        import numpy as np
        import torch

        from scoregen.pictures import UNIT, save_grid

        shown = torch.from_numpy(np.stack([self._read(out, i) for i in range(min(self.n, 100))]))
        span = UNIT if self.format == "png" else self.known_data.range
        print(save_grid(shown, out / "grid.png", 10 if self.label == "all" else None, data_range=span))
        if self.format == "npz":
            images = np.stack([self._read(out, i) for i in range(self.n)])
            parts = {"images": images} | ({} if labels is None else {"labels": labels.numpy()})
            print(write_atomically(out / "samples.npz", lambda file: np.savez(file, **parts)))

    def _read(self, out: Path, index: int) -> Any:
        import numpy as np

        from scoregen.data.files import as_fraction, read_picture

        path = self._path(out, index)
        return np.load(path) if self.format == "npz" else as_fraction(read_picture(path, "out")).numpy()
