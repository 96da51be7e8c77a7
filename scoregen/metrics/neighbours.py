r"""Memorisation: are generated images closer to the training set than images the model has never seen?

    ratio(x) = distance from x to the nearest training image / distance from x to the nearest held-out image

A held-out x is not its own neighbour. If the model has learned the law and not the images, generated and held-out
ratios have the same law; a ratio below the alpha-quantile of the held-out ones is flagged, about alpha by chance.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from scoregen.checks import inside
from scoregen.metrics.distances import Features, feature_pair, nearest


class NearestNeighbours(NamedTuple):
    r"""Nearest training images of generated ones, and which of these may be copies."""

    index: Tensor  # type: ignore[assignment]  # (N, k) into the training set, nearest first
    distance: Tensor  # (N, k)
    ratio: Tensor  # (N,) nearest training distance over nearest held-out distance
    threshold: float  # the alpha-quantile of the held-out images' own ratio
    copied: Tensor  # (N,) bool: ratio below the threshold
    fraction: float  # share of `copied`; about alpha when nothing is memorised


def nearest_neighbours(
    generated: Features, training: Features, held_out: Features, k: int = 1, alpha: float = 0.01
) -> NearestNeighbours:
    r"""The nearest training images of each generated one, judged against a held-out set.

    Args:
        generated: (N, D) features or flattened pixels.
        training: (M, D), the data of the training.
        held_out: (H, D) of the same law, never trained on; the threshold is meaningful with H >= 1/alpha.
        k: neighbours to return, k <= M.
        alpha: share that is flagged by chance, in (0, 1).

    Reference: Meehan, Chaudhuri, Dasgupta (2020), arXiv 2004.05675, section 3 (the comparison with held-out data).
    """
    inside(0, 1, "()", alpha=alpha)
    generated, training = feature_pair(generated, training, names=("generated", "training"))
    held_out, _ = feature_pair(held_out, training, least=2, names=("held_out", "training"))
    held_out = held_out.to(generated.device)
    centre = training.mean(0)
    generated, training, held_out = generated - centre, training - centre, held_out - centre
    squared, index = nearest(generated, training, k)
    ratio = _ratio(squared[:, 0], nearest(generated, held_out, 1)[0][:, 0])
    usual = _ratio(nearest(held_out, training, 1)[0][:, 0], nearest(held_out, held_out, 1, same=True)[0][:, 0])
    threshold = float(usual.sort().values[int(alpha * len(usual))])
    copied = ratio < threshold
    return NearestNeighbours(index, squared.sqrt(), ratio, threshold, copied, float(copied.double().mean()))


def _ratio(training: Tensor, held_out: Tensor) -> Tensor:
    r"""The square root of the quotient; 1 where both are zero."""
    return torch.where(training == held_out, torch.ones_like(training), (training / held_out).sqrt())
