r"""The classifier of a job that smooths one: trained here or from elsewhere, behind a denoiser or not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scoregen.errors import UserError
from scoregen.jobs.base_classifier import check_told, classes_of, denoiser_of, from_elsewhere, purified, trained
from scoregen.jobs.certifying import SmoothingJob, by_place
from scoregen.jobs.job import Weights
from scoregen.jobs.training_data import check_names, check_units, names_of
from scoregen.smoothing import ClassifierInput


@dataclass(frozen=True, kw_only=True)
class OneClassifierJob(SmoothingJob):
    r"""Base class of the jobs that smooth one classifier; abstract.

    Args:
        checkpoint: a classifier trained here: a checkpoint, or a run folder; or `classifier`.
        weights: "ema", "model" or "ema:LENGTH".
        classifier: FILE.pt2, FILE.pt, torchvision:NAME, timm:NAME, hf:FOLDER, hf:OWNER/NAME, MODULE:FUNCTION; in Python
            also a function or module.
        classifier_weights: a state dict for it, FILE.safetensors or FILE.pt; "pretrained" fetches those of its library.
        classifier_input: size and normalisation that it wants; what is None is as its library states.
        **others: of `SmoothingJob`.
    """

    checkpoint: str | None = None
    weights: Weights = "ema"
    classifier: str | Callable[..., Any] | None = None
    classifier_weights: str | None = None
    classifier_input: ClassifierInput = field(default_factory=ClassifierInput)

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

    def smoothed(self, device: Any) -> tuple[Any, list[str]]:
        from scoregen.smoothing.smoothed_classifier import SmoothedClassifier

        classifier, told = self._classifier(device)
        classes = classes_of(classifier, self.data, device, self.needs_labels)
        if self.needs_labels:
            told = told + check_names(self.names(classifier), self.data, classes)
        return SmoothedClassifier(classifier, self.noise, classes, **self.options()), told

    def names(self, classifier: Any) -> list[str]:
        r"""The names of the classes of the classifier, by their numbers; none where they are not known."""
        if self.checkpoint is not None:
            return names_of(self.checkpoint)
        modules = classifier.modules() if hasattr(classifier, "modules") else ()
        found = (getattr(getattr(module, "config", None), "id2label", None) for module in modules)
        named = next((names for names in found if isinstance(names, dict)), {})
        return [str(named[k]) for k in sorted(named)]

    def _classifier(self, device: Any) -> tuple[Any, list[str]]:
        told: list[str] = []
        if self.checkpoint is not None:
            classifier = trained(self, self.checkpoint, self.weights)
            check_units(self.checkpoint, self.data)
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
