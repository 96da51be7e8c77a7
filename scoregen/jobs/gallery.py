r"""The gallery of a run: one self-contained page that shows what the model does, with nothing picked by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from scoregen.checks import at_least
from scoregen.config import Node, build
from scoregen.data import Source
from scoregen.description import built_option
from scoregen.errors import UserError
from scoregen.jobs.calls import check_sampler
from scoregen.jobs.conditioning import announced, find_checkpoint, image_shape, known_of, pictured, require_shape
from scoregen.jobs.fast import FastJob
from scoregen.jobs.gallery_page import Section, write_gallery
from scoregen.jobs.gallery_records import curves, neighbours
from scoregen.jobs.gallery_sections import (
    Shown,
    beside,
    by_calls,
    features_of,
    few_calls,
    interpolation,
    process_of,
    said,
    trajectories,
    uncurated,
)
from scoregen.jobs.job import Plan, Weights, origin
from scoregen.samplers import Consistency, Sampler
from scoregen.targets import check_targets

Maker = Callable[[], Section | list[Section]]


@dataclass(frozen=True, kw_only=True)
class Gallery(FastJob):
    r"""Writes gallery.html of a run; keys as in conf/gallery.yaml.

    Args:
        checkpoint: a run folder, or a checkpoint; `run=` on the command line.
        beside: a second run, of the other kind of process. weights: those of both.
        data: those of the training; None: those that the run names, if scoregen.data has their class and they are here.
        sampler: makes the plain grids; a consistency model makes them in one call.
        samplers: options of the group sampler that are compared. calls: numbers of network calls for each of them.
        n: number of samples in a grid and for each distance, >= 10. seed: seed of the samples.
    """

    known: ClassVar = ("gallery.html", "quality.png")
    checkpoint: str | None = None
    beside: str | None = None
    weights: Weights = "ema"
    data: Source | None = None
    sampler: Sampler = field(default_factory=built_option("sampler", "velocity_abm"))
    samplers: list[str] = field(default_factory=lambda: ["velocity_abm", "heun", "ddim"])
    calls: list[int] = field(default_factory=lambda: [4, 8, 18, 35])
    n: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(10, n=self.n)
        for name in ("samplers", "calls"):
            if not getattr(self, name):
                raise UserError(f"{name}: must not be an empty list.")
        at_least(1, calls=min(self.calls))

    def plan(self, out: Path) -> Plan:
        from scoregen import parallel

        checkpoint = find_checkpoint(self.checkpoint)
        shown, other, facts = self._shown(checkpoint), None, origin(checkpoint, self.weights)
        if self.beside is not None:
            second = find_checkpoint(self.beside)
            other = self._shown(second)
            facts |= {"beside_sha256": origin(second, self.weights)["weights_sha256"]}
        if self.data is not None:
            require_shape(checkpoint, self.data)

        def work() -> None:
            if parallel.rank() == 0:
                print(self._write(shown, other, checkpoint, out))

        data = shown.why if shown.data is None else shown.data.name
        lines = [announced(checkpoint, self.weights), f"data: {data}", f"out: {out}"]
        return Plan(work, lines, facts)

    def _shown(self, checkpoint: Path) -> Shown:
        r"""The model of a checkpoint, with the sampler that suits it and the data that are known of it."""
        shape = image_shape(checkpoint)
        model: Any = pictured(self.loaded(checkpoint, self.weights), None)
        sampler = Consistency(1) if getattr(model, "is_consistency", False) else self.sampler
        check_sampler(sampler, model)
        found = self.data or data_of(checkpoint)
        data, why = (None, found) if isinstance(found, str) else (found, "")
        return Shown(model, shape, known_of(checkpoint).range, sampler, self.seed, self.n, data, why)

    def _write(self, run: Shown, other: Shown | None, checkpoint: Path, out: Path) -> Path:
        from scoregen.interruption import end_if_asked
        from scoregen.progress import progress

        names, folder = self.samplers, checkpoint.parent.parent
        if getattr(run.model, "is_consistency", False):
            names = ["consistency"]
        makers: list[Maker] = [
            lambda: uncurated(run),
            lambda: trajectories(run),
            lambda: by_calls(run, names, self.calls, features_of(run), out),
            lambda: few_calls(run),
            lambda: beside(run, other),
            lambda: interpolation(run),
            lambda: curves(folder if (folder / "metrics.jsonl").exists() else None),
            lambda: neighbours(run),
        ]
        sections: list[Section] = []
        for make in progress(makers, description="gallery", unit="section"):
            end_if_asked()
            found = make()
            sections += found if isinstance(found, list) else [found]
        return write_gallery(out / "gallery.html", f"Gallery of {folder.name}", self._facts(run, checkpoint), sections)

    def _facts(self, run: Shown, checkpoint: Path) -> dict[str, object]:
        parameters = sum(p.numel() for p in run.model.parameters())
        return {
            "checkpoint": f"{checkpoint.parent.parent.name}/{checkpoint.name}",  # the page is for others
            "weights": self.weights,
            "data": "not known here" if run.data is None else run.data.name,
            "process": f"{type(run.model.sde).__name__}, {process_of(run)}",
            "parameters": f"{parameters:,}",
            "sampler": said(run.sampler),
            "seed": self.seed,
        }


def data_of(checkpoint: Path) -> Source | str:
    r"""The data of a training as its configuration names them; or why they are not here, in a sentence."""
    from scoregen.loading import describe

    node = describe(checkpoint).get("data")
    target = str(node.get("_target_")) if isinstance(node, dict) else ""
    if not isinstance(node, dict) or not target.startswith("scoregen.data."):
        return "the checkpoint names no data of scoregen.data. Give data=..."
    if target.endswith(".HuggingFace") or "http" in str(node):
        return f"{target} may be fetched from elsewhere, which a checkpoint does not decide. Give data=..."
    kept = {name: value for name, value in node.items() if name not in ("download", "augmentation")}
    try:
        check_targets(kept, "data", ["scoregen.data"])
        source: Source = build(Node(kept), where="data")
        _ = source.shape  # reads a sample
        return source
    except (UserError, ValueError, TypeError, OSError) as error:
        return f"{error} Give data=..."
