r"""The classifier that a certification smooths: trained here or from elsewhere, behind a denoiser or not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scoregen.data import Source
from scoregen.errors import UserError
from scoregen.jobs.job import LoadingJob, Weights
from scoregen.smoothing.noise import AbstractNoise, Gaussian

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Purify:
    r"""Denoised smoothing: a diffusion or consistency model before a classifier that never saw noise.

    Args:
        checkpoint: of the denoiser; None for none. weights: "ema" or "model".
        votes: purifications of each noisy input; the majority counts.
        seed: of a stochastic sampler.
    """

    checkpoint: str | None = None
    weights: Weights = "ema"
    votes: int = 1
    seed: int = 0


def trained(job: LoadingJob, checkpoint: str, weights: Weights) -> Any:
    r"""The classifier of a checkpoint."""
    import torch

    classifier: Any = job.loaded(checkpoint, weights)
    if hasattr(classifier, "sde"):
        raise UserError(
            f"checkpoint: '{checkpoint}' holds a denoiser. Give a classifier, and the denoiser as "
            f"purify.checkpoint={checkpoint}."
        )
    return classifier.to(memory_format=torch.channels_last)


def from_elsewhere(classifier: str | Callable[..., Any], device: "torch.device") -> Any:
    r"""A classifier that was not trained here: the name of a source, a function or a module."""
    import torch

    from scoregen.smoothing.classifiers import read_classifier

    if isinstance(classifier, str):
        return read_classifier(classifier, device)
    return classifier.to(device) if isinstance(classifier, torch.nn.Module) else classifier


def purified(job: Any, classifier: Any) -> Any:
    r"""A classifier behind the denoiser of a certification."""
    from scoregen.smoothing.purify import PurifiedClassifier, check_chart

    purify, noise = job.purify, job.noise
    if hasattr(classifier, "noise_sigma"):
        raise UserError(
            f"purify.checkpoint: must be null for a {type(classifier).__name__}, which is told the noise that a "
            f"denoiser takes away, got '{purify.checkpoint}'."
        )
    denoiser: Any = job.loaded(str(purify.checkpoint), purify.weights)
    try:
        check_chart(noise, denoiser.sde)
    except ValueError as error:
        raise UserError(f"noise, purify.checkpoint: {error}") from error
    options = {"votes": purify.votes, "seed": purify.seed}
    return PurifiedClassifier(classifier, denoiser, job.sampler, noise.sigma, **options).eval()


def check_told(classifier: Any, noise: AbstractNoise) -> None:
    r"""Refuses a classifier that is told another noise level than that of the certificate."""
    told = getattr(classifier, "noise_sigma", None)
    if told is not None and not (isinstance(noise, Gaussian) and noise.sigma == told):
        raise UserError(
            f"noise: must be Gaussian with sigma={told:g}, which this {type(classifier).__name__} was trained for and "
            f"is told, got {noise!r}. Train it with model.noise_sigma and loss.noise_sigma of the certificate."
        )


def classes_of(classifier: Any, source: Source, device: "torch.device") -> int:
    r"""How many classes a classifier has.

    Raises:
        UserError: the data have no labels, or others.
    """
    from scoregen.smoothing.classifiers import probe
    from scoregen.smoothing.engine import placed

    labels = source.test.label
    if labels is None:
        raise UserError("data: certified accuracy needs labels, and these data have none.")
    first = source.test.in_units(0)[0].to(device)
    classes, needed = probe(classifier, first.to(*placed(classifier, first))), int(labels.max()) + 1
    if needed > classes:
        raise UserError(f"classifier: has {classes} classes, {source.name} has {needed}; they do not belong together.")
    if (least := int(labels.min())) < 0:
        raise UserError(f"data: labels must be >= 0, got {least} in {source.name}; -1 stands for an abstention.")
    return classes
