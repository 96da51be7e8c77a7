r"""Classifiers in closed form and their dual certificate, for the tests of it."""

import torch
from torch import nn

from scoregen.smoothing import (
    DualSmoothing,
    SmoothedClassifier,
)


def half_space(w, transform=lambda y: y, offset=0.0):
    r"""Class 1 where w . transform(y) > offset."""
    direction = torch.tensor(w, dtype=torch.float64)

    def classifier(y):
        margin = transform(y.double()) @ direction - offset
        return torch.stack((-margin, margin), 1)

    return classifier


def always(label):
    return lambda y: nn.functional.one_hot(torch.full((len(y),), label), 2).double()


def dual(noises, classifiers, batch_size=None):
    selector, *experts = [
        SmoothedClassifier(f, noise, 2, batch_size=batch_size) for noise, f in zip(noises, classifiers, strict=True)
    ]
    return DualSmoothing(selector, experts)
