r"""Certification: a classifier, data and a noise to certificates, a table, a curve and a page."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from scoregen.checks import whole
from scoregen.errors import UserError
from scoregen.jobs.base_classifier import check_told, classes_of, denoiser_of, from_elsewhere, purified, trained
from scoregen.jobs.certifying import CertifyingJob, by_place, user_errors
from scoregen.jobs.job import Weights
from scoregen.smoothing import ClassifierInput


@dataclass(frozen=True, kw_only=True)
class Certify(CertifyingJob):
    r"""Certifies inputs of a labelled data set; keys as in conf/certify.yaml.

    Args:
        checkpoint: a classifier trained here: a checkpoint, or a run folder. weights: "ema" or "model"; or
        classifier: FILE.pt2, FILE.pt, torchvision:NAME, timm:NAME, hf:FOLDER, hf:OWNER/NAME, MODULE:FUNCTION; in Python
            also a function or module.
        classifier_weights: a state dict for it, FILE.safetensors or FILE.pt; "pretrained" fetches those of its library.
        classifier_input: size and normalisation that it wants; what is None is as its library states.
        explain: draws of the maps in report.html, for each input shown; 0: no maps. Gaussian noise only.
        **others: of `CertifyingJob`.
    """

    free: ClassVar = (*CertifyingJob.free, "explain")
    checkpoint: str | None = None
    weights: Weights = "ema"
    classifier: str | Callable[..., Any] | None = None
    classifier_weights: str | None = None
    classifier_input: ClassifierInput = field(default_factory=ClassifierInput)
    explain: int = 0

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

    def rule(self, g: Any) -> Any:
        from scoregen.smoothing.choice import make_method

        return make_method(self.method, self.noise, **self.asked())

    def smoothed(self, device: Any) -> tuple[Any, list[str]]:
        from scoregen.smoothing.smoothed_classifier import SmoothedClassifier

        classifier, told = self._classifier(device)
        classes = classes_of(classifier, self.data, device)
        return SmoothedClassifier(classifier, self.noise, classes, **self.options()), told

    def _classifier(self, device: Any) -> tuple[Any, list[str]]:
        told: list[str] = []
        if self.checkpoint is not None:
            classifier = trained(self, self.checkpoint, self.weights)
        else:
            classifier, told = from_elsewhere(self, device)
        if self.purify.checkpoint is not None:
            classifier = purified(self, classifier, denoiser_of(self, classifier), self.noise)
            made = self.purify.size or "their own"
            return classifier, [*told, f"denoiser: {self.purify.checkpoint}, images of {made} pixels"]
        check_told(classifier, self.noise)
        return classifier, told

    def networks(self) -> dict[str, Any]:
        names = {key: self.described(key) for key in ("checkpoint", "classifier", "weights", "classifier_weights")}
        return {key: value if key == "weights" else by_place(value) for key, value in names.items()}

    def described(self, name: str) -> Any:
        if name == "classifier" and not isinstance(self.classifier, str | None):
            from scoregen.smoothing.results import fingerprint

            return fingerprint(self.classifier)
        return super().described(name)

    def shown(self, g: Any, run: Any, out: Path) -> dict[str, Any]:
        return {"explanations": self._explained(g, run, out)} if self.explain else {}

    def _explained(self, g: Any, run: Any, out: Path) -> dict[int, Any]:
        from scoregen.smoothing.maps import explain_records, write_maps
        from scoregen.smoothing.page import SHOWN, extremes

        records = [record for some in extremes(run, SHOWN) for record in some]
        found = explain_records(g, self.inputs(), records, self.explain, self.alpha, self.seed)
        write_maps(out / "explanations.npz", found)
        return found
