r"""Evaluation: samples from a file or from a checkpoint, measured against data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from scoregen.checks import at_least
from scoregen.config import accepts, build
from scoregen.data.units import check_near, tell_flat
from scoregen.description import built_option
from scoregen.errors import UserError
from scoregen.jobs.conditioning import find_checkpoint, require_shape
from scoregen.jobs.job import Job, Plan
from scoregen.jobs.levels import MEASURES, ByLevel, refusals
from scoregen.jobs.measuring import DRAWING, LEAST, Measuring, provenance
from scoregen.jobs.picks import schema_of
from scoregen.jobs.table_evaluation import refuse_rows, table_plan
from scoregen.metrics import FeatureExtractor, Report
from scoregen.pictures import has_ends
from scoregen.samplers import Sampler

_BALANCED = (
    "labels were assigned round-robin (label=all); exactly balanced classes are not independent draws, which lowers "
    "the kernel and energy distance by about (spread between classes)/n, below zero where the laws agree. Use "
    "label=random for independent draws."
)


@dataclass(frozen=True, kw_only=True)
class Evaluate(Measuring):
    r"""Measures samples against data; keys as in conf/evaluate.yaml.

    Args:
        samples: a folder of the job sample, an .npz with `images`, or a folder of pictures; or
        checkpoint: a checkpoint to sample from, with weights, sampler, n, batch_size, seed, label, guidance, clamp
            and precision as in the job sample.
        data: its training part is the reference, its test part gives the floor.
        features: what distances are taken in. metrics: what is measured and how.
        cache: folder for the features of the data, by hash; None to compute them anew.
        dimension: measure the local dimension of the test part, by noise level.
        memorisation: measure whether the checkpoint's residual tells training points from others, by noise level.
        information: measure what the labels tell of the data, in nats, by noise level. These three use 500 points of
            a part, evenly spread, and draw curves.
        target: for a table (data=table) the column that a random forest, trained on the samples, predicts; None for
            the last one. For a table, samples may be a .csv or .parquet file, and features and cache are not used.
    """

    known: ClassVar = ("metrics.json", "report.html", "dimension.png", "memorisation.png", "information.png")
    free: ClassVar = (*Job.free, "cache")
    samples: str | None = None
    sampler: Sampler = field(default_factory=built_option("sampler", "velocity_abm"))
    dimension: bool = False
    memorisation: bool = False
    information: bool = False
    target: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.samples is None) == (self.checkpoint is None):
            raise UserError("samples, checkpoint: give one of samples=PATH and checkpoint=PATH, got both or neither.")
        if self.checkpoint is None:
            self.refuse_ignored(
                dict.fromkeys((*DRAWING, "sampler"), "needs checkpoint=..., which makes samples") | refusals()
            )
        else:
            at_least(LEAST, n=self.n)

    def plan(self, out: Path) -> Plan:
        if schema_of(self.data) is not None:
            return table_plan(self, out)
        refuse_rows(self)
        self.refuse_ignored({"target": "is a column of a table (data=table)"})
        extractor = extractor_for(self)
        facts: dict[str, Any] = {}
        adding: ByLevel | None = None
        if self.checkpoint is None:
            facts["samples_sha256"] = _digest(self._given_samples())
        else:
            checkpoint = find_checkpoint(self.checkpoint)
            require_shape(checkpoint, self.data)
            adding = ByLevel(self, checkpoint) if any(getattr(self, name) for name in MEASURES) else None
            job = self.drawn_by(self.sampler)
            made = job.plan(out / "samples")
            facts = {key: made.facts[key] for key in ("checkpoint", "weights_sha256")}

        def work() -> None:
            samples = self.samples or job.run(out / "samples")
            measured(self, samples, extractor, out / "metrics.json", adding)

        lines = [self.measured_against(), *([] if adding is None else [adding.told()]), f"out: {out}"]
        return Plan(work, lines, facts)

    def _given_samples(self) -> Any:
        r"""The samples to measure; refuses too few, and those of another shape than the data."""
        images = _read(str(self.samples))
        if len(images) < LEAST:
            raise UserError(f"samples: must be at least {LEAST} to be measured, got {len(images)} in '{self.samples}'.")
        if tuple(images.shape[1:]) != tuple(self.data.shape):
            raise UserError(
                f"samples: must have the shape of the data, got {tuple(images.shape[1:])} and {tuple(self.data.shape)} "
                f"of {self.data.name}. Choose the data they were trained on."
            )
        self._check_units(images)
        return images

    def _check_units(self, images: Any) -> None:
        r"""Refuses images in other units than the data, which would be cut to their range."""
        ends, own = self.data.range, provenance(str(self.samples))["sampler"] != "unknown"
        if own:  # made here, in the units of the training, wherever a poor model puts them
            return
        if images.ndim != 4 or not images.is_floating_point() or ends is None or not has_ends(ends):
            return
        remedy = "Give samples in the units of the data, or the data's data.range."
        check_near(images, ends, f"samples: the values of '{self.samples}'", self.data.name, remedy)
        tell_flat(images, ends, f"the samples of '{self.samples}'")

    def result(self, out: Path) -> float | None:
        return frechet_of(out / "metrics.json")


def extractor_for(job: Any) -> FeatureExtractor:
    r"""Builds the extractor of a job, with what the data know (channels) and what the user trusts."""
    node = dict(job.features)
    if accepts(node, "channels", "features") and node.get("channels") is None:
        node["channels"] = job.data.shape[0]
    if accepts(node, "trust") and not node.get("trust"):
        node["trust"] = list(job.trust)
    extractor: FeatureExtractor = build(node, where="features")
    return extractor


def measured(
    job: Any, samples: str | Path, extractor: FeatureExtractor, file: Path, adding: ByLevel | None = None
) -> Report:
    r"""One evaluation: the report, printed and written by the first process.

    Args:
        job: gives data, metrics, cache and batch_size. samples: where they are. file: for the numbers.
        adding: adds to the report what is not of the samples.
    """
    from scoregen.metrics import evaluate
    from scoregen.parallel import device, rank

    protocol = {"samples": str(samples), **provenance(samples)}
    cache = None if job.cache is None else Path(job.cache)
    try:
        report = evaluate(
            _read(samples), job.data, extractor, job.metrics, cache=cache, device=device(), protocol=protocol
        )
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(f"samples: {error}") from error
    if isinstance(protocol.get("label"), str | list) and protocol["label"] != "random":
        report.warnings.append(_BALANCED)
    if adding is not None:
        adding(report, file.parent)
    if rank() == 0:
        print(report.table())
        print(f"\n{report.write(file)}")
    return report


def frechet_of(file: Path) -> float | None:
    r"""The first number of an evaluation, the Frechet distance."""
    import json

    metrics = json.loads(file.read_text())["metrics"]
    return float(metrics[0]["value"])


def _read(samples: str | Path) -> Any:
    from scoregen.metrics import read_samples

    return read_samples(samples)


def _digest(images: Any) -> str:
    import hashlib

    return hashlib.sha256(images.contiguous().numpy()).hexdigest()
