r"""Generated images by a classifier: the balance of their classes, and how clearly each image is of one class."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scoregen.metrics.distances import Features, feature_matrix


class ClassBalance(NamedTuple):
    r"""Shares of the predicted classes and how far they are from the reference shares."""

    shares: Tensor  # (K,) sums to one
    total_variation: float  # half the l1 distance to the reference shares: 0 equal, towards 1 a collapsed mode
    entropy: float  # of the shares, over log K: 1 uniform, 0 one class


def class_balance(logits: Features, reference: Features | None = None) -> ClassBalance:
    r"""How the predicted classes are spread.

        Sampling alone gives a total variation of about sqrt(K / (2 pi n)) for n images.

    Args:
        logits: (N, K).
        reference: (M, K) logits of real images, or None for uniform shares.
    """
    shares = _shares(feature_matrix(logits, "logits"))
    classes = len(shares)
    target = torch.full_like(shares, 1 / classes)
    if reference is not None:
        target = _shares(feature_matrix(reference, "reference")).to(shares.device)
        if len(target) != classes:
            raise ValueError(f"logits and reference must have the same classes, got {classes} and {len(target)}.")
    entropy = float(torch.special.entr(shares).sum()) / math.log(classes) if classes > 1 else 0.0
    return ClassBalance(shares, float((shares - target).abs().sum()) / 2, entropy)


def confidence(logits: Features) -> float:
    r"""The mean probability of the predicted class, in (0, 1]: low for images between classes or of none.

    Args:
        logits: (N, K), N >= 1.
    """
    return float(feature_matrix(logits, "logits").softmax(1).amax(1).mean())


def _shares(logits: Tensor) -> Tensor:
    return torch.bincount(logits.argmax(1), minlength=logits.shape[1]).double() / len(logits)
