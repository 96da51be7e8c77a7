r"""Explanations of the inputs that a page of certificates shows: computed, as pictures, as a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoregen.pictures import image_png
from scoregen.rng import Stream, generator
from scoregen.smoothing.bounds import round_down, safe
from scoregen.smoothing.dataset import LabelledData
from scoregen.smoothing.explanations import Explanation
from scoregen.smoothing.smoothed_classifier import SmoothedClassifier
from scoregen.storage import write_atomically

ERRORS = 2  # standard errors, below which a value is faded
_FADED = 0.2  # of its colour is left


def explain_records(
    g: SmoothedClassifier, data: LabelledData, records: Sequence[Mapping[str, Any]], n: int, alpha: float, seed: int
) -> dict[int, Explanation]:
    r"""Explanations of certified inputs, by index, each of the class that its certificate bounds.

    Args:
        g: the smoothed classifier.
        data: data[i] -> (x, label).
        records: of the certificates; of one that is double, one is used.
        n: draws for an input. alpha: failure probability of one statement.
        seed: seed of the noise, which certificates of this seed do not share.
    """
    classes = {int(record["index"]): int(record["candidate"]) for record in records}
    inputs = torch.stack([data[index][0] for index in classes])
    keyed = generator(seed, Stream.EXPLAIN)
    found = g.explain(inputs, n, alpha, classes=list(classes.values()), generator=keyed, indices=list(classes))
    return dict(zip(classes, found, strict=True))


def map_png(found: Explanation) -> bytes:
    r"""The direction of an image (C, H, W) as a PNG, the sum of its channels.

    Red raises the probability, blue lowers it, on one scale. Faded: where the gradient is below 2 standard errors.
    """
    direction = found.direction.sum(0)
    sure = found.gradient.sum(0).abs() >= ERRORS * found.standard_error.square().sum(0).sqrt()
    strength = direction / direction.abs().max().clamp_min(torch.finfo(direction.dtype).tiny)
    strength = torch.where(sure, strength, _FADED * strength)
    return image_png(torch.stack((1 + strength.clamp(max=0), 1 - strength.abs(), 1 - strength.clamp(min=0))))


def caption(found: Explanation, name: str) -> str:
    r"""What is proved of a direction, in a line; radius and cosine are rounded down."""
    if found.direction_radius <= 0:
        return f"map of {name}: no direction is proved"
    cosine = f"{round_down(found.cosine_lower, 2):g}"
    return f"map of {name}: an ascent direction within {safe(found.direction_radius):.12g}, cosine at least {cosine}"


def write_maps(path: str | Path, explanations: Mapping[int, Explanation]) -> Path:
    r"""Writes explanations as one .npz file, whole or not at all; the inputs are its rows.

    index, label, n: (N,) int64. alpha, probability, p_lower, direction_radius, cosine_lower: (N,) float64.
    gradient, standard_error, direction: (N, *S) float64.
    """
    rows = list(explanations.values())
    numbers = ("label", "n", "alpha", "probability", "p_lower", "direction_radius", "cosine_lower")
    parts: dict[str, Any] = {"index": np.array(list(explanations))}
    parts |= {name: np.array([getattr(row, name) for row in rows]) for name in numbers}
    for name in ("gradient", "standard_error", "direction"):
        tensors: list[Tensor] = [getattr(row, name) for row in rows]
        parts[name] = torch.stack(tensors).numpy()
    return write_atomically(Path(path), lambda file: np.savez(file, **parts))
