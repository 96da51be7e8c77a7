r"""The classifier that a certification smooths: trained here or from elsewhere, behind a denoiser or not."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scoregen.data import Source
from scoregen.errors import UserError
from scoregen.jobs.job import LoadingJob, Weights
from scoregen.smoothing import ClassifierInput
from scoregen.smoothing.noise import AbstractNoise, Gaussian

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Purify:
    r"""Denoised smoothing: a diffusion or consistency model before a classifier that never saw noise.

    Args:
        checkpoint: of the denoiser; None for none. weights: "ema", "model" or "ema:LENGTH".
        size: side of the denoiser's images where the data's are k times as large: the denoiser sees the means of k x k
            pixels, and its clean image is enlarged again. None: they have one size.
        null_label: of a class-conditional network of diffusers: its class for "no label", which it is told.
        votes: purifications of each noisy input; the majority counts.
        seed: seed of a stochastic sampler.
    """

    checkpoint: str | None = None
    weights: Weights = "ema"
    size: int | None = None
    null_label: int | None = None
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


def from_elsewhere(job: Any, device: "torch.device") -> tuple[Any, list[str]]:
    r"""A classifier that was not trained here (the name of a source, a function or a module), and a line about it."""
    from scoregen.smoothing.classifiers import open_classifier, prepared

    classifier, wants = job.classifier, job.classifier_input
    name = classifier if isinstance(classifier, str) else getattr(classifier, "__name__", type(classifier).__name__)
    if isinstance(classifier, str):
        classifier, wants = open_classifier(classifier, device, job.classifier_weights, wants)
    _check_images(name, wants, job.classifier_input, job.data)
    return prepared(classifier, wants, device), [f"classifier: {name}; {wants}"]


def _check_images(name: str, wants: ClassifierInput, given: ClassifierInput, source: Source) -> None:
    r"""Refuses data that a classifier's size and normalisation are not for."""
    shape = tuple(source.shape)
    if wants == ClassifierInput():
        return
    if len(shape) != 3:
        raise UserError(f"classifier_input: is for images, {source.name} has shape {shape}. Leave it out.")
    if wants.mean is not None and len(wants.mean) != shape[0]:
        raise UserError(
            f"classifier: '{name}' takes images of {len(wants.mean)} channels, {source.name} has {shape[0]}. Give data "
            f"of {len(wants.mean)} channels, or another classifier."
        )
    if wants.mean is not None and given.mean is None and source.range != (0.0, 1.0):
        raise UserError(
            f"classifier: '{name}' takes images in [0, 1], {source.name} has the range {source.range}. Give data in "
            "[0, 1], or classifier_input.mean and classifier_input.std in the units of the data."
        )


def denoiser_of(job: Any, classifier: Any) -> Any:
    r"""The denoiser of a certification, before a classifier that is not told the noise."""
    purify = job.purify
    if hasattr(classifier, "noise_sigma"):
        raise UserError(
            f"purify.checkpoint: must be null for a {type(classifier).__name__}, which is told the noise that a "
            f"denoiser takes away, got '{purify.checkpoint}'."
        )
    return job.loaded(str(purify.checkpoint), purify.weights, purify.null_label)


def purified(job: Any, classifier: Any, denoiser: Any, noise: AbstractNoise) -> Any:
    r"""A classifier behind the denoiser of a certification, at the level of a noise."""
    from scoregen.smoothing.multiplicative_noise import LogNormal
    from scoregen.smoothing.purify import PurifiedClassifier, check_chart

    purify = job.purify
    try:
        check_chart(noise, denoiser.sde)
    except ValueError as error:
        raise UserError(f"noise, purify.checkpoint: {error}") from error
    assert isinstance(noise, Gaussian | LogNormal)  # no other noise passes the check
    average = _averaged(purify, denoiser, job.data, noise)
    options = {"votes": purify.votes, "seed": purify.seed, "average": average}
    return PurifiedClassifier(classifier, denoiser, job.sampler, noise.sigma, **options).eval()


def _averaged(purify: Purify, denoiser: Any, source: Source, noise: AbstractNoise) -> int:
    r"""The side of the blocks of pixels whose means a denoiser sees: 1 where its images have the size of the data.

    Raises:
        UserError: the images of the denoiser and of the data have other channels, sizes or units.
    """
    have, made = tuple(source.shape), denoiser.shape
    _check_units(purify, denoiser, source)
    if made is None or made == have:
        if purify.size not in (None, have[-1]):
            raise UserError(f"purify.size: the denoiser takes images of {have}, got {purify.size}. Leave it out.")
        return 1
    which = f"the denoiser of '{purify.checkpoint}' takes images {made}, {source.name} has {have}"
    if len(made) != 3 or len(have) != 3 or made[0] != have[0]:
        raise UserError(f"purify.checkpoint: {which}. Give a denoiser of the data's channels and kind.")
    factors = {side / size for side, size in zip(have[1:], made[1:], strict=True)}
    factor = int(max(factors))
    fits = len(factors) == 1 and factor == max(factors) and isinstance(noise, Gaussian)
    if purify.size is None or not fits or (purify.size, purify.size) != made[1:]:
        by_size = f", or purify.size={made[-1]}: it then sees the means of {factor} x {factor} pixels" if fits else ""
        raise UserError(
            f"purify.size: {which}, got purify.size={purify.size or 'null'}. Give data of its size (data.size="
            f"{made[-1]}){by_size}."
        )
    return factor


def _check_units(purify: Purify, denoiser: Any, source: Source) -> None:
    r"""Refuses data whose range the denoiser's chart takes far from [-1, 1]: they have other units."""
    chart = denoiser.sde.chart.as_affine()
    if chart is None or source.range is None or math.isinf(source.range[1]):
        return
    low, high = (chart.scale * end + chart.shift for end in source.range)
    if not (_NARROWEST <= high - low <= _WIDEST and max(abs(low), abs(high)) <= _WIDEST):
        raise UserError(
            f"purify.checkpoint: the denoiser of '{purify.checkpoint}' takes the range {source.range} of {source.name} "
            f"to {low:g} .. {high:g}, and models about -1 .. 1: it was trained in other units. Give its own data, or "
            "data.range."
        )


_NARROWEST, _WIDEST = 0.25, 8.0  # of the range of the data in model coordinates


def check_told(classifier: Any, noise: AbstractNoise) -> None:
    r"""Refuses a classifier that is told another noise level than that of the certificate."""
    told = getattr(classifier, "noise_sigma", None)
    if told is not None and not (isinstance(noise, Gaussian) and noise.sigma == told):
        raise UserError(
            f"noise: must be Gaussian with sigma={told:g}, which this {type(classifier).__name__} was trained for and "
            f"is told, got {noise!r}. Train it with model.noise_sigma and loss.noise_sigma of the certificate."
        )


def classes_of(classifier: Any, source: Source, device: "torch.device", labelled: bool = True) -> int:
    r"""How many classes a classifier has.

    Args:
        labelled: whether the data must have labels, which are among its classes.

    Raises:
        UserError: the data have no labels, or others.
    """
    from scoregen.smoothing.classifiers import probe
    from scoregen.smoothing.engine import placed

    labels = source.test.label
    if labelled and labels is None:
        raise UserError(
            "data: certified accuracy needs labels, and these data have none. Give a folder whose sub-folders are the "
            "classes; scoregen predict needs no labels."
        )
    first = source.test.in_units(0)[0].to(device)
    classes = probe(classifier, first.to(*placed(classifier, first)))
    if not labelled or labels is None:
        return classes
    needed = int(labels.max()) + 1
    if needed > classes:
        raise UserError(f"classifier: has {classes} classes, {source.name} has {needed}; they do not belong together.")
    if (least := int(labels.min())) < 0:
        raise UserError(f"data: labels must be >= 0, got {least} in {source.name}; -1 stands for an abstention.")
    return classes
