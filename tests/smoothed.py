r"""Keys of draws for the losses of smoothed classifiers."""

import torch

from scoregen.rng import generators, randn

SIGMA = 0.5


def keys(places=range(6)):
    return generators(0, 1, 2, places)


def draws(m, places=range(6)):
    r"""The noise that a loss draws, (m, B, *S)."""
    return SIGMA * randn((len(places), m, 1, 2, 2), keys(places), torch.float64).transpose(0, 1)
