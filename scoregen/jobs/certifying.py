r"""What the jobs that smooth classifiers share: the data, the draws, the folder of certificates and its page."""

import hashlib
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from scoregen.data import Source
from scoregen.description import built_option
from scoregen.errors import UserError
from scoregen.jobs.base_classifier import Purify
from scoregen.jobs.conditioning import find_checkpoint
from scoregen.jobs.fast import FastJob
from scoregen.jobs.job import Plan
from scoregen.samplers import Sampler
from scoregen.smoothing.noise import AbstractNoise, Gaussian

Method = Literal["fixed", "selection_free", "top2", "stitched", "ladder", "ladder_top2"]


@dataclass(frozen=True, kw_only=True)
class SmoothingJob(FastJob):
    r"""Base class of the jobs that smooth classifiers and ask them about data; abstract.

    Args:
        data: its test part is used.
        noise: of the smoothing. seed: seed of its draws.
        n: draws for an input. alpha: failure probability for each input.
        batch_size: draws in a forward pass; None: 128 on a CPU, 1024 elsewhere; does not change the noise.
        precision: "bf16" or "fp16": of the forward pass; then it is that rounded classifier which is smoothed.
        strict: noise in float64; False is faster and no proof against a hostile classifier.
        purify: a denoiser before the classifier. sampler: sampler of the denoiser.

    Attributes:
        needs_labels: whether the data must have labels.
    """

    needs_labels: ClassVar[bool] = True
    data: Source
    noise: AbstractNoise = field(default_factory=lambda: Gaussian(0.5))
    n: int
    alpha: float = 1e-3
    seed: int = 0
    batch_size: int | None = None
    precision: Literal["no", "bf16", "fp16"] = "no"
    strict: bool = True
    purify: Purify = field(default_factory=Purify)
    sampler: Sampler = field(default_factory=built_option("sampler", "one_shot"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.purify.checkpoint is None:
            self._refuse_purification()

    def _refuse_purification(self) -> None:
        self.refuse_ignored({"sampler": "needs purify.checkpoint=..., the denoiser that it samples from"})
        for part in fields(Purify):
            if (value := getattr(self.purify, part.name)) != part.default:
                raise UserError(
                    f"purify.{part.name}: needs purify.checkpoint=..., the denoiser, got purify.{part.name}={value}. "
                    "Leave it out."
                )

    @abstractmethod
    def smoothed(self, device: Any) -> tuple[Any, list[str]]:
        r"""What is smoothed, and lines about it."""

    @abstractmethod
    def networks(self) -> dict[str, Any]:
        r"""Which networks these are, for the header of the results."""

    def options(self) -> dict[str, Any]:
        r"""How a smoothed classifier draws."""
        import torch

        kinds = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
        return {"batch_size": self.batch_size, "strict": self.strict, "precision": kinds[self.precision]}

    def description(self) -> dict[str, Any]:
        r"""What tells these classifiers and data from others, for the header of the results."""
        test = self.data.test
        told = {"data": self.data.name, "data_hash": test.fingerprint()}
        if self.needs_labels:
            assert test.label is not None
            told["labels_hash"] = hashlib.sha256(test.label.numpy().tobytes()).hexdigest()[:16]
        found = {**self.networks(), **told}
        if self.purify.checkpoint is not None:
            purify = self.described("purify") | {"checkpoint": str(find_checkpoint(self.purify.checkpoint))}
            found |= {"purify": purify, "sampler": self.described("sampler")}
        return found

    def inputs(self) -> Any:
        r"""The test part, with its inputs in their units on the device of this process."""
        from scoregen import parallel

        return On(self.data.test, parallel.device())


@dataclass(frozen=True, kw_only=True)
class CertifyingJob(SmoothingJob):
    r"""Base class of the jobs that certify inputs of a labelled data set; abstract.

    Args:
        method, n, n0, alpha, max_radius, step: as `scoregen.smoothing.choice.make_method`.
        max_inputs: test inputs, evenly spread over the test part; None: all.
        export: "csv" or "cohen": also certificates.csv, or certificates.tsv in the published format.
        **others: of `SmoothingJob`.
    """

    known: ClassVar[tuple[str, ...]] = ("certificates.jsonl", "table.md", "curve.png", "report.html")
    free: ClassVar = (*FastJob.free, "export")
    method: Method = "ladder"
    n: int = 100_000
    n0: int = 100
    max_radius: float | None = None
    step: float | None = None
    max_inputs: int | None = None
    export: Literal["csv", "cohen"] | None = None

    @abstractmethod
    def rule(self, g: Any) -> Any:
        r"""When to stop and what counts prove."""

    def asked(self) -> dict[str, Any]:
        r"""Draws, failure probability and radii, as the methods are asked for them."""
        return {key: getattr(self, key) for key in ("n", "n0", "alpha", "max_radius", "step")}

    def plan(self, out: Path) -> Plan:
        from scoregen import parallel
        from scoregen.smoothing.dataset import every_kth

        with user_errors():
            g, told = self.smoothed(parallel.device())
            method = self.rule(g)
            indices = every_kth(len(self.data.test), self.max_inputs)
        description = self.description()

        def work() -> None:
            with user_errors():
                self._certify(g, method, indices, description, out)

        lines = [
            f"data: {self.data.name}; certifying {self.data.told('test', len(indices))}",
            *told,
            f"noise: {self.noise!r}; method: {method!r}",
            f"out: {out}",
        ]
        return Plan(work, lines, description)

    def _certify(self, g: Any, method: Any, indices: list[int], description: dict[str, Any], out: Path) -> None:
        from scoregen import parallel
        from scoregen.smoothing.dataset import certify_dataset

        fresh = parallel.gather(not any(out.glob("certificates*.jsonl")))[0]  # before any process opens its file
        start = time.perf_counter()
        found = certify_dataset(g, self.inputs(), indices, method, out, seed=self.seed, description=description)
        seconds = time.perf_counter() - start
        if not found.complete:
            raise UserError(
                f"out: '{out}' has {len(found.records)} of {len(indices)} certificates after all processes ended. It "
                "must be a folder that they share."
            )
        more = self.further(g, found, out)
        if parallel.rank() == 0:
            self._report(g, found, out, more)
            if fresh:  # a run that went on says nothing about the whole
                print(f"{seconds / len(indices):.3g} s an input on {parallel.world_size()} process(es)")
        self.conclude(found, more)

    def _report(self, g: Any, run: Any, out: Path, more: dict[str, Any]) -> None:
        from scoregen.smoothing.export import export
        from scoregen.smoothing.page import write_page
        from scoregen.smoothing.report import curve, table
        from scoregen.storage import write_text

        text = "\n\n".join([table({"certified accuracy, %": run}, implies=self.noise.implies), *self.tables(more)])
        write_text(out / "table.md", text + "\n")
        curve({out.name: run}, out / "curve.png")
        if self.export is not None:
            export(run, out, self.export)
        told: dict[str, Any] = {"class_names": self.data.class_names, "data_range": self.data.range}
        told |= {**self.shown(g, run, out), **more}
        write_page(out / "report.html", run, On(self.data.test, "cpu"), self.noise, **told)
        print(text)
        print(f"\n{out / 'report.html'}")

    def shown(self, g: Any, run: Any, out: Path) -> dict[str, Any]:
        r"""What else the page shows, by the name of its argument of `write_page`."""
        return {}

    def further(self, g: Any, run: Any, out: Path) -> dict[str, Any]:
        r"""What all processes do with the certificates; its results by the name of their argument of `write_page`."""
        return {}

    def tables(self, more: dict[str, Any]) -> list[str]:
        r"""Further tables, of what `further` gave."""
        return []

    def conclude(self, run: Any, more: dict[str, Any]) -> None:
        r"""Called last on all processes; raise a UserError where `further` found the certificates wrong."""

    def result(self, out: Path) -> float | None:
        from scoregen.smoothing.report import summary
        from scoregen.smoothing.results import load

        return float(summary(load(out)).average_radius)


class On:
    r"""A data set with its inputs on a device, where a plain function expects them."""

    def __init__(self, data: Any, device: Any) -> None:
        self.data, self.device, self.label = data, device, data.label

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        x, label = self.data[i]
        return self.data.units(x.to(self.device)), label


def by_place(checkpoint: Any) -> Any:
    r"""A path by which the same file is known whatever path leads there; what is no path stays."""
    there = isinstance(checkpoint, str) and Path(checkpoint).exists()
    return str(Path(checkpoint).resolve()) if there else checkpoint


@contextmanager
def user_errors() -> Iterator[None]:
    r"""What the smoothing module refuses is the user's mistake: one message."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error
