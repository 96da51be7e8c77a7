r"""What the evaluations share: how samples are drawn from a checkpoint, and what they are measured against."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scoregen.config import Node
from scoregen.data import Source
from scoregen.data.parts import Name
from scoregen.description import built_option, node_option
from scoregen.errors import UserError
from scoregen.jobs.conditioning import Label, Precision
from scoregen.jobs.fast import FastJob
from scoregen.jobs.job import Weights
from scoregen.jobs.sample import Sample
from scoregen.metrics import Settings

LEAST = 3  # samples: the error of the kernel distance leaves one out
# as in the job sample
DRAWING = (
    "weights",
    "n",
    "batch_size",
    "seed",
    "label",
    "guidance",
    "autoguidance",
    "null_label",
    "clamp",
    "precision",
    "compile",
)


@dataclass(frozen=True, kw_only=True)
class Measuring(FastJob):
    r"""Base class of the jobs evaluate and sweep; abstract."""

    checkpoint: str | None = None
    weights: Weights = "ema"
    n: int = 10_000
    batch_size: int = 250
    seed: int = 0
    label: Label = None
    guidance: float = 1.0
    autoguidance: bool | str = False
    null_label: int | None = None
    clamp: list[float | None] | None = None
    precision: Precision = "no"
    data: Source
    features: Node = field(default_factory=node_option("features", "classifier"))
    metrics: Settings = field(default_factory=built_option("metrics", "default"))
    cache: str | None = "outputs/reference"

    def measured_against(self) -> str:
        r"""The line that says which images are used."""
        source = self.data
        if source.part("train") is None or source.part("test") is None:
            only: Name = "test" if source.part("train") is None else "train"
            return f"data: {source.name}; reference: {source.told(only)}; no floor"
        return f"data: {source.name}; reference: {source.told('train')}; floor: {source.told('test', self.n)}"

    def drawn_by(self, sampler: Any, weights: Weights | None = None) -> Sample:
        r"""The job that makes the samples, with other weights than those of this job where they are given."""
        given = {name: getattr(self, name) for name in DRAWING}
        given["weights"] = weights or self.weights
        try:
            return Sample(checkpoint=self.checkpoint, sampler=sampler, format="npz", trust=self.trust, **given)
        except (ValueError, TypeError) as error:
            raise error if isinstance(error, UserError) else UserError(str(error)) from error


def provenance(samples: str | Path) -> dict[str, Any]:
    r"""How the job sample made them, as far as that is recorded; nothing that the record names is built."""
    from scoregen.metrics.samples import read_record

    record = read_record(samples)
    if not isinstance(record.get("sampler"), dict):
        return {"sampler": "unknown", "network_calls": None, "seed": None}
    name = str(record["sampler"].get("_target_")).rpartition(".")[2]
    kept = ("network_calls", "seed", "checkpoint", "weights", "label", "guidance", "precision", "clamp")
    return {"sampler": name, "sampler_config": record["sampler"], **{key: record.get(key) for key in kept}}
