r"""Certification: a classifier, data and a noise to certificates, a table, a curve and a page."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from scoregen.checks import whole
from scoregen.data import Source
from scoregen.description import built_option
from scoregen.errors import UserError
from scoregen.jobs.base_classifier import Purify, check_told, classes_of, from_elsewhere, purified, trained
from scoregen.jobs.conditioning import find_checkpoint
from scoregen.jobs.fast import FastJob
from scoregen.jobs.job import Plan, Weights
from scoregen.samplers import Sampler
from scoregen.smoothing import ClassifierInput
from scoregen.smoothing.noise import AbstractNoise, Gaussian

Method = Literal["fixed", "selection_free", "top2", "stitched", "ladder"]
_PRECISIONS = {"bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True, kw_only=True)
class Certify(FastJob):
    r"""Certifies inputs of a labelled data set; keys as in conf/certify.yaml.

    Args:
        checkpoint: a classifier trained here: a checkpoint, or a run folder. weights: "ema" or "model"; or
        classifier: FILE.pt2, FILE.pt, torchvision:NAME, timm:NAME, hf:FOLDER, hf:OWNER/NAME, MODULE:FUNCTION; in Python
            also a function or module.
        classifier_weights: a state dict for it, FILE.safetensors or FILE.pt; "pretrained" fetches those of its library.
        classifier_input: size and normalisation that it wants; what is None is as its library states.
        data: its test part is certified.
        noise: of the smoothing.
        method, n, n0, alpha, max_radius, step: as `scoregen.smoothing.choice.make_method`.
        max_inputs: test inputs, evenly spread over the test part; None: all. seed: of the noise.
        batch_size: draws in a forward pass; None: 128 on a CPU, 1024 elsewhere; does not change the noise.
        precision: "bf16" or "fp16": of the forward pass; then that rounded classifier is certified.
        strict: noise in float64; False is faster and no proof against a hostile classifier.
        explain: draws of the maps in report.html, for each input shown; 0: no maps. Gaussian noise only.
        export: "csv" or "cohen": also certificates.csv, or certificates.tsv in the published format.
        purify: a denoiser before the classifier. sampler: of the denoiser.
    """

    known: ClassVar = ("certificates.jsonl", "table.md", "curve.png", "report.html")
    free: ClassVar = (*FastJob.free, "export", "explain")
    checkpoint: str | None = None
    weights: Weights = "ema"
    classifier: str | Callable[..., Any] | None = None
    classifier_weights: str | None = None
    classifier_input: ClassifierInput = field(default_factory=ClassifierInput)
    data: Source
    noise: AbstractNoise = field(default_factory=lambda: Gaussian(0.5))
    method: Method = "ladder"
    n: int = 100_000
    n0: int = 100
    alpha: float = 1e-3
    max_radius: float | None = None
    step: float | None = None
    max_inputs: int | None = None
    seed: int = 0
    batch_size: int | None = None
    precision: Literal["bf16", "fp16"] | None = None
    strict: bool = True
    explain: int = 0
    export: Literal["csv", "cohen"] | None = None
    purify: Purify = field(default_factory=Purify)
    sampler: Sampler = field(default_factory=built_option("sampler", "one_shot"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.checkpoint is None) == (self.classifier is None):
            raise UserError(
                "checkpoint, classifier: give one of checkpoint=PATH (trained here) and classifier=SOURCE (from "
                "elsewhere), got both or neither."
            )
        if self.checkpoint is None:
            self.refuse_ignored({"weights": "needs checkpoint=..., whose weights they are"})
        else:
            reason = "needs classifier=SOURCE, not checkpoint=..., which has its own"
            self.refuse_ignored({"classifier_weights": reason, "classifier_input": reason})
        if self.classifier_weights is not None and not isinstance(self.classifier, str):
            raise UserError("classifier_weights: needs classifier=SOURCE as a text. Load them into your module.")
        if self.explain:
            from scoregen.smoothing.explanations import LEAST, check_gaussian

            with user_errors():
                whole(LEAST, explain=self.explain)
                check_gaussian(self.noise)
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

    def plan(self, out: Path) -> Plan:
        from scoregen import parallel
        from scoregen.smoothing.dataset import every_kth

        with user_errors():
            (g, told), method = self._smoothed(parallel.device()), self._method()
            indices = every_kth(len(self.data.test), self.max_inputs)
        description = self._description()

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

    def _method(self) -> Any:
        from scoregen.smoothing.choice import make_method

        asked: dict[str, Any] = {key: getattr(self, key) for key in ("n", "n0", "alpha", "max_radius", "step")}
        return make_method(self.method, self.noise, **asked)

    def _smoothed(self, device: Any) -> tuple[Any, list[str]]:
        r"""The smoothed classifier, and lines about it."""
        import torch

        from scoregen.smoothing.smoothed_classifier import SmoothedClassifier

        classifier, told = self._classifier(device)
        precision = getattr(torch, _PRECISIONS[self.precision]) if self.precision else None
        options: dict[str, Any] = {"batch_size": self.batch_size, "strict": self.strict, "precision": precision}
        classes = classes_of(classifier, self.data, device)
        return SmoothedClassifier(classifier, self.noise, classes, **options), told

    def _classifier(self, device: Any) -> tuple[Any, list[str]]:
        told: list[str] = []
        if self.checkpoint is not None:
            classifier = trained(self, self.checkpoint, self.weights)
        else:
            classifier, told = from_elsewhere(self, device)
        if self.purify.checkpoint is not None:
            classifier = purified(self, classifier)
            made = self.purify.size or "their own"
            return classifier, [*told, f"denoiser: {self.purify.checkpoint}, images of {made} pixels"]
        check_told(classifier, self.noise)
        return classifier, told

    def _description(self) -> dict[str, Any]:
        r"""What tells this classifier and these data from others, for the header of the certificates."""
        names = {key: self.described(key) for key in ("checkpoint", "classifier", "weights", "classifier_weights")}
        for key in ("checkpoint", "classifier", "classifier_weights"):  # the same file by another path is the same job
            if isinstance(names[key], str) and Path(names[key]).exists():
                names[key] = str(Path(names[key]).resolve())
        test = self.data.test
        assert test.label is not None
        labels = hashlib.sha256(test.label.numpy().tobytes()).hexdigest()[:16]
        found = {**names, "data": self.data.name, "data_hash": test.fingerprint(), "labels_hash": labels}
        if self.purify.checkpoint is not None:
            purify = self.described("purify") | {"checkpoint": str(find_checkpoint(self.purify.checkpoint))}
            found |= {"purify": purify, "sampler": self.described("sampler")}
        return found

    def described(self, name: str) -> Any:
        if name == "classifier" and not isinstance(self.classifier, str | None):
            from scoregen.smoothing.results import fingerprint

            return fingerprint(self.classifier)
        return super().described(name)

    def _certify(self, g: Any, method: Any, indices: list[int], description: dict[str, Any], out: Path) -> None:
        from scoregen import parallel
        from scoregen.smoothing.dataset import certify_dataset

        fresh = parallel.gather(not any(out.glob("certificates*.jsonl")))[0]  # before any process opens its file
        start = time.perf_counter()
        inputs = _On(self.data.test, parallel.device())
        found = certify_dataset(g, inputs, indices, method, out, seed=self.seed, description=description)
        seconds = time.perf_counter() - start
        if not found.complete:
            raise UserError(
                f"out: '{out}' has {len(found.records)} of {len(indices)} certificates after all processes ended. It "
                "must be a folder that they share."
            )
        if parallel.rank() == 0:
            self._report(g, found, out)
            if fresh:  # a run that went on says nothing about the whole
                print(f"{seconds / len(indices):.3g} s an input on {parallel.world_size()} process(es)")

    def _report(self, g: Any, run: Any, out: Path) -> None:
        from scoregen.smoothing.export import export
        from scoregen.smoothing.page import write_page
        from scoregen.smoothing.report import curve, table
        from scoregen.storage import write_text

        text = table({"certified accuracy, %": run}, implies=self.noise.implies)
        write_text(out / "table.md", text + "\n")
        curve({out.name: run}, out / "curve.png")
        if self.export is not None:
            export(run, out, self.export)
        told: dict[str, Any] = {"class_names": self.data.class_names, "data_range": self.data.range}
        told["explanations"] = self._explained(g, run, out) if self.explain else None
        write_page(out / "report.html", run, _On(self.data.test, "cpu"), self.noise, **told)
        print(text)
        print(f"\n{out / 'report.html'}")

    def _explained(self, g: Any, run: Any, out: Path) -> dict[int, Any]:
        from scoregen import parallel
        from scoregen.smoothing.maps import explain_records, write_maps
        from scoregen.smoothing.page import SHOWN, extremes

        records = [record for some in extremes(run, SHOWN) for record in some]
        inputs = _On(self.data.test, parallel.device())
        found = explain_records(g, inputs, records, self.explain, self.alpha, self.seed)
        write_maps(out / "explanations.npz", found)
        return found

    def result(self, out: Path) -> float | None:
        from scoregen.smoothing.report import summary
        from scoregen.smoothing.results import load

        return float(summary(load(out)).average_radius)


class _On:
    r"""A data set with its inputs on a device, where a plain function expects them."""

    def __init__(self, data: Any, device: Any) -> None:
        self.data, self.device, self.label = data, device, data.label

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        x, label = self.data[i]
        return self.data.units(x.to(self.device)), label


@contextmanager
def user_errors() -> Iterator[None]:
    r"""What the smoothing module refuses is the user's mistake: one message."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error
