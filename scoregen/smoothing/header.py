r"""What determines certificates, as plain data for the header of their file: two jobs are the same if all of it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scoregen.rng import Stream
from scoregen.rng import generator as keyed_generator
from scoregen.smoothing.bounds import significant
from scoregen.smoothing.engine import placed, rounded
from scoregen.smoothing.methods import AbstractMethod
from scoregen.smoothing.noise import AbstractNoise
from scoregen.smoothing.results import answers, fingerprint

if TYPE_CHECKING:
    from scoregen.smoothing.smoothed_classifier import SmoothedClassifier


def header(g: "SmoothedClassifier", method: AbstractMethod, known: Sequence[tuple[int, Tensor]]) -> dict[str, Any]:
    r"""What determines the certificates of a smoothed classifier.

    Args:
        g: the smoothed classifier. method: when to stop and what counts prove.
        known: (index, x (*S)), inputs whose answers tell classifiers of one name apart.
    """
    return {
        "noise": repr(g.noise),
        "alpha": method.alpha,
        "n": method.n,
        "method": repr(method),
        "num_classes": g.num_classes,
        "strict": g.strict,
        "precision": str(g.precision),
        **radii(g.noise, method),
        "classifier": fingerprint(g.classifier),  # the hashes last: what precedes them says more where jobs differ
        "answers": _answers(g, known),
    }


def radii(noise: AbstractNoise, method: AbstractMethod) -> dict[str, Any]:
    r"""The distance, and the radii at which a method certifies: its rungs and its last one, None where it has none."""
    targets = getattr(method, "targets", None)
    return {
        "norm": noise.distance,
        "step": noise.step,
        "radii": None if targets is None else [significant(noise.radius(p, 1.0 - p)) for p in targets],
        "reach": None if (p := method.sufficient) is None else significant(noise.radius(p, 1.0 - p)),
    }


def _answers(g: "SmoothedClassifier", inputs: Sequence[tuple[int, Tensor]]) -> str:
    r"""A hash of the classifier's answers to noisy copies of inputs; tells functions of one name apart."""
    copies = [g.noise.sample(x.cpu(), 4, keyed_generator(0, Stream.PROBE, i), g.strict) for i, x in inputs]
    device, dtype = placed(g.classifier, inputs[0][1])
    noisy = rounded(torch.cat(copies), dtype).to(device)
    return answers(g.classifier, torch.split(noisy, g.batch_size or len(noisy)))
