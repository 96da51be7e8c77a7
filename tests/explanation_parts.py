r"""A half space and its smoothed classifier, for the tests of explanations."""

import torch
from smoothed_parts import seeded

from scoregen.smoothing import Gaussian, SmoothedClassifier

SIGMA, SIDE = 0.5, 20
W = torch.linspace(-1, 2, SIDE, dtype=torch.float64)
W = W / W.norm()
POINT = 0.786 * W  # P(w.(x + sigma eps) > 0) = Phi(.786 / .5) = .942


def half_space(y):
    r"""Class 1 where w.y > 0: grad Phi^{-1}(F_1) = w / sigma exactly."""
    margin = y.flatten(1) @ W
    return torch.stack((-margin, margin), 1)


def smoothed(classifier=half_space, classes=2, **options):
    return SmoothedClassifier(classifier, Gaussian(SIGMA), classes, **options)


def explained(n=10_000, classifier=half_space, x=POINT, seed=0, **options):
    return smoothed(classifier).explain(x[None], n, generator=seeded(seed), **options)[0]
